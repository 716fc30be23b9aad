"""Pairs of updates to an error of 1e-3: plain, at omega 1.8 throughout, and over-relaxed.

`python -m pytest -m slow -n 0 -s tests/sinkhorn/relaxation_test.py` prints the table of
docs/method.md.
"""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from ncl_jax import sinkhorn
from tests.sinkhorn.sinkhorn_test import unit

SIZE, LIMIT, TOLERANCE = 256, 3000, 1e-3


def scattered(dim):
    rng = np.random.default_rng(3)
    text = unit(rng.normal(size=(SIZE, dim)))
    return 100 * text @ unit(rng.normal(size=(SIZE, dim)) + text).T


def noisy(dim=32):
    rng = np.random.default_rng(0)
    text = unit(rng.normal(size=(SIZE, dim)))
    return 50 * text @ unit(text + rng.normal(size=(SIZE, dim)) / dim**0.5).T


def one_hub(dim=16):
    rng = np.random.default_rng(1)
    text = unit(rng.normal(size=(SIZE, dim)) + 1.5 * np.eye(dim)[0])
    video = rng.normal(size=(SIZE, dim))
    video[0] = np.eye(dim)[0]
    return 100 * text @ unit(video).T


def two_groups(dim=32):
    rng = np.random.default_rng(2)
    centre = np.repeat(np.eye(dim)[:2], SIZE // 2, axis=0)
    text, video = (unit(centre + 0.33 * unit(rng.normal(size=centre.shape))) for _ in range(2))
    return 100 * text @ video.T


CASES = {
    "scattered, 12 dimensions": lambda: scattered(12),
    "scattered, 64 dimensions": lambda: scattered(64),
    "texts + as much noise": noisy,
    "one hub": one_hub,
    "two groups": two_groups,
    "normal scores": lambda: 5 * np.random.default_rng(0).normal(size=(SIZE, SIZE)),
}


def pairs_at(omega, s):
    """Pairs by NumPy until no row or column deviates by more, or None where they diverge."""
    a, b = np.zeros(SIZE), -logsumexp(s, axis=0)
    for done in range(1, LIMIT + 1):
        rows = -logsumexp(s + b, axis=1) - a
        a = a + omega * rows
        columns = -logsumexp(s + a[:, None], axis=0) - b
        b = b + omega * columns
        error = np.abs(np.expm1(-np.concatenate([rows, columns]))).max()
        if error <= TOLERANCE:
            return done
    return None


@pytest.mark.slow
def test_over_relaxation_is_never_slower_than_a_fixed_step_nor_much_than_plain():
    one = np.ones(SIZE)
    print(f"\n{'':26s}{'plain':>8s}{'1.8':>8s}{'relaxed':>8s}")
    with jax.enable_x64(True):
        for name, make in CASES.items():
            s = make()
            plain, relaxed = (
                sinkhorn.solve(
                    s, one, one, iterations=LIMIT, tolerance=TOLERANCE, overrelaxation=x
                )[1]
                for x in (False, True)
            )
            fixed = pairs_at(1.8, s)
            print(f"{name:26s}{plain.iterations:8d}{fixed or '-':>8}{relaxed.iterations:8d}")
            assert relaxed.converged
            assert relaxed.iterations <= plain.iterations + 2
            assert fixed is None or relaxed.iterations <= fixed
