"""The step is the same on one device, on four, and under both mappers."""

import functools
import types

import jax
import numpy as np
import optax
import pytest

from ncl_jax import losses
from ncl_jax.distributed import sharding
from ncl_jax.training.step import init_state, make_step
from tests import tiny

pytestmark = pytest.mark.usefixtures("quick_compilation")
STEPS, BATCH = 5, 16


def loss(name):
    if name == "infonce":
        return lambda *pairs: (losses.infonce(*pairs, axis_name=sharding.AXIS), {})

    def ncl(*pairs):
        values, report = losses.ncl(*pairs, axis_name=sharding.AXIS)
        return values, {"sinkhorn_error": report.error}

    return ncl


@functools.cache
def run(name, devices, mapper, placement="replicated"):
    """Losses, gradient norms and final weights of five steps of clipped SGD with momentum."""
    towers, params = tiny.towers()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.5))
    mesh = sharding.data_mesh(jax.devices()[:devices])
    state = init_state(params, optimizer, 0)
    shardings = sharding.state_sharding(state, mesh, placement)
    step = sharding.map_step(
        make_step(towers, loss(name), optimizer), mesh, mapper, shardings
    )
    state = sharding.place_state(state, shardings)
    seen = []
    for number in range(STEPS):
        valid = BATCH - 3 if number == 2 else BATCH  # a padded batch in the middle
        state, metrics = step.run(state, step.place(tiny.batch(number, BATCH, valid)))
        seen.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.asarray(seen), tiny.leaves(state.params), tiny.leaves(params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ncl", "infonce"])
@pytest.mark.parametrize(
    ("devices", "mapper", "placement"),
    [
        (1, "pmap", "replicated"),
        (4, "shard_map", "replicated"),
        (4, "pmap", "replicated"),
        (4, "shard_map", "fsdp"),
    ],
)
def test_mappers_placements_and_devices_agree(name, devices, mapper, placement, monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED", 64)
    losses_, weights, start = run(name, devices, mapper, placement)
    expected_losses, expected_weights, _ = run(name, 1, "shard_map")
    np.testing.assert_allclose(losses_, expected_losses, rtol=1e-5)
    moved = np.linalg.norm(expected_weights - start)
    assert moved > 1e-2
    assert np.linalg.norm(weights - expected_weights) < 1e-5 * np.linalg.norm(expected_weights)
    # The distance from the common start is what the gradients did: it would differ by the
    # number of devices if one of their sums were left out.
    assert np.linalg.norm(weights - expected_weights) < 1e-3 * moved


def first_step(devices, placement="replicated", mapper="shard_map"):
    """The mapped step of NCL with SGD at rate 1, and its first state."""
    towers, params = tiny.towers()
    optimizer = optax.sgd(1.0)
    mesh = sharding.data_mesh(jax.devices()[:devices])
    state = init_state(params, optimizer, 0)
    shardings = sharding.state_sharding(state, mesh, placement)
    step = make_step(towers, loss("ncl"), optimizer)
    return (
        sharding.map_step(step, mesh, mapper, shardings),
        sharding.place_state(state, shardings),
    )


@pytest.mark.slow
def test_fsdp_keeps_a_share_of_every_large_leaf_on_a_device(monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED", 64)
    step, state = first_step(4, "fsdp")
    state, _ = step.run(state, step.place(tiny.batch(0, BATCH)))
    held = {leaf.shape: leaf.addressable_shards[0].data.size for leaf in
            jax.tree.leaves(state.params)}
    cut = {shape: size for shape, size in held.items() if size < np.prod(shape)}
    assert len(cut) >= 5
    assert all(4 * size == np.prod(shape) for shape, size in cut.items())
    assert all(np.prod(shape) < 64 or any(n % 4 == 0 for n in shape) == (shape in cut)
               for shape in held)


def test_pmap_refuses_a_sharded_state(monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED", 64)
    with pytest.raises(ValueError, match="pmap keeps a whole copy of the state"):
        first_step(4, "fsdp", "pmap")


def test_a_step_that_is_not_finite_leaves_the_state_alone(unchecked):
    """NaN in one clip's frames; the counter goes on, the weights do not move."""
    step, state = first_step(4)
    before = tiny.leaves(state.params)
    batch = tiny.batch(0, BATCH)
    video = batch.video.astype(np.float32)
    video[5] = np.nan
    state, metrics = step.run(state, step.place(batch._replace(video=video)))
    assert int(metrics["skipped"]) == 1
    assert int(state.step) == 1
    np.testing.assert_array_equal(tiny.leaves(state.params), before)


@pytest.mark.slow
def test_gradients_are_those_of_one_device():
    """With SGD at rate 1 the first step's weight change is the gradient itself."""
    changes = []
    for devices in (1, 4):
        step, state = first_step(devices)
        params = tiny.towers()[1]
        state, _ = step.run(state, step.place(tiny.batch(0, BATCH)))
        changes.append(tiny.leaves(state.params) - tiny.leaves(params))
    one, four = changes
    assert np.linalg.norm(one) > 1e-2
    assert np.linalg.norm(four - one) < 1e-4 * np.linalg.norm(one)


def test_an_unknown_mapper_is_refused():
    with pytest.raises(ValueError, match="parallel_backend: expected one of"):
        first_step(1, mapper="vmap")


def test_batch_must_divide_among_devices():
    with pytest.raises(ValueError, match="multiple of the 4 devices, got 6"):
        sharding.check_batch_size(6, sharding.data_mesh(jax.devices()[:4]))


def test_processes_must_have_as_many_devices_each():
    devices = np.array([types.SimpleNamespace(process_index=i) for i in (0, 0, 1)])
    with pytest.raises(ValueError, match=r"as many devices in every process, got {0: 2, 1: 1}"):
        sharding.check_batch_size(6, types.SimpleNamespace(size=3, devices=devices))
