"""One device, eight devices and recomputed panels give the same answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ncl_jax import losses
from tests.losses.losses_test import batch, float32_bounds

DEVICES = 8
SIZE = 5 * DEVICES


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def summed(loss):
    """Weighted local sum, the per-pair values beside it."""

    def function(text, video, scale, ids, valid, weights):
        out = loss(text, video, scale, ids, valid)
        out = out[0] if isinstance(out, tuple) else out
        return jnp.sum(out * weights), out

    return jax.value_and_grad(function, (0, 1, 2), has_aux=True)


def sharded(loss):
    def local(*args):
        (_, out), (gx, gy, gt) = summed(functools.partial(loss, axis_name="data"))(*args)
        return out, gx, gy, jax.lax.psum(gt, "data")

    rows = P("data")
    mesh = Mesh(jax.devices()[:DEVICES], ("data",))
    return jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(rows, rows, P(), rows, rows, rows),
            out_specs=(rows, rows, rows, P()),
            check_vma=False,
        )
    )


def pmapped(loss):
    def local(*args):
        (_, out), (gx, gy, gt) = summed(functools.partial(loss, axis_name="data"))(*args)
        return out, gx, gy, jax.lax.psum(gt, "data")

    mapped = jax.pmap(
        local, axis_name="data", in_axes=(0, 0, None, 0, 0, 0), devices=jax.devices()[:DEVICES]
    )

    def function(*args):
        split = [x if np.ndim(x) == 0 else x.reshape(DEVICES, -1, *x.shape[1:]) for x in args]
        out, gx, gy, gt = mapped(*split)
        join = [np.asarray(x).reshape(-1, *x.shape[2:]) for x in (out, gx, gy)]
        return (*join, np.asarray(gt)[0])

    return function


def compare(loss, other, scale, atol):
    text, video, ids, valid, weights = batch(SIZE, 16)
    args = (text, video, jnp.asarray(scale), ids, valid, weights)
    (_, out), (gx, gy, gt) = jax.jit(summed(loss))(*args)
    for expected, got in zip((out, gx, gy, gt), other(*args), strict=True):
        np.testing.assert_allclose(got, expected, atol=atol * max(1, np.abs(expected).max()))


LOSSES = {
    "infonce": losses.infonce,
    "diagonal": functools.partial(losses.ncl, positives="diagonal"),
    "stop": functools.partial(losses.ncl, gradient="stop"),
    "unroll": functools.partial(losses.ncl, gradient="unroll"),
    "implicit": functools.partial(
        losses.ncl, gradient="implicit", iterations=2000, tolerance=1e-12, overrelaxation=True
    ),
}


SLOW = {"diagonal", "infonce", "implicit", "stop"}
NAMES = [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in LOSSES]


@pytest.mark.parametrize("name", NAMES)
def test_sharded_equals_whole(x64, name):
    compare(LOSSES[name], sharded(LOSSES[name]), 20.0, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_sharded_tiled_equals_whole(x64, name):
    tiled = functools.partial(LOSSES[name], materialize="never")
    compare(LOSSES[name], sharded(tiled), 20.0, 1e-10)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) for n in ("stop", "infonce")]
)
def test_pmap_equals_whole(x64, name):
    compare(LOSSES[name], pmapped(LOSSES[name]), 20.0, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "noise"), [(5.0, 0.6), (20.0, 0.6), (100.0, 0.6), (100.0, 0.3)])
def test_float32_executions_agree(scale, noise):
    """Values to rounding; gradients to 1e-5 of their norm, or of the norm at loss 1 where the loss
    is below .1 (the last case) and the rounding of the scores is all that is left of them.
    """
    text, video, ids, valid, weights = batch(SIZE, 16, noise)
    weights = np.float32(weights)
    args = (np.float32(text), np.float32(video), jnp.float32(scale), ids, valid, weights)
    loss = functools.partial(losses.ncl, positives="diagonal" if noise < 0.6 else "same_clip")
    (_, out), expected = jax.jit(summed(loss))(*args)
    mean = np.mean(out[valid])
    assert (mean < 0.1) == (noise < 0.6)
    for materialize in ("always", "never"):
        values, *grads = sharded(functools.partial(loss, materialize=materialize))(*args)
        np.testing.assert_allclose(values, out, **float32_bounds(scale))
        for one, other in zip(expected, grads, strict=True):
            norm = np.linalg.norm(one) / min(1, mean if mean < 0.1 else 1)
            assert np.linalg.norm(other - one) <= 1e-5 * norm


@pytest.mark.slow
def test_ragged_panels_equal_whole(x64, monkeypatch):
    """Panels of four rows of eleven: two full ones, and the rest."""
    monkeypatch.setattr("ncl_jax.sinkhorn.blocks.PANEL_ROWS", 4)
    monkeypatch.setattr("ncl_jax.sinkhorn.blocks.PANEL_ENTRIES", 44)
    text, video, ids, valid, weights = batch()
    args = (text, video, jnp.asarray(20.0), ids, valid, weights)
    loss = functools.partial(losses.ncl, gradient="unroll", iterations=2)
    whole = jax.jit(summed(loss))(*args)
    tiled = jax.jit(summed(functools.partial(loss, materialize="never")))(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), whole, tiled)


def test_batch_that_does_not_divide_is_refused():
    text, video, ids, valid, weights = batch(SIZE + 1, 16)
    with pytest.raises(ValueError, match="divisible"):
        sharded(losses.ncl)(text, video, jnp.asarray(20.0), ids, valid, weights)
