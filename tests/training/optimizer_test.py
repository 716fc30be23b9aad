"""The optimizer against loops in NumPy; groups, frozen parts, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncl_jax.training import optimizer as optimizers
from tests import oracles, tiny

RECIPE = {
    "algorithm": "bert_adam", "steps": 20, "learning_rate": 0.1, "tower_learning_rate": 0.01,
    "warmup": 0.1, "weight_decay": 0.2, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "clip_norm": 2.0,
    "clip_each_norm": 1.0, "freeze": "none",
}  # fmt: skip
BLOCK = {"fc1": {"kernel": (3, 4), "bias": (4,)}, "layer_norm1": {"scale": (3,), "bias": (3,)}}
SHAPES = {
    "text_model": {
        "embeddings": {"token_embedding": {"embedding": (5, 3)}},
        "encoder": {"layers": {0: BLOCK, 1: BLOCK}},
        "final_layer_norm": {"scale": (3,)},
    },
    "vision_model": {
        "embeddings": {"class_embedding": (3,), "patch_embedding": {"kernel": (2, 2, 3, 3)}},
        "pre_layrnorm": {"scale": (3,)},
        "encoder": {"layers": {0: BLOCK, 10: BLOCK}},
    },
    "visual_projection": {"kernel": (3, 2)},
    "logit_scale": (),
    "temporal": {"encoder": {"layers": {0: BLOCK}}, "position_embedding": {"embedding": (4, 3)}},
}


def tree(seed, size=1.0):
    """Random numbers in the shape of a small model."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(size * rng.normal(size=shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def flat(params):
    """{"text_model.encoder.layers.0...": float64 array}."""
    found = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(e.key) for e in path): np.float64(leaf) for path, leaf in found}


def trained(params, gradients, **changes):
    return run(optimizers.build(**RECIPE | changes), params, gradients)


def run(optimizer, params, gradients):
    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.init)(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params


@pytest.mark.parametrize("freeze", ["none", "layers<1"])
def test_bert_adam_is_that_of_the_oracle(freeze):
    """All steps of a schedule: warm-up, the drop after it, clipping of both kinds, decay."""
    gradients = [tree(seed, size) for seed, size in enumerate([3.0, 0.01, 1.0, 0.3] * 5, 1)]
    start = tree(0, 0.1)
    got = flat(trained(start, gradients, freeze=freeze))
    expected = oracles.bert_adam(
        flat(start),
        [flat(g) for g in gradients],
        rate=lambda name: 0.1 if name.startswith("temporal") else 0.01,
        frozen=lambda name: freeze == "layers<1" and (
            ".embeddings." in name or "pre_layrnorm" in name
            or (".layers.0." in name and "temporal" not in name)
        ),
        steps=20, warmup=0.1, decay=0.2, b1=0.9, b2=0.98, eps=1e-6, clip=2.0, clip_each=1.0,
    )  # fmt: skip
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        moved = value - flat(start)[name]
        # Absolute: single entries cancel. In units of what the largest entry moved.
        np.testing.assert_allclose(
            got[name], value, atol=2e-5 * np.abs(moved).max() + 1e-9, err_msg=name
        )
    assert np.linalg.norm(got["logit_scale"] - flat(start)["logit_scale"]) > 1e-3


@pytest.mark.slow
def test_adamw_with_one_group_is_that_of_optax():
    gradients = [tree(seed) for seed in range(1, 6)]
    settings = {"clip_each_norm": 0.0, "tower_learning_rate": None}
    got = trained(tree(0), gradients, algorithm="adamw", **settings)
    rate = optimizers.schedule(0.1, 20, 0.1)
    optimizer = optax.chain(
        optax.clip_by_global_norm(2.0),
        optax.adamw(rate, 0.9, 0.98, 1e-6, weight_decay=0.2,
                    mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
    )  # fmt: skip
    expected = run(optimizer, tree(0), gradients)
    np.testing.assert_allclose(tiny.leaves(got), tiny.leaves(expected), rtol=1e-5, atol=1e-6)


def test_decay_spares_what_it_should():
    """With zero gradients only the decay moves a parameter."""
    start = jax.tree.map(jnp.ones_like, tree(0))
    zeros = [jax.tree.map(jnp.zeros_like, start)] * 3
    for algorithm, decays in (
        ("adamw", lambda name, x: x.ndim > 1),
        ("bert_adam", lambda name, x: not name.endswith(".bias")),
    ):
        after = flat(trained(start, zeros, algorithm=algorithm))
        for name, value in after.items():
            assert (value < 1).all() == decays(name, value), (algorithm, name)


@pytest.mark.slow
def test_frozen_parameters_have_no_gradient_no_moments_and_no_norm():
    towers, params = tiny.towers()
    frozen = optimizers.freeze_towers(towers, "stem")
    batch = tiny.batch(0, 4)
    first = jax.jit(jax.grad(lambda p: frozen.encode_video(p, *batch[:2])[:, 0].sum()))
    gradient = flat(first(params))
    stem = {n for n in gradient if ".embeddings." in n or "pre_layrnorm" in n}
    assert len(stem) > 3
    vision = {n for n in gradient if n.startswith(("vision", "visual", "temporal"))}
    # A key's bias shifts all logits of a query alike: its gradient is rounding.
    assert all(gradient[n].any() == (n not in stem) for n in vision if "k_proj.bias" not in n)
    state = optimizers.build(**RECIPE | {"freeze": "stem"}).init(params)
    kept = sum(x.size for x in jax.tree.leaves(state) if x.ndim)
    assert kept == 2 * sum(x.size for n, x in flat(params).items() if n not in stem and x.ndim)
    huge = jax.tree_util.tree_map_with_path(
        lambda path, x: x + 1e6 * optimizers.is_frozen(tuple(str(e.key) for e in path), "stem"),
        tree(1),
    )
    one, other = (trained(tree(0), [g, g], freeze="stem") for g in (tree(1), huge))
    np.testing.assert_array_equal(tiny.leaves(one), tiny.leaves(other))


@pytest.mark.parametrize("rule", ["", "all", "layers<0", "layers<x", "layers", "stem,layers<2"])
def test_unknown_rules_are_named(rule):
    with pytest.raises(ValueError, match=r"optim\.freeze: expected none, stem or layers<N"):
        optimizers.build(**RECIPE | {"freeze": rule})


def test_numbers_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"optim\.algorithm: expected one of adamw, bert_adam"):
        optimizers.build(**RECIPE | {"algorithm": "sgd"})
    with pytest.raises(ValueError, match="clip_norm above 0"):
        optimizers.build(**RECIPE | {"clip_norm": 0.0})
    with pytest.raises(ValueError, match=r"optim\.learning_rate: expected a number in \[0, inf\)"):
        optimizers.build(**RECIPE | {"learning_rate": -1.0})
    with pytest.raises(ValueError, match=r"optim\.b2: expected a number in \[0, 1\.0\), got 1"):
        optimizers.build(**RECIPE | {"b2": 1.0})


def test_logit_scale_stops_at_100_and_comes_back():
    optimizer = optax.chain(optax.sgd(1.0), optimizers.limit_logit_scale())
    params = {"logit_scale": jnp.asarray(4.5), "w": jnp.ones(2)}
    state = jax.jit(optimizer.init)(params)
    for gradient, expected in ((-3.0, 100.0), (0.5, 100 * np.exp(-0.5))):
        updates, state = optimizer.update(
            {"logit_scale": jnp.asarray(gradient), "w": jnp.zeros(2)}, state, params
        )
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(np.exp(params["logit_scale"]), expected, rtol=1e-5)


def test_schedules_warm_up_and_end_at_zero():
    for make, after in ((optimizers.schedule, 1.0), (optimizers.uncorrected_schedule, 0.97553)):
        rate = make(1.0, 100, 0.1)
        assert rate(0) == 0
        assert rate(5) == pytest.approx(0.5)
        assert rate(10) == pytest.approx(after, abs=1e-5)  # CLIP4Clip's drops when it is warm
        assert rate(100) == pytest.approx(0, abs=1e-6)
        assert np.isfinite([make(1.0, 3, share)(s) for share in (0.0, 1.0) for s in range(4)]).all()
