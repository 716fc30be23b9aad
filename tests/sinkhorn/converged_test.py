"""A report's error is that of its biases in float64, and it says converged only where that is so.

On scores whose plan is nearly decomposable, has one hub, or is far from balanced after a few
iterations, at every place that solves for biases.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from ncl_jax import losses, sinkhorn
from ncl_jax.normalizers import Bank, Ncl
from ncl_jax.sinkhorn import numpy_solver, sharded
from ncl_jax.types import CONVERGED
from tests import oracles

TEXTS, VIDEOS, DIM = 90, 64, 12
ROUNDING = 3e-4
"""Of an error: float32 rounds logits of some hundreds to some 1e-5."""

LARGE = 1e38


def unit(x):
    return np.float32(x / np.linalg.norm(x, axis=1, keepdims=True))


def scattered():
    rng = np.random.default_rng(3)
    text, noise = rng.normal(size=(TEXTS, DIM)), rng.normal(size=(VIDEOS, DIM))
    return unit(text), unit(text[:VIDEOS] + noise)


def one_hub():
    rng = np.random.default_rng(1)
    text, video = scattered()
    video[0] = np.eye(DIM)[0]
    return unit(rng.normal(size=text.shape) + 2 * np.eye(DIM)[0]), unit(video)


def solved(text, video, scale, iterations, strength, **options):
    scores = jnp.matmul(scale * text, video.T, precision="highest")
    masses = np.ones(TEXTS), np.full(VIDEOS, TEXTS / VIDEOS)
    return sinkhorn.solve(scores, *masses, iterations=iterations, strength=strength, **options)


def over_relaxed(text, video, scale, iterations, strength):
    return solved(
        text, video, scale, max(iterations, 1), 1.0, tolerance=CONVERGED, overrelaxation=True
    )


def on_the_host(text, video, scale, iterations, strength, memory=None):
    return numpy_solver.balance(text, video, scale, iterations, strength, memory)


def over_devices(text, video, scale, iterations, strength):
    return sharded.balance(text, video, scale, iterations=iterations, strength=strength)


def fitted(text, video, scale, iterations, strength, host):
    found = Ncl(scale, iterations, strength, host=host).fit(Bank(text), video)
    report = sinkhorn.SinkhornReport(*(found.evidence[x] for x in sinkhorn.SinkhornReport._fields))
    return sinkhorn.Biases(found.bank_bias, found.bias), report


PLACES = {
    "solve": solved,
    "solve, text first": functools.partial(solved, order="text"),
    "over-relaxed": over_relaxed,
    "host, stored": on_the_host,
    "host, tiled": functools.partial(on_the_host, memory=0),
    "sharded": over_devices,
    "Ncl, host": functools.partial(fitted, host=True),
    "Ncl, device": functools.partial(fitted, host=False),
}


def float64_error(text, video, scale, strength, biases):
    """Largest relative deviation of the biases from what one exact update would make them."""
    s = scale * np.float64(text) @ np.float64(video).T
    a, b = (np.asarray(x, np.float64) for x in biases)
    row, col = -logsumexp(s + b, axis=1), np.log(TEXTS / VIDEOS) - logsumexp(s.T + a, axis=1)
    off = np.concatenate([a - strength * row, b - strength * col])
    return np.abs(np.expm1(off)).max()


@pytest.mark.parametrize(
    "place",
    [x if x.startswith("host") else pytest.param(x, marks=pytest.mark.slow) for x in PLACES],
)
def test_a_report_says_what_its_biases_are(place):
    verdicts = set()
    for make in (scattered, one_hub):
        text, video = make()
        for scale, iterations, strength in (
            (5.0, 30, 1.0), (20.0, 2, 1.0), (100.0, 4, 1.0), (100.0, 30, 1.0), (100.0, 300, 1.0),
            (100.0, 4, 0.3), (300.0, 3, 0.1), (300.0, 30, 0.5), (100.0, 0, 1.0),
        ):  # fmt: skip
            strength = 1.0 if place == "over-relaxed" else strength
            biases, report = PLACES[place](text, video, scale, iterations, strength)
            error = float64_error(text, video, scale, strength, biases)
            reported = np.minimum(report.error, LARGE)  # float32 has no larger ones
            np.testing.assert_allclose(reported, min(error, LARGE), rtol=0.02, atol=ROUNDING)
            assert not report.converged or error < CONVERGED + ROUNDING
            assert report.converged or error > CONVERGED - ROUNDING
            verdicts.add(bool(report.converged))
    assert verdicts == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("axis_name", [None, "data"])
@pytest.mark.parametrize("materialize", ["always", "never"])
def test_the_report_of_a_loss_is_that_of_its_batch(axis_name, materialize):
    ids, valid = np.arange(VIDEOS), np.arange(VIDEOS) % 9 > 0
    verdicts = set()
    for make in (scattered, one_hub):
        text, video = (x[:VIDEOS] for x in make())
        for scale, iterations in ((3.0, 20), (20.0, 4), (100.0, 20)):
            function = loss(iterations, axis_name, materialize)
            report = function(text, video, jnp.float32(scale), ids, valid)
            s = scale * np.float64(text) @ np.float64(video).T
            mass = np.float64(valid)
            a, b = oracles.sinkhorn(s, mass, mass, iterations=iterations, order="gallery")
            off = a[valid] + logsumexp(s[valid][:, valid] + b[valid], axis=1)
            error = np.abs(np.expm1(off)).max()
            np.testing.assert_allclose(report.error, error, rtol=0.02, atol=ROUNDING)
            assert bool(report.converged) == (error < CONVERGED)
            verdicts.add(bool(report.converged))
    assert verdicts == {True, False}


@functools.cache
def loss(iterations, axis_name, materialize):
    def report(*args):
        return losses.ncl(
            *args, iterations=iterations, axis_name=axis_name, materialize=materialize
        )[1]

    if axis_name is None:
        return jax.jit(report)
    rows, whole = jax.sharding.PartitionSpec(axis_name), jax.sharding.PartitionSpec()
    mesh = jax.sharding.Mesh(jax.devices()[:8], (axis_name,))
    return jax.jit(
        jax.shard_map(
            report, mesh=mesh, in_specs=(rows, rows, whole, rows, rows), out_specs=whole,
            check_vma=False,
        )
    )  # fmt: skip
