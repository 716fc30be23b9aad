"""The solver against its twin, its invariances, its limits, and two other libraries."""

import os
import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncl_jax import sinkhorn
from ncl_jax.sinkhorn import blocks, iterate
from ncl_jax.sinkhorn import kernel as kernels
from tests import oracles

SHAPE = (9, 6)
FEW = hypothesis.settings(max_examples=8, deadline=None, derandomize=True)


def problem(seed=0, shape=SHAPE, scale=20.0):
    rng = np.random.default_rng(seed)
    s = rng.uniform(-1, 1, shape) * scale
    c = rng.uniform(0.5, 2, shape[1])
    return s, np.ones(shape[0]), c * shape[0] / c.sum()


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def plan(s, biases):
    return np.exp(s + np.asarray(biases.text)[:, None] + np.asarray(biases.video)[None, :])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("order", ["gallery", "text"])
@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("iterations", [0, 1, 4, 20])
def test_solve_equals_twin(x64, order, strength, iterations):
    for scale in (5.0, 20.0, 100.0):
        s, r, c = problem(scale=scale)
        r[2], c[4] = 0, 0
        r *= c.sum() / r.sum()
        options = {"iterations": iterations, "order": order, "strength": strength}
        biases, report = sinkhorn.solve(s, r, c, **options)
        a, b = oracles.sinkhorn(s, r, c, **options)
        np.testing.assert_allclose(biases.text, a, atol=1e-9)
        np.testing.assert_allclose(biases.video, b, atol=1e-9)
        assert report.iterations == iterations


def test_masked_entries_may_hold_anything():
    s, r, c = problem()
    r[2] = 0
    r *= c.sum() / r.sum()
    clean, _ = sinkhorn.solve(s, r, c)
    s[2] = np.nan
    dirty, _ = sinkhorn.solve(s, r, c)
    np.testing.assert_array_equal(clean.text, dirty.text)
    assert clean.text[2] == 0


def test_zero_iterations_is_inverted_softmax():
    s, r, _ = problem(shape=(7, 7))
    biases, _ = sinkhorn.solve(s, r, r, iterations=0)
    p = plan(s, biases)
    np.testing.assert_allclose(p / p.sum(0), np.exp(s) / np.exp(s).sum(0), rtol=2e-4)
    assert np.ptp(p.sum(0)) < 1e-3


@FEW
@hypothesis.given(
    st.integers(0, 99), st.integers(0, 5), st.floats(-60, 60), st.sampled_from((0, 1, 4))
)
def test_constant_on_a_column_changes_nothing(seed, column, constant, iterations):
    s, r, c = problem(seed)
    moved = s.copy()
    moved[:, column] += constant
    one, _ = sinkhorn.solve(s, r, c, iterations=iterations)
    two, _ = sinkhorn.solve(moved, r, c, iterations=iterations)
    np.testing.assert_allclose(plan(s, one), plan(moved, two), atol=2e-4)


@FEW
@hypothesis.given(st.integers(0, 99), st.integers(0, 8), st.floats(-20, 20))
def test_constant_on_a_row_changes_nothing_at_convergence(seed, row, constant):
    s, r, c = problem(seed, scale=5.0)
    moved = s.copy()
    moved[row] += constant
    one, _ = sinkhorn.solve(s, r, c, iterations=100)
    two, _ = sinkhorn.solve(moved, r, c, iterations=100)
    np.testing.assert_allclose(plan(s, one), plan(moved, two), atol=1e-4)


@FEW
@hypothesis.given(st.integers(0, 99), st.permutations(range(SHAPE[0])))
def test_permuting_rows_permutes_biases(seed, order):
    s, r, c = problem(seed)
    one, _ = sinkhorn.solve(s, r, c)
    two, _ = sinkhorn.solve(s[list(order)], r, c)
    np.testing.assert_allclose(one.text[jnp.asarray(order)], two.text, atol=1e-4)
    np.testing.assert_allclose(one.video, two.video, atol=1e-4)


@pytest.mark.parametrize("order", ["gallery", "text"])
def test_finite_far_below_every_row_maximum(order):
    """A column e^-88 below every row's maximum is all zeros in a row-stabilised kernel."""
    s, r, c = problem(scale=100.0)
    s[:, 3] -= 400
    biases, report = sinkhorn.solve(s.astype(np.float32), r, c, iterations=20, order=order)
    a, b = oracles.sinkhorn(s, r, c, 20, order)
    np.testing.assert_allclose(biases.text, a, atol=2e-3)
    np.testing.assert_allclose(biases.video, b, atol=2e-3)
    assert np.isfinite(report.error)


def test_exact_when_the_kernel_is_no_longer_trusted():
    """Block-diagonal scores drive the biases e^90 from where the kernel was stabilised."""
    s = np.full((4, 4), -300.0)
    s[0, 0] = s[1, 1] = s[1, 0] = 0
    s[2, 1], s[2, 2], s[3, 2], s[3, 3] = -90.0, 0, -90.0, 0
    s[0, 3] = -100.0
    one = np.ones(4)
    biases, _ = sinkhorn.solve(s, one, one, iterations=3000, tolerance=1e-6)
    np.testing.assert_allclose(plan(s, biases).sum(0), one, atol=1e-4)
    biases, _ = sinkhorn.solve(s, one, one, iterations=30)
    a, b = oracles.sinkhorn(s, one, one, 30)
    np.testing.assert_allclose(biases.video, b, atol=1e-3)
    np.testing.assert_allclose(biases.text, a, atol=1e-3)


def test_masks_and_hopeless_columns_stay_on_the_fast_path():
    s, r, c = problem(scale=100.0)
    s[:, 3] -= 400
    r[2], c[4] = 0, 0
    r *= c.sum() / r.sum()
    with np.errstate(divide="ignore"):
        masses = iterate.Masses(jnp.log(jnp.asarray(r)), jnp.log(jnp.asarray(c)))
    a = masses.free_row()
    kernel = kernels.store(
        blocks.split(jnp.asarray(s), 4), a, masses.free_col(), columns_first=True, axis_name=None
    )
    options = iterate.IterationOptions(10)
    b = iterate.stored_first_columns(kernel, masses, options, a)
    state, _ = iterate.run(iterate.stored_pair(kernel, masses, options), a, b, masses, options)
    assert state.trusted


@pytest.mark.parametrize("overrelaxation", [False, True])
def test_tolerance_is_reached_and_reported(overrelaxation):
    s, r, c = problem(shape=(40, 30), scale=30.0)
    biases, report = sinkhorn.solve(
        s, r, c, iterations=3000, tolerance=1e-3, overrelaxation=overrelaxation
    )
    p = plan(s, biases)
    assert report.converged
    assert report.error < 1e-3
    np.testing.assert_allclose(np.abs(p.sum(1) / r - 1).max(), report.error, atol=1e-4)
    np.testing.assert_allclose(p.sum(0), c, rtol=2e-4)


def pairs_to_a_thousandth(s, **options):
    one = np.ones(len(s))
    report = sinkhorn.solve(s, one, one, iterations=5000, tolerance=1e-3, **options)[1]
    assert report.converged
    return int(report.iterations)


def scattered(size=64, dim=12):
    """Pairs over the whole sphere, whose plan at scale 100 falls apart into small groups."""
    rng = np.random.default_rng(3)
    text = unit(rng.normal(size=(size, dim)))
    return 100 * text @ unit(rng.normal(size=(size, dim)) + text).T


def one_hub(size=64, dim=16):
    """Clip 0 lies in the middle of the texts; omega 1.8 from the first pair on diverges."""
    rng = np.random.default_rng(1)
    text, video = (
        unit(rng.normal(size=(size, dim)) + 1.5 * np.eye(dim)[0]),
        rng.normal(size=(size, dim)),
    )
    video[0] = np.eye(dim)[0]
    return 100 * text @ unit(video).T


def two_groups():
    rng = np.random.default_rng(2)
    centre = np.repeat(np.eye(12)[:2], 32, axis=0)
    text, video = (unit(centre + 0.33 * unit(rng.normal(size=centre.shape))) for _ in range(2))
    return 100 * text @ video.T


@pytest.mark.parametrize(
    ("scores", "factor"),
    [
        (lambda: problem(1, (60, 60), 5.0)[0], None), (two_groups, None),
        (lambda: problem(1, (60, 60), 60.0)[0], 4), (scattered, 10), (one_hub, 10),
    ],
)  # fmt: skip
def test_relaxation_is_faster_where_plain_is_slow_and_harmless_elsewhere(scores, factor):
    plain, relaxed = (pairs_to_a_thousandth(scores(), overrelaxation=x) for x in (False, True))
    assert relaxed <= plain + 2
    assert factor is None or factor * relaxed <= plain > 50


def at(omega, scores, iterations):
    """The state after a relaxed run that begins with `omega`."""
    masses = iterate.Masses(*(jnp.zeros(n) for n in scores.shape))
    panels = blocks.split(jnp.asarray(scores), len(scores))
    kernel = kernels.store(panels, *masses, columns_first=True, axis_name=None)
    options = iterate.IterationOptions(iterations, 1e-3, True)
    b = iterate.stored_first_columns(kernel, masses, options, masses.row)
    with pytest.MonkeyPatch.context() as patch:
        start = iterate.start_pace
        patch.setattr(iterate, "start_pace", lambda one: start(one)._replace(omega=omega * one))
        update = iterate.stored_pair(kernel, masses, options)
        return iterate.run(update, masses.row, b, masses, options)[0]


def test_a_relaxation_that_diverges_is_ended(x64):
    """By the dual objective; a step that is too long at first is taken back."""
    assert at(1.957, one_hub(), 2000).done < 200


def test_gain_of_a_pair_is_that_of_the_dual_objective(x64):
    s, r, c = problem(scale=8.0)
    r[2] = 0
    c *= r.sum() / c.sum()
    rng = np.random.default_rng(0)
    masses = iterate.Masses(jnp.log(r), jnp.log(c))
    pair = iterate.exact_pair(
        blocks.split(jnp.asarray(s), 4),
        masses,
        iterate.IterationOptions(9, 1e-3, overrelaxation=True),
    )
    a = jnp.where(r > 0, rng.normal(size=len(r)), -jnp.inf)
    b = jnp.asarray(rng.normal(size=len(c)))

    def dual(a, b):
        live = r > 0
        return (r[live] * a[live]).sum() + (c * b).sum() - np.exp(s + a[:, None] + b).sum()

    for omega in (1.0, 1.4, 1.957):
        new_a, new_b, change = pair(a, b, jnp.asarray(omega))
        np.testing.assert_allclose(change.gain, dual(new_a, new_b) - dual(a, b), rtol=1e-6)


def test_iterations_bound_a_tolerance():
    s, r, _ = problem(shape=(40, 40), scale=60.0)
    _, report = sinkhorn.solve(s, r, r, iterations=3, tolerance=1e-6)
    assert report.iterations == 3
    assert not report.converged


def test_warm_start_needs_one_pair():
    s, r, c = problem(shape=(30, 20), scale=20.0)
    cold, report = sinkhorn.solve(s, r, c, iterations=500, tolerance=1e-4)
    warm, again = sinkhorn.solve(s, r, c, iterations=500, tolerance=1e-3, start=cold.video)
    assert again.iterations <= 2 < report.iterations
    np.testing.assert_allclose(warm.video, cold.video, atol=2e-3)


def test_zero_strength_has_no_biases():
    s, r, c = problem()
    biases, _ = sinkhorn.solve(s, r, c, strength=0.0)
    assert not np.any(biases.text)
    assert not np.any(biases.video)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_mass": np.ones(SHAPE[0]) * 2}, "equal totals"),
        ({"row_mass": -np.ones(SHAPE[0])}, ">= 0"),
        ({"col_mass": np.ones(3)}, "shape"),
        ({"scores": np.full(SHAPE, np.nan)}, "expected finite scores"),
        ({"scores": np.ones((0, 3))}, "non-empty"),
        ({"iterations": -1}, "iterations"),
        ({"order": "rows"}, "order"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"strength": 2.0}, "strength"),
        ({"overrelaxation": True}, "overrelaxation"),
        ({"start": np.ones(2)}, "start"),
    ],
)
def test_bad_arguments_are_refused(change, message, unchecked):
    s, r, c = problem()
    with pytest.raises(ValueError, match=message):
        sinkhorn.solve(**({"scores": s, "row_mass": r, "col_mass": c} | change))


def test_bad_scores_under_jit_are_reported():
    s, r, c = problem()
    s[1, 1] = np.inf
    biases, report = jax.jit(sinkhorn.solve)(s, r, c)
    assert np.isnan(biases.video).all()
    assert report.error == np.inf
    assert not report.converged


def test_nothing_live_is_zero():
    biases, report = sinkhorn.solve(np.ones((3, 2)), np.zeros(3), np.zeros(2))
    assert not np.any(biases.text)
    assert report.error == 0


@pytest.mark.slow
def test_agrees_with_ott():
    ott = pytest.importorskip("ott.geometry.geometry")
    linear = pytest.importorskip("ott.solvers.linear")
    s, r, c = problem(scale=10.0)
    geometry = ott.Geometry(cost_matrix=jnp.asarray(-s), epsilon=1.0)
    out = linear.solve(geometry, r / r.sum(), c / c.sum(), threshold=1e-6, max_iterations=5000)
    biases, _ = sinkhorn.solve(s, r, c, iterations=2000, tolerance=1e-5)
    np.testing.assert_allclose(biases.video, out.g - out.g.mean(), atol=2e-4)


@pytest.mark.slow
def test_agrees_with_pot():
    ot = pytest.importorskip("ot")
    s, r, c = problem(scale=10.0)
    expected = ot.sinkhorn(r / r.sum(), c / c.sum(), -s, 1.0, stopThr=1e-10, numItermax=10000)
    biases, _ = sinkhorn.solve(s, r, c, iterations=2000, tolerance=1e-5)
    np.testing.assert_allclose(plan(s, biases) / r.sum(), expected, atol=1e-5)


@pytest.mark.slow
def test_relaxation_on_real_scores():
    if "NCL_REAL_DATA" not in os.environ:
        pytest.skip("NCL_REAL_DATA is not set")
    data = pathlib.Path(os.environ["NCL_REAL_DATA"])
    s = np.load(data / "sims" / "msrvtt_video_matrix.npy")
    one = np.ones(len(s))
    for scale in (20.0, 50.0, 100.0):
        plain, relaxed = (
            sinkhorn.solve(scale * s, one, one, iterations=3000, tolerance=1e-3, overrelaxation=x)[
                1
            ]
            for x in (False, True)
        )
        assert relaxed.converged
        assert relaxed.iterations <= plain.iterations + 2
        assert plain.iterations <= 50 or 2 * relaxed.iterations <= plain.iterations
        assert relaxed.iterations <= 100


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.35, 0.5])
def test_no_pairs_at_small_strength_are_finite(strength):
    """The kernel is stabilised around full strength, e^90 away from these biases."""
    x = np.random.default_rng(0).normal(size=(8, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    s, one = np.float32(100 * x @ x.T), np.ones(8, np.float32)
    biases, report = sinkhorn.solve(s, one, one, iterations=0, strength=strength)
    _, b = oracles.sinkhorn(np.float64(s), one, one, 0, strength=strength)
    np.testing.assert_allclose(biases.video, b, atol=1e-4)
    assert np.isfinite(biases.text).all()
    assert np.isfinite(report.error)


@pytest.mark.parametrize("entries", [(0, 1), (0, slice(None))])
def test_a_live_minus_infinity_under_jit_is_reported(entries):
    s, r, c = problem()
    s[entries] = -np.inf
    biases, report = jax.jit(sinkhorn.solve)(s, r, c)
    assert np.isnan(biases.video).all()
    assert report.error == np.inf
    assert not report.converged


@pytest.mark.parametrize("mass", [1e-30, 2e-38])
def test_a_tiny_mass_is_no_mask(mass):
    s, r, c = (np.float32(x) for x in problem())
    c[0] = mass
    r *= c.sum() / r.sum()
    biases, _ = sinkhorn.solve(s, r, c)
    _, b = oracles.sinkhorn(*(np.float64(x) for x in (s, r, c)), 4)
    np.testing.assert_allclose(biases.video, b, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"start": np.nan}, "start: expected finite"), ({"mass": 5e-39}, "expected 0 .masked. or")],
)
def test_a_start_of_nan_and_a_mass_below_float32_are_refused(change, message):
    s, r, c = problem()
    start = np.full(len(c), change.get("start", 0.0))
    c[0] = change.get("mass", c[0])
    with pytest.raises(ValueError, match=message):
        sinkhorn.solve(np.float32(s), r, c, start=jnp.asarray(start))
