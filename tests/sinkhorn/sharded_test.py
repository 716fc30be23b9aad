"""Balancing over devices equals balancing on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax import sinkhorn
from ncl_jax.normalizers import Ncl, biases
from ncl_jax.sinkhorn import sharded


def unit(rng, rows):
    x = rng.normal(size=(rows, 16)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("videos", "iterations", "strength"),
    [
        (23, 6, 1.0), (3, 4, 0.0), (23, 0, 1.0),
        *(pytest.param(*case, marks=pytest.mark.slow)
          for case in [(23, 6, 0.5), (101, 6, 1.0), (23, 1, 1.0)]),
    ],
)
def test_ragged_galleries_over_four_devices_equal_the_whole_matrix(videos, iterations, strength):
    rng = np.random.default_rng(0)
    text, video, scale = unit(rng, 37), unit(rng, videos), 30.0
    found, report = sharded.balance(
        text, video, scale, iterations=iterations, strength=strength, devices=jax.devices()[:4]
    )
    expected, one = sinkhorn.solve(
        jnp.asarray(scale * text @ video.T), jnp.ones(37), jnp.full(videos, 37 / videos),
        iterations=iterations, strength=strength,
    )  # fmt: skip
    np.testing.assert_allclose(found.text, expected.text, atol=2e-4)
    np.testing.assert_allclose(found.video, expected.video, atol=2e-4)
    assert float(report.error) == pytest.approx(float(one.error), rel=1e-2, abs=1e-5)


def test_a_hopeless_text_keeps_its_bias_finite():
    """Its best clip lies e^-190 below that of the others' on every device."""
    video = np.full((8, 4), 0.5, np.float32)
    text = np.concatenate([video[:3], -video[:1]])
    found, report = sharded.balance(text, video, 95.0, iterations=3, devices=jax.devices()[:4])
    assert np.isfinite(found.text).all()
    assert float(report.error) < 1e-3


def test_a_device_holds_only_its_part_of_the_gallery(monkeypatch):
    rng = np.random.default_rng(2)
    placed = {}
    place = sharded._place

    def keep(array, mesh, spec):
        placed[array.shape] = place(array, mesh, spec)
        return placed[array.shape]

    monkeypatch.setattr(sharded, "_place", keep)
    sharded.balance(unit(rng, 5), unit(rng, 64), 20.0, iterations=2, devices=jax.devices()[:4])
    shapes = {shard.data.shape for shard in placed[64, 16].addressable_shards}
    assert shapes == {(16, 16)}


def test_a_fit_too_large_for_one_device_is_shared(monkeypatch):
    rng = np.random.default_rng(1)
    text, video = unit(rng, 20), unit(rng, 12)
    used = []
    monkeypatch.setattr(biases, "LARGE", 100)
    balance = sharded.balance
    monkeypatch.setattr(sharded, "balance", lambda *a, **k: used.append(1) or balance(*a, **k))
    found, _ = Ncl(scale=20.0, host=False).balance(text, video)
    expected, _ = Ncl(scale=20.0, host=True).balance(text, video)
    assert used
    np.testing.assert_allclose(found.video, expected.video, atol=2e-4)
