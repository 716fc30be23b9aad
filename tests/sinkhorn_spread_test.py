"""Balancing over devices equals balancing on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax import sinkhorn
from ncl_jax.normalizers import Ncl, biases
from ncl_jax.sinkhorn import spread


def unit(rng, rows):
    x = rng.normal(size=(rows, 16)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_ragged_rows_over_four_devices_equal_the_whole_matrix(strength):
    rng = np.random.default_rng(0)
    text, video, scale = unit(rng, 37), unit(rng, 23), 30.0
    found, report = spread.balance(
        text, video, scale, iterations=6, strength=strength, devices=jax.devices()[:4]
    )
    expected, one = sinkhorn.solve(
        jnp.asarray(scale * text @ video.T), jnp.ones(37), jnp.full(23, 37 / 23),
        iterations=6, strength=strength,
    )  # fmt: skip
    np.testing.assert_allclose(found.text, expected.text, atol=2e-4)
    np.testing.assert_allclose(found.video, expected.video, atol=2e-4)
    assert float(report.error) == pytest.approx(float(one.error), rel=1e-2, abs=1e-5)


def test_a_fit_too_large_for_one_device_is_shared(monkeypatch):
    rng = np.random.default_rng(1)
    text, video = unit(rng, 20), unit(rng, 12)
    used = []
    monkeypatch.setattr(biases, "LARGE", 100)
    balance = spread.balance
    monkeypatch.setattr(spread, "balance", lambda *a, **k: used.append(1) or balance(*a, **k))
    found, _ = Ncl(scale=20.0, host=False).balance(text, video)
    expected, _ = Ncl(scale=20.0, host=True).balance(text, video)
    assert used
    np.testing.assert_allclose(found.video, expected.video, atol=2e-4)
