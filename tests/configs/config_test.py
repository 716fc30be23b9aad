"""Every config builds, and its training step compiles at the level of shapes."""

import contextlib
import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from configs import common
from ncl_jax.distributed import sharding
from ncl_jax.experiment import build
from ncl_jax.models import clip
from ncl_jax.training.step import init_state
from ncl_jax.types import Batch

FOLDER = pathlib.Path(common.__file__).parent
NOT_CONFIGS = ("__init__", "common", "clip4clip", "sweeps")
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in NOT_CONFIGS)


def load(name, arg=""):
    return importlib.import_module(f"configs.{name}").get_config(arg)


def abstract_step(config, devices):
    """The mapped step of a config, and abstract arguments for it."""
    vocab = config.tokenizer.vocab_size
    towers, params = clip.abstract(build.build_sizes(config, vocab))
    optimizer = build.build_optimizer(config)
    step = build.build_step(config, towers, optimizer)
    state = jax.eval_shape(lambda p: init_state(p, optimizer, 0), params)
    d, size = config.data, config.train.batch_size
    batch = Batch(
        video=jax.ShapeDtypeStruct((size, d.max_frames, d.image_size, d.image_size, 3), jnp.uint8),
        frame_mask=jax.ShapeDtypeStruct((size, d.max_frames), bool),
        tokens=jax.ShapeDtypeStruct((size, d.max_tokens), jnp.int32),
        token_mask=jax.ShapeDtypeStruct((size, d.max_tokens), bool),
        video_id=jax.ShapeDtypeStruct((size,), jnp.int32),
        valid=jax.ShapeDtypeStruct((size,), bool),
    )
    mesh = sharding.data_mesh(jax.devices()[:devices])
    shardings = sharding.state_sharding(state, mesh, config.sharding)
    return sharding.map_step(step, mesh, "shard_map", shardings).run, state, batch


PUBLISHED = ("activitynet", "msrvtt", "msvd")
SMALL = [("demo", ""), ("msvd", "demo"), ("msrvtt", "demo,loss=infonce"),
         ("activitynet", "demo,paper,head=seqTransf")]  # fmt: skip
ARGUMENTS = ("", "loss=infonce", "paper", "head=seqTransf")
FULL = [(name, arg) for name in PUBLISHED for arg in ARGUMENTS]
FULL += [("msrvtt", "protocol=7k"), ("msrvtt", "protocol=full"), ("msvd", "arch=L/14"),
         ("msvd", "arch=B/16,paper,loss=infonce"), ("activitynet", "protocol=val_2")]  # fmt: skip


def test_no_config_is_left_out():
    assert {name for name, _ in SMALL} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "arg"), SMALL + [pytest.param(*case, marks=pytest.mark.slow) for case in FULL]
)
def test_step_of_every_config_traces(name, arg):
    """With two blocks per tower in place of twelve alike, but for the first and the largest."""
    config = load(name, arg)
    if (name, arg) not in (FULL[0], ("msvd", "arch=L/14")):
        config.model.vision.layers = config.model.text.layers = 2
    build.validate_config(config)
    micro = config.batch.micro_batch_size
    sharding.check_batch_size(config.train.batch_size, sharding.data_mesh(), micro)
    run, state, batch = abstract_step(config, devices=4)
    after, metrics = jax.eval_shape(run, state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("loss", ["ncl", pytest.param("infonce", marks=pytest.mark.slow)])
def test_step_lowers_for_gpu_and_tpu(loss):
    """What cannot be run on this machine at least becomes StableHLO for the others."""
    run, state, batch = abstract_step(load("demo", f"loss={loss}"), devices=4)
    exported = jax.export.export(run, platforms=["cuda", "tpu"])(state, batch)
    assert set(exported.platforms) == {"cuda", "tpu"}
    assert ("all_gather" in exported.mlir_module())
    assert "all_reduce" in exported.mlir_module()


def test_argument_grammar():
    assert load("demo", "loss=infonce,seed=7").seed == 7
    assert load("demo", "loss=infonce").loss.name == "infonce"
    with pytest.raises(ValueError, match="expected some of loss=ncl, seed=0"):
        load("demo", "sead=1")
    with pytest.raises(ValueError, match="seed: expected int, got 'x'"):
        load("demo", "seed=x")
    with pytest.raises(ValueError, match="expected True, False, got 'yes'"):
        common.parse_arg("flag=yes", flag=False)
    with pytest.raises(ValueError, match="loss: expected ncl, infonce, got 'nce'"):
        load("msvd", "loss=nce")
    with pytest.raises(ValueError, match="seed: given twice"):
        load("msvd", "seed=1,seed=2")
    with pytest.raises(ValueError, match="config argument 'seed': expected some of"):
        load("msvd", "seed")  # only a switch goes without a value


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_differ_in_what_they_say(name):
    def changed(arg):
        old, new = (dict(flat(load(name, a).to_dict())) for a in ("", arg))
        assert old.keys() == new.keys()
        return {key: value for key, value in new.items() if old[key] != value}

    assert changed("loss=infonce") == {"loss.name": "infonce"}
    assert changed("seeds=3") == {"seeds": 3}
    assert changed("paper") == {
        "name": f"{name}-paper", "optim.tower_learning_rate": 1e-7, "model.dtype": "float32",
        "loss.positives": "diagonal",
    }  # fmt: skip
    paper = load(name, "paper")
    assert paper.optim.algorithm == "bert_adam"
    assert paper.optim.freeze == "stem"
    assert (paper.optim.learning_rate, paper.optim.weight_decay) == (1e-4, 0.2)
    assert 1e-6 <= load(name).optim.tower_learning_rate <= 1e-5
    pairs = {"msvd": 48_774, "msrvtt": 180_000, "activitynet": 10_009}[name]
    assert paper.train.steps == 5 * (pairs // 128)


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss.name": "nce"}, "loss.name: expected one of ncl, infonce, got 'nce'"),
        ({"batch.micro_batch_size": -1}, "batch.micro_batch_size: expected at least 0, got -1"),
        ({"optim.freeze": "all"}, "optim.freeze: expected none, stem or layers<N"),
        ({"optim.algorithm": "sgd"}, "optim.algorithm: expected one of adamw, bert_adam"),
        ({"eval.bank_clips": -5}, r"eval.bank_clips: expected at least 0 \(all\), got -5"),
        ({"optim.warmup": 2.0}, "optim.warmup: expected a share"),
    ],
)
def test_impossible_settings_are_told_before_anything_is_built(change, message):
    config = load("msvd")
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        build.validate_config(config)


def test_every_key_has_a_comment():
    """common.py is the reference of the keys: a key without a word of meaning is missing there."""
    for line in (FOLDER / "common.py").read_text().splitlines():
        text = line.strip()
        is_key = text[:2] in {"c.", "d.", "m.", "o.", "t."} and " = " in text
        if is_key and "ConfigDict()" not in text and "_tower(" not in text:
            assert "#" in text, text


def test_unknown_loss_is_named():
    config = load("demo")
    config.loss.name = "nce"
    with pytest.raises(ValueError, match=r"loss\.name: expected one of ncl, infonce, got 'nce'"):
        build.build_loss(config)


@pytest.mark.parametrize(("changes", "said"), [
    ({"gradient": "unroll"}, None),
    ({"gradient": "implicit", "tolerance": 1e-3, "overrelaxation": True}, None),
    ({"gradient": "implicit"}, "need a tolerance"),
])
def test_every_gradient_can_be_configured(changes, said):
    config = load("demo")
    config.loss.update(changes)
    rows = jax.ShapeDtypeStruct((1, 4, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    valid = jax.ShapeDtypeStruct((1, 4), bool)
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    loss = jax.vmap(build.build_loss(config), (0, 0, None, 0, 0), axis_name=sharding.AXIS)
    with pytest.raises(ValueError, match=said) if said else contextlib.nullcontext():
        per_pair, metrics = jax.eval_shape(loss, rows, rows, scale, ids, valid)
        assert per_pair.shape == (1, 4)
        assert set(metrics) == {"sinkhorn_error", "sinkhorn_converged"}
