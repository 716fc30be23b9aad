"""The step is the same on one device, on four, and under both mappers."""

import functools

import jax
import numpy as np
import optax
import pytest

from ncl_jax import losses, parallel, train
from tests import tiny

STEPS, BATCH = 5, 16


def loss(name):
    if name == "infonce":
        return lambda *pairs: (losses.infonce(*pairs, axis_name=parallel.AXIS), {})

    def ncl(*pairs):
        values, report = losses.ncl(*pairs, axis_name=parallel.AXIS)
        return values, {"sinkhorn_error": report.error}

    return ncl


@functools.cache
def run(name, devices, mapper):
    """Losses, gradient norms and final weights of five steps of plain SGD."""
    towers, params = tiny.towers()
    optimizer = optax.sgd(0.1)
    mesh = parallel.data_mesh(jax.devices()[:devices])
    step = parallel.map_step(train.make_step(towers, loss(name), optimizer), mesh, mapper)
    state = parallel.replicate(train.init_state(params, optimizer, 0), mesh)
    seen = []
    for number in range(STEPS):
        valid = BATCH - 3 if number == 2 else BATCH  # a padded batch in the middle
        state, metrics = step.run(state, step.place(tiny.batch(number, BATCH, valid)))
        seen.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.asarray(seen), tiny.leaves(state.params), tiny.leaves(params)


@pytest.mark.parametrize("name", ["ncl", pytest.param("infonce", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("devices", "mapper"),
    [pytest.param(1, "pmap", marks=pytest.mark.slow), (4, "shard_map"), (4, "pmap")],
)
def test_mappers_and_devices_agree(name, devices, mapper):
    losses_, weights, start = run(name, devices, mapper)
    expected_losses, expected_weights, _ = run(name, 1, "shard_map")
    np.testing.assert_allclose(losses_, expected_losses, rtol=1e-5)
    moved = np.linalg.norm(expected_weights - start)
    assert moved > 1e-2
    assert np.linalg.norm(weights - expected_weights) < 1e-5 * np.linalg.norm(expected_weights)
    # The distance from the common start is what the gradients did: it would differ by the
    # number of devices if one of their sums were left out.
    assert np.linalg.norm(weights - expected_weights) < 1e-3 * moved


def test_gradients_are_those_of_one_device():
    """With SGD at rate 1 the first step's weight change is the gradient itself."""
    changes = []
    for devices in (1, 4):
        towers, params = tiny.towers()
        optimizer = optax.sgd(1.0)
        mesh = parallel.data_mesh(jax.devices()[:devices])
        step = parallel.map_step(train.make_step(towers, loss("ncl"), optimizer), mesh, "shard_map")
        state = parallel.replicate(train.init_state(params, optimizer, 0), mesh)
        state, _ = step.run(state, step.place(tiny.batch(0, BATCH)))
        changes.append(tiny.leaves(state.params) - tiny.leaves(params))
    one, four = changes
    assert np.linalg.norm(one) > 1e-2
    assert np.linalg.norm(four - one) < 1e-4 * np.linalg.norm(one)


def test_an_unknown_mapper_is_refused():
    with pytest.raises(ValueError, match="mapper: expected one of"):
        parallel.map_step(lambda s, b: (s, {}), parallel.data_mesh(), "vmap")


def test_batch_must_divide_among_devices():
    with pytest.raises(ValueError, match="multiple of the 4 devices, got 6"):
        parallel.check_batch_size(6, parallel.data_mesh(jax.devices()[:4]))
