"""Every config builds, and its training step compiles at the level of shapes."""

import contextlib
import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from configs import common
from ncl_jax import assembly, parallel, train
from ncl_jax.types import Batch

FOLDER = pathlib.Path(common.__file__).parent
NOT_CONFIGS = ("__init__", "common", "sweeps")
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in NOT_CONFIGS)


def load(name, arg=""):
    return importlib.import_module(f"configs.{name}").get_config(arg)


def abstract_step(config, devices):
    """The mapped step of a config, and abstract arguments for it."""
    vocab = config.tokenizer.vocab_size
    towers, params = assembly.build_towers(config, vocab)
    optimizer = assembly.build_optimizer(config)
    step = assembly.build_step(config, towers)
    state = jax.eval_shape(lambda p: train.init_state(p, optimizer, 0), params)
    d, size = config.data, config.train.batch_size
    batch = Batch(
        video=jax.ShapeDtypeStruct((size, d.max_frames, d.image_size, d.image_size, 3), jnp.uint8),
        frame_mask=jax.ShapeDtypeStruct((size, d.max_frames), bool),
        tokens=jax.ShapeDtypeStruct((size, d.max_tokens), jnp.int32),
        token_mask=jax.ShapeDtypeStruct((size, d.max_tokens), bool),
        video_id=jax.ShapeDtypeStruct((size,), jnp.int32),
        valid=jax.ShapeDtypeStruct((size,), bool),
    )
    mesh = parallel.data_mesh(jax.devices()[:devices])
    sharding = parallel.state_sharding(state, mesh, config.placement)
    return parallel.map_step(step, mesh, "shard_map", sharding).run, state, batch


LARGE = {"msvd"}  # their weights alone take seconds to make


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in NAMES]
)
@pytest.mark.parametrize("loss", ["ncl", "infonce"])
def test_step_of_every_config_traces(name, loss):
    run, state, batch = abstract_step(load(name, f"loss={loss}"), devices=4)
    after, metrics = jax.eval_shape(run, state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("loss", ["ncl", "infonce"])
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
    with pytest.raises(ValueError, match="expected bool, got 'yes'"):
        common.parse_arg("flag=yes", flag=False)


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
        assembly.build_loss(config)


@pytest.mark.parametrize(("changes", "said"), [
    ({"gradient": "through"}, None),
    ({"gradient": "implicit", "tolerance": 1e-3, "relax": True}, None),
    ({"gradient": "implicit"}, "need a tolerance"),
])
def test_every_gradient_can_be_configured(changes, said):
    config = load("demo")
    config.loss.update(changes)
    rows = jax.ShapeDtypeStruct((1, 4, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    valid = jax.ShapeDtypeStruct((1, 4), bool)
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    loss = jax.vmap(assembly.build_loss(config), (0, 0, None, 0, 0), axis_name=parallel.AXIS)
    with pytest.raises(ValueError, match=said) if said else contextlib.nullcontext():
        per_pair, metrics = jax.eval_shape(loss, rows, rows, scale, ids, valid)
        assert per_pair.shape == (1, 4)
        assert set(metrics) == {"sinkhorn_error", "sinkhorn_converged"}
