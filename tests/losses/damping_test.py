"""What damping takes from the implicit gradient: against the exact fixed point, by dense algebra.

`python -m pytest -m slow -n 0 -s tests/losses/damping_test.py` prints the table of docs/method.md.
"""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from tests.losses.implicit_test import SIZE, gradient, grouped, relative, scattered, variants, whole

MOST = {"mean": 2e-4, "weighted": 0.25}


def fixed_point(s):
    """Biases whose plan has unit sums to 1e-12: many pairs of updates, then Newton's method."""
    a = np.zeros(len(s))
    for _ in range(500):
        b = -logsumexp(s + a[:, None], axis=0)
        a = -logsumexp(s + b, axis=1)
    for _ in range(50):
        plan = np.exp(s + a[:, None] + b)
        wrong = 1 - np.concatenate([plan.sum(1), plan.sum(0)])
        if np.abs(wrong).max() < 1e-12:
            return a, b, plan
        move = np.linalg.lstsq(jacobian(plan), wrong, rcond=1e-14)[0]
        move /= max(1, np.abs(move).max())
        a, b = a + move[: len(s)], b + move[len(s) :]
    raise AssertionError("Newton's method has not converged")


def jacobian(plan):
    """Of the sums of rows and columns in the biases; singular along their common constant."""
    return np.block([[np.diag(plan.sum(1)), plan], [plan.T, np.diag(plan.sum(0))]])


def exact(text, video, scale, weights):
    """The gradient in both embeddings, and 1 less the second singular value of the plan squared."""
    s = scale * text @ video.T
    a, b, plan = fixed_point(s)
    rows, columns = softmax(s + b, axis=1), softmax(s + a[:, None], axis=0)
    direct = (weights[:, None] * rows + weights * columns) / 2 - np.diag(weights)
    of_biases = np.concatenate([columns @ weights - weights, weights @ rows - weights]) / 2
    adjoint = np.linalg.lstsq(jacobian(plan), of_biases, rcond=1e-15)[0]
    of_scores = direct - plan * (adjoint[: len(s), None] + adjoint[len(s) :])
    gap = 1 - np.linalg.svd(plan, compute_uv=False)[1] ** 2
    return np.concatenate([scale * of_scores @ video, scale * of_scores.T @ text]), gap


@pytest.mark.slow
@pytest.mark.parametrize("name", MOST)
def test_damping_takes_no_more_than_is_said(name):
    """At a tolerance of 1e-3, unequal weights are the hard case: a plan that nearly falls apart."""
    ids, valid, weights = variants(SIZE)[name]
    print(f"\n{name:>10s}     scale     1 - s       off")
    for make in (scattered, grouped):
        text, video = (np.float32(x).astype(np.float64) for x in make())
        for scale in (100.0, 50.0, 20.0, 10.0):
            expected, gap = exact(text, video, scale, weights)
            args = (text, video, scale, ids, valid, weights)
            off = relative(gradient(whole(), np.float64, *args), expected)
            print(f"{make.__name__:>10s}{scale:10g}{gap:10.1e}{off:10.1e}")
            assert off < MOST[name]
            assert off < 1e-3 or gap < 0.1
