"""The implicit gradient in float32 against float64, where the plan is nearly decomposable."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ncl_jax import losses
from tests.losses.losses_test import unit

SIZE, DIM, DEVICES = 64, 12, 8
BOUND = 1e-3
"""Of the gradient's norm: what a float32 gradient may be off the same call in float64."""


def scattered(size=SIZE, dim=DIM):
    """Pairs over the whole sphere: at scale 100 the plan falls apart into small groups."""
    rng = np.random.default_rng(3)
    text = unit(rng.normal(size=(size, dim)))
    return text, unit(rng.normal(size=(size, dim)) + text)


def grouped(size=SIZE, dim=DIM, groups=2):
    """Groups with cosines near .9 within and near 0 between them."""
    rng = np.random.default_rng(groups)
    centre = np.repeat(np.eye(dim)[:groups], size // groups, axis=0)
    return tuple(unit(centre + 0.33 * unit(rng.normal(size=centre.shape))) for _ in range(2))


def padded(size=SIZE):
    """One whole device of eight, and three more rows."""
    valid = np.ones(size, bool)
    valid[size // 8 : size // 4] = valid[[0, size // 2, size - 1]] = False
    return valid


@functools.cache
def whole(materialize="always", iterations=3000):
    return jax.jit(jax.grad(_summed(materialize, iterations), (0, 1)))


@functools.cache
def sharded(materialize="always", iterations=3000):
    rows = P("data")
    return jax.jit(
        jax.shard_map(
            jax.grad(_summed(materialize, iterations, axis_name="data"), (0, 1)),
            mesh=Mesh(jax.devices()[:DEVICES], ("data",)),
            in_specs=(rows, rows, P(), rows, rows, rows),
            out_specs=rows,
            check_vma=False,
        )
    )


def _summed(materialize, iterations, **kwargs):
    loss = functools.partial(
        losses.ncl, gradient="implicit", iterations=iterations, tolerance=1e-3, overrelaxation=True
    )

    def function(text, video, scale, ids, valid, weights):
        out, _ = loss(text, video, scale, ids, valid, materialize=materialize, **kwargs)
        return jnp.sum(out * weights)

    return function


def gradient(function, dtype, text, video, scale, ids, valid, weights):
    with jax.enable_x64(dtype == np.float64):
        floats = (np.asarray(np.float32(x), dtype) for x in (text, video, scale))
        out = function(*floats, np.int32(ids), valid, np.asarray(weights, dtype))
        return np.concatenate([np.asarray(x, np.float64) for x in out])


def relative(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def variants(size=SIZE):
    """(ids, valid, weights): a mean, repeated clips, padding, and unequal weights."""
    every = np.ones(size, bool)
    some = padded(size)
    uneven = np.random.default_rng(0).uniform(size=size) / size
    return {
        "mean": (np.arange(size), every, every / size),
        "repeated": (np.arange(size) // 2, every, every / size),
        "padded": (np.arange(size), some, some / some.sum()),
        "weighted": (np.arange(size), every, uneven),
    }


@pytest.mark.parametrize("make", [scattered, grouped])
@pytest.mark.parametrize("iterations", [pytest.param(3000, marks=pytest.mark.slow), 5])
def test_float32_is_float64_to_a_thousandth(make, iterations):
    """Converged or not (five pairs leave errors up to 1), equal weights or not, padded with NaN."""
    function = whole("always", iterations)
    for name, (ids, valid, weights) in variants().items():
        text, video = make()
        text[~valid] = video[~valid] = np.nan
        args = (text, video, 100.0, ids, valid, weights)
        expected = gradient(function, np.float64, *args)
        assert relative(gradient(function, np.float32, *args), expected) < BOUND, name


@pytest.mark.slow
@pytest.mark.parametrize("materialize", ["always", "never"])
def test_sharded_is_whole_converged_or_not(materialize):
    """One definition, whatever the order of sums: where the solver stopped too early as well."""
    text, video = scattered()
    ids, valid = np.arange(SIZE) % 40, padded()
    text[~valid] = video[~valid] = np.nan
    weights = np.random.default_rng(0).uniform(size=SIZE)
    args = (text, video, 100.0, ids, valid, weights)
    for dtype, bound in ((np.float64, 1e-7), (np.float32, BOUND)):
        expected = gradient(whole("always", 40), dtype, *args)
        assert relative(gradient(sharded(materialize, 40), dtype, *args), expected) < bound
