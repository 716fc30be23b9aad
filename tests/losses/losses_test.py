"""Values and gradients of both losses against their twins, in every semantics, stored and not."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax import losses
from tests import oracles

SIZE, DIM = 11, 5


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@functools.cache
def batch(size=SIZE, dim=DIM, noise=0.6, seed=0):
    """Ragged size, clips seen up to three times, padded rows, unequal weights."""
    rng = np.random.default_rng(seed)
    text = unit(rng.normal(size=(size, dim)))
    video = unit(text + noise * rng.normal(size=(size, dim)))
    ids = rng.integers(0, 2 * size // 3, size)
    valid = np.arange(size) % 5 != 3
    return text, video, ids, valid, rng.uniform(0.2, 2, size)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def cone(text, video, spread=1.0):
    """Turned towards one direction, as the embeddings of trained encoders are."""
    return unit(text + spread), unit(video + spread)


def float32_bounds(scale):
    """What float32 leaves of a loss: a unit in the last place of its logits and biases, which
    reach the scale, and a few of its own.
    """
    return {"atol": max(1e-6, 2.0**-23 * scale), "rtol": 5e-7}


def options(semantics, iterations):
    if semantics == "implicit":
        solver = {"iterations": 20000, "tolerance": 1e-11, "overrelaxation": True}
        return {"gradient": semantics, **solver}
    return {"gradient": semantics, "iterations": iterations}


def loss_and_gradients(weights, ids, valid, **kwargs):
    """Jitted `(text, video, scale) -> losses, gradients of the weighted sum`."""

    def weighted(text, video, scale):
        out, _ = losses.ncl(text, video, scale, ids, valid, **kwargs)
        return jnp.sum(out * weights), out

    return jax.jit(jax.value_and_grad(weighted, (0, 1, 2), has_aux=True))


def numerical(value, text, video, scale, seed=1):
    """Central differences of `value` in one random direction of each argument."""
    rng = np.random.default_rng(seed)
    dx, dy = rng.normal(size=text.shape), rng.normal(size=video.shape)
    step = 2e-3 / scale
    return (dx, dy), (
        oracles.derivative(lambda x: value(x, video, scale), text, dx, step),
        oracles.derivative(lambda y: value(text, y, scale), video, dy, step),
        oracles.derivative(lambda t: value(text, video, t), scale, 1.0, step * scale),
    )


CASES = [
    *itertools.product(("stop", "unroll"), (4,)),
    *(pytest.param(*case, marks=pytest.mark.slow)
      for case in itertools.product(("stop", "unroll"), (1, 20))),
    ("implicit", None),
]


@pytest.mark.parametrize(("semantics", "iterations"), CASES)
@pytest.mark.parametrize("materialize", ["always", pytest.param("never", marks=pytest.mark.slow)])
def test_ncl_equals_twin_and_finite_differences(x64, semantics, iterations, materialize):
    text, video, ids, valid, weights = batch()
    positives = "diagonal" if iterations == 4 else "same_clip"
    function = loss_and_gradients(
        weights,
        ids,
        valid,
        positives=positives,
        materialize=materialize,
        **options(semantics, iterations),
    )
    for scale in (5.0, 20.0, 100.0):
        if semantics == "implicit" and scale == 100:
            # Scattered over the sphere the plan is a permutation there, and 1 - s below 1e-8.
            text, video = cone(text, video)
        held = None
        if semantics == "stop":
            held = oracles.ncl_biases(text, video, scale, valid, iterations)

        def value(x, y, t, held=held):
            twin = oracles.ncl(x, y, t, ids, valid, iterations, positives, held)
            return np.sum(weights * twin)

        (_, out), (gx, gy, gt) = function(text, video, jnp.asarray(scale))
        twin = oracles.ncl(text, video, scale, ids, valid, iterations, positives)
        np.testing.assert_allclose(out, twin, atol=1e-9)
        (dx, dy), expected = numerical(value, text, video, scale)
        got = (np.sum(gx * dx), np.sum(gy * dy), gt)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
        assert not np.any(gx[~valid])
        assert not np.any(gy[~valid])


def test_infonce_equals_twin_and_finite_differences(x64):
    text, video, ids, valid, weights = batch()
    for positives, materialize in itertools.product(("same_clip", "diagonal"), ("always", "never")):

        @jax.jit
        def function(*args, positives=positives, materialize=materialize):
            def weighted(x, y, t):
                kwargs = {"positives": positives, "materialize": materialize}
                out = losses.infonce(x, y, t, ids, valid, **kwargs)
                return jnp.sum(out * weights), out

            return jax.value_and_grad(weighted, (0, 1, 2), has_aux=True)(*args)

        def value(x, y, t, positives=positives):
            return np.sum(weights * oracles.infonce(x, y, t, ids, valid, positives))

        for scale in (5.0, 100.0):
            (_, out), (gx, gy, gt) = function(text, video, jnp.asarray(scale))
            twin = oracles.infonce(text, video, scale, ids, valid, positives)
            np.testing.assert_allclose(out, twin, atol=1e-10)
            (dx, dy), expected = numerical(value, text, video, scale)
            got = (np.sum(gx * dx), np.sum(gy * dy), gt)
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("semantics", ["stop", "implicit"])
def test_gradient_at_convergence_is_plan_minus_target(x64, semantics):
    """(P - Q)/B, with repeated clips, whose masses still balance."""
    text, video, ids, valid, _ = batch()
    scale, n = 10.0, valid.sum()
    kwargs = {"iterations": 20000, "tolerance": 1e-12, "gradient": semantics}
    function = loss_and_gradients(valid / n, ids, valid, **kwargs)
    _, (gx, gy, _) = function(text, video, jnp.asarray(scale))
    live = np.flatnonzero(valid)
    s = scale * text[live] @ video[live].T
    b = np.zeros(n)
    for _ in range(100000):
        a = -np.log(np.exp(s + b).sum(1))
        b, old = -np.log(np.exp(s + a[:, None]).sum(0)), b
        if np.abs(b - old).max() < 1e-13:
            break
    p = np.exp(s + a[:, None] + b)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-9)
    same = ids[live][:, None] == ids[live][None, :]
    ds = (p - same / same.sum(1)) / n
    np.testing.assert_allclose(gx[live], scale * ds @ video[live], atol=1e-7)
    np.testing.assert_allclose(gy[live], scale * ds.T @ text[live], atol=1e-7)


@pytest.mark.slow
def test_semantics_differ_before_convergence_and_agree_at_it(x64):
    text, video, ids, valid, _ = batch()
    weights = valid / valid.sum()

    def gradients(scale, iterations):
        return [
            loss_and_gradients(weights, ids, valid, gradient=g, iterations=iterations)(
                text, video, jnp.asarray(scale)
            )[1][0]
            for g in ("stop", "unroll")
        ]

    stop, through = gradients(20.0, 1)
    assert np.linalg.norm(stop - through) > 0.02 * np.linalg.norm(stop)
    stop, through = gradients(5.0, 500)
    np.testing.assert_allclose(stop, through, atol=1e-10)


@pytest.mark.slow
def test_zero_iterations_match_the_twin(x64):
    text, video, ids, valid, _ = batch()
    for gradient in ("stop", "unroll"):
        out, _ = losses.ncl(
            text, video, jnp.asarray(20.0), ids, valid, iterations=0, gradient=gradient
        )
        np.testing.assert_allclose(out, oracles.ncl(text, video, 20.0, ids, valid, 0), atol=1e-10)


def test_ncl_of_balanced_scores_is_infonce():
    """Identical rows: every bias is the same, so biasing changes nothing."""
    text = jnp.eye(6)
    ids, valid = jnp.arange(6), jnp.ones(6, bool)
    scale = jnp.asarray(3.0)
    out, report = losses.ncl(text, text, scale, ids, valid)
    np.testing.assert_allclose(out, losses.infonce(text, text, scale, ids, valid), atol=1e-6)
    assert report.converged


@pytest.mark.parametrize("materialize", ["always", "never"])
def test_float32_equals_the_twin_to_rounding(materialize):
    """Up to scale 100, of the embeddings as they are in float32 (losses up to 63 nats)."""
    text, video, ids, valid, _ = batch()
    text, video = np.float32(text), np.float32(video)
    for scale in (20.0, 100.0):
        out, _ = losses.ncl(text, video, jnp.float32(scale), ids, valid, materialize=materialize)
        assert out.dtype == jnp.float32
        twin = oracles.ncl(np.float64(text), np.float64(video), scale, ids, valid, 4)
        np.testing.assert_allclose(out, twin, **float32_bounds(scale))


def test_finite_with_a_hopeless_column_in_float32_and_bfloat16():
    """Clip 0 lies e^-88 below every text's best clip."""
    rng = np.random.default_rng(0)
    text = unit(np.abs(rng.normal(size=(8, 4))))
    video = text.copy()
    video[0] = -unit(text.mean(0, keepdims=True))[0]
    ids, valid = jnp.arange(8), jnp.ones(8, bool)
    for dtype in (jnp.float32, jnp.bfloat16):
        args = (jnp.asarray(text, dtype), jnp.asarray(video, dtype), jnp.float32(100))

        def mean(text, video, scale):
            out, report = losses.ncl(text, video, scale, ids, valid, iterations=4)
            return out.mean(), (out, report)

        gradients = jax.jit(jax.value_and_grad(mean, (0, 1, 2), has_aux=True))
        (_, (out, report)), grads = gradients(*args)
        twin = oracles.ncl(*(np.asarray(a, np.float64) for a in args[:2]), 100.0, ids, valid, 4)
        np.testing.assert_allclose(out, twin, **float32_bounds(100.0))
        assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in grads)
        assert np.isfinite(report.error)
        assert grads[0].dtype == dtype


@pytest.mark.slow
def test_exact_fallback_of_the_stored_kernel(monkeypatch, x64):
    """With no trust at all the log-domain path takes over, and nothing changes."""
    text, video, ids, valid, weights = batch()
    normal = loss_and_gradients(weights, ids, valid)(text, video, jnp.asarray(50.0))
    monkeypatch.setattr("ncl_jax.sinkhorn.kernel._TRUST", -1.0)
    exact = loss_and_gradients(weights, ids, valid)(text, video, jnp.asarray(50.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), normal, exact)


def test_padding_may_hold_anything():
    text, video, ids, valid, _ = (np.array(x) for x in batch())
    clean = losses.ncl(text, video, jnp.asarray(20.0), ids, valid)
    text[~valid], video[~valid] = np.nan, np.inf
    dirty = losses.ncl(text, video, jnp.asarray(20.0), ids, valid)
    np.testing.assert_array_equal(clean[0], dirty[0])
    np.testing.assert_array_equal(dirty[0][~valid], 0)


def test_all_padding_is_zero():
    text, video, ids, valid, weights = batch()
    for materialize in ("always", "never"):
        function = loss_and_gradients(weights, ids, valid & False, materialize=materialize)
        (_, out), grads = function(text, video, jnp.asarray(20.0))
        assert not any(np.any(x) for x in (out, *grads))


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["stop", "unroll", "implicit"])
def test_degenerate_batches_are_defined(gradient):
    """One pair has loss and gradient 0, as has a batch of padding; a NaN scale is reported."""
    text, video, ids, valid, weights = batch()
    kwargs = {"gradient": gradient, "iterations": 30}
    if gradient == "implicit":
        kwargs |= {"tolerance": 1e-3, "overrelaxation": True}
    scale = jnp.asarray(100.0)
    for live in (np.arange(SIZE) == 2, np.zeros(SIZE, bool)):
        (_, out), grads = loss_and_gradients(weights, ids, live, **kwargs)(text, video, scale)
        assert not np.any(out)
        assert all(np.abs(g).max() < 1e-4 for g in grads)
    out, report = jax.jit(functools.partial(losses.ncl, **kwargs))(
        text, video, scale * jnp.nan, ids, valid
    )
    assert np.isnan(out[valid]).all()
    assert report.error == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": np.full((SIZE, DIM), np.nan)}, "text: expected finite"),
        ({"video": np.ones((SIZE, DIM + 1))}, "equal shape"),
        ({"text": np.ones((0, DIM)), "video": np.ones((0, DIM))}, "empty"),
        ({"valid": np.ones(3, bool)}, "valid"),
        ({"scale": np.nan}, "scale"),
        ({"scale": 0.0}, "expected a finite scale > 0"),
        ({"scale": -5.0}, "expected a finite scale > 0"),
        ({"text": np.full((SIZE, DIM), 1e4)}, "unit norm"),
        ({"video_id": np.arange(SIZE) << 32}, "expected video_id within 32 bits"),
        ({"gradient": "none"}, "gradient"),
        ({"materialize": "sharded"}, "materialize"),
        ({"positives": "all"}, "positives"),
        ({"iterations": -1}, "iterations"),
        ({"gradient": "implicit"}, "tolerance"),
        ({"overrelaxation": True}, "tolerance"),
        ({"gradient": "unroll", "tolerance": 1e-3}, "fixed number"),
    ],
)
def test_bad_arguments_are_refused(change, message, unchecked):
    text, video, ids, valid, _ = batch()
    good = {"text": text, "video": video, "scale": 10.0, "video_id": ids, "valid": valid}
    with pytest.raises(ValueError, match=message):
        losses.ncl(**(good | change))


@functools.cache
def compiled(loss, materialize):
    return jax.jit(functools.partial(loss, materialize=materialize))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["text", "video"])
def test_bad_embeddings_under_jit_are_reported(where, bad):
    """An infinity too: as a logit of minus infinity it would pass for a mask."""
    text, video, ids, valid, _ = (np.array(x) for x in batch())
    row = {"text": text, "video": video}[where][0]
    row[:] = bad * np.sign(row)
    args = (text, video, jnp.asarray(20.0), ids, valid)
    for materialize in ("always", "never"):
        out, report = compiled(losses.ncl, materialize)(*args)
        assert np.isnan(out[valid]).all()
        assert not np.any(out[~valid])
        assert report.error == np.inf
        assert not report.converged
        plain = compiled(losses.infonce, materialize)(*args)
        assert np.isnan(plain[valid]).all()
