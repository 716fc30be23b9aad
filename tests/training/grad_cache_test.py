"""Gradients of a large batch through small micro-batches are those of the whole batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncl_jax import losses
from ncl_jax.distributed import sharding
from ncl_jax.training.grad_cache import in_micro_batches
from ncl_jax.training.step import init_state, make_step
from tests import tiny

BATCH = 16
LOSSES = {
    "infonce": losses.infonce,
    "stop": functools.partial(losses.ncl, gradient="stop"),
    "unroll": functools.partial(losses.ncl, gradient="unroll"),
    "implicit": functools.partial(
        losses.ncl, gradient="implicit", iterations=200, tolerance=1e-6
    ),
}


def gradient(name, micro, devices, mapper="shard_map", placement="replicated"):
    """What plain SGD at rate 1 changes in one step of the whole training road."""

    def loss(*pairs):
        values = LOSSES[name](*pairs, axis_name=sharding.AXIS)
        return values[0] if isinstance(values, tuple) else values, {}

    towers, params = tiny.towers()
    optimizer = optax.sgd(1.0)
    mesh = sharding.data_mesh(jax.devices()[:devices])
    state = init_state(params, optimizer, 0)
    shardings = sharding.state_sharding(state, mesh, placement)
    step = make_step(towers, loss, optimizer, micro)
    step = sharding.map_step(step, mesh, mapper, shardings)
    state = sharding.place_state(state, shardings)
    after, metrics = step.run(state, step.place(tiny.batch(0, BATCH, BATCH - 1)))
    return tiny.leaves(params) - tiny.leaves(after.params), float(metrics["loss"])


whole = functools.cache(lambda name: gradient(name, 0, 1))
SLOW = pytest.mark.slow


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    ("name", "micro", "devices", "mapper"),
    [
        pytest.param("stop", 4, 1, "shard_map", marks=SLOW),
        pytest.param("unroll", 4, 1, "shard_map", marks=SLOW),
        pytest.param("implicit", 4, 1, "shard_map", marks=SLOW),
        pytest.param("infonce", 4, 1, "shard_map", marks=SLOW),
        pytest.param("stop", 1, 8, "shard_map", marks=SLOW),
        pytest.param("stop", 1, 8, "pmap", marks=SLOW),
        pytest.param("unroll", 1, 8, "shard_map", marks=SLOW),
        pytest.param("unroll", 2, 4, "pmap", marks=SLOW),
        pytest.param("implicit", 1, 8, "shard_map", marks=SLOW),
        pytest.param("stop", 2, 4, "shard_map+fsdp", marks=SLOW),
    ],
)
def test_gradients_are_those_of_the_whole_batch(name, micro, devices, mapper, monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED", 64)
    expected, expected_loss = whole(name)
    mapper, _, placement = mapper.partition("+")
    got, loss = gradient(name, micro, devices, mapper, placement or "replicated")
    assert np.linalg.norm(expected) > 1e-2
    assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)
    assert loss == pytest.approx(expected_loss, rel=1e-6)


def dropout(params, rows, keys):
    """A tower with dropout: one key per row."""
    hidden = jnp.tanh(rows @ params["in"])
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, hidden.shape[1:]))(keys)
    out = jnp.where(keep, 2 * hidden, 0) @ params["out"]
    return out / jnp.linalg.norm(out, axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("micro", [1, 4])
def test_dropout_is_replayed(micro):
    """Forward, recomputation and the whole batch draw the same masks: NCL has the same gradient."""
    rng = np.random.default_rng(0)
    params = {"in": rng.normal(size=(6, 16)), "out": rng.normal(size=(16, 8))}
    params = jax.tree.map(jnp.float32, params)
    text, video = jnp.float32(rng.normal(size=(2, BATCH, 6)))
    ids = jnp.arange(BATCH)

    def loss(params, encode, seed):
        text_keys, video_keys = jax.random.split(jax.random.key(seed), (2, BATCH))
        pairs = encode(params, text, text_keys), encode(params, video, video_keys)
        return losses.ncl(*pairs, jnp.float32(10.0), ids, ids >= 0)[0].mean()

    cached = in_micro_batches(dropout, micro)
    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, expected = both(params, dropout, 0)
    again, got = both(params, cached, 0)
    _, other = both(params, cached, 1)
    expected, got, other = map(tiny.leaves, (expected, got, other))
    assert again == pytest.approx(float(value), rel=1e-6)
    assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(other - expected) > 0.1 * np.linalg.norm(expected)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_batch():
    """Temporaries: four times the batch adds its embeddings and scores, not its activations."""
    towers, params = tiny.towers()

    def temporaries(size, micro):
        def loss(params, batch):
            text = in_micro_batches(towers.encode_text, micro)(params, *batch[2:4])
            video = in_micro_batches(towers.encode_video, micro)(params, *batch[:2])
            return jnp.sum(losses.ncl(text, video, towers.scale(params), *batch[4:])[0])

        compiled = jax.jit(jax.grad(loss)).lower(params, tiny.batch(0, size)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporaries(64, 8), temporaries(256, 8)
    assert many - few < 4 * (256**2 - 64**2) * 4 + 8 * (256 - 64) * 16 * 4
    assert temporaries(256, 0) - temporaries(64, 0) > 5 * (many - few)


def test_micro_batches_must_divide():
    with pytest.raises(ValueError, match="micro-batches of 3 rows do not divide 4 rows"):
        in_micro_batches(lambda w, x: w * x, 3)(1.0, jnp.ones((4, 1)))
    mesh = sharding.data_mesh(jax.devices()[:2])
    sharding.check_batch_size(16, mesh, 4)
    sharding.check_batch_size(16, mesh, 16)  # more than the device has: all at once
    said = r"batch\.micro_batch_size: expected a divisor of the 8 pairs"
    with pytest.raises(ValueError, match=said):
        sharding.check_batch_size(16, mesh, 3)
