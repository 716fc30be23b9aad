"""B3: the solver's time per entry and iteration, and against OTT and POT at equal error."""

import os
import time
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import (
    Row,
    at_least,
    at_most,
    blocking,
    embeddings,
    interleave,
    note,
    read_floor,
)
from ncl_jax import sinkhorn


def run(quick: bool) -> Iterator[Row]:
    yield from _per_iteration(3 if quick else 9)
    for tau in (0.1,) if quick else (0.1, 0.05, 0.02):
        yield from _peers(tau, size=1024 if quick else 2048)
    text, video = embeddings(1024, 64, noise=2.0)
    one = jnp.ones(1024)
    biases, report = sinkhorn.solve(100 * text @ video.T, one, one, iterations=100)
    finite = all(bool(jnp.isfinite(x).all()) for x in (*biases, report.error))
    yield at_least("B3", "finite at tau = 0.01 (1: yes)", finite, 1)


def _per_iteration(blocks: int) -> Iterator[Row]:
    """From the difference of 44 and 4 iterations, so that the kernel's making drops out."""
    text, video = embeddings(4096, 512)
    scores, one = 20 * text @ video.T, jnp.ones(4096)
    calls = {
        str(k): blocking(jax.jit(partial(sinkhorn.solve, iterations=k)), scores, one, one)
        for k in (4, 44)
    }
    seconds = interleave(calls | read_floor(scores), blocks)
    median = {name: np.median(s) for name, s in seconds.items()}
    each, read = (median["44"] - median["4"]) / 40, median["t_r XLA"]
    yield note("B3", "one read of 4096 x 4096 (t_r), ms", 1e3 * read)
    yield note("B3", "one iteration (rows and columns), ms", 1e3 * each)
    yield at_most("B3", "iteration over t_r", each / read, 1.6)


def _peers(tau: float, size: int) -> Iterator[Row]:
    """Seconds to a marginal error of 1e-3 (L1, the peers' own measure at most that)."""
    os.environ.setdefault("POT_BACKEND_DISABLE_TENSORFLOW", "1")  # it would import all of it
    import ot
    from ott.geometry import geometry
    from ott.solvers import linear

    text, video = embeddings(size, 256)
    s, one = text @ video.T / tau, jnp.ones(size)
    mass, cost = np.full(size, 1 / size), np.asarray(-s, np.float64)
    ours = jax.jit(partial(sinkhorn.solve, iterations=5000, tolerance=1e-3))
    biases, report = ours(s, one, one)

    @partial(jax.jit, static_argnames="count")
    def ott_run(s, count):
        g = geometry.Geometry(cost_matrix=-s, epsilon=1.0)
        out = linear.solve(g, min_iterations=count, max_iterations=count, lse_mode=True)
        return out.f, out.g

    def error(f, g):
        p = np.exp(np.asarray(s) + np.asarray(f)[:, None] + np.asarray(g)[None])
        return max(np.abs(p.sum(k) * size / p.sum() - 1).max() for k in (0, 1))

    goal = max(error(*biases), 1e-5)
    count = int(report.iterations)
    while error(*ott_run(s, count)) > 1.05 * goal and count < 5000:
        count = count + max(1, count // 10)
    seconds = interleave(
        {"ours": blocking(ours, s, one, one), "OTT": blocking(partial(ott_run, count=count), s)}, 3
    )
    start = time.perf_counter()
    ot.bregman.sinkhorn_log(mass, mass, cost, 1.0, numItermax=count, stopThr=0, warn=False)
    pot = time.perf_counter() - start
    own = float(np.median(seconds["ours"]))
    yield note("B3", f"tau {tau}, {size}^2: iterations ours", int(report.iterations))
    yield note("B3", f"tau {tau}, {size}^2: iterations OTT and POT", count)
    yield at_least(
        "B3", f"tau {tau}: OTT dense log mode over ours", np.median(seconds["OTT"]) / own, 5
    )
    yield at_least("B3", f"tau {tau}: POT log mode over ours", pot / own, 20)
