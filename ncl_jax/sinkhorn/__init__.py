"""Sinkhorn-Knopp: biases from scores and masses, with a report of their accuracy.

Finds `a` (text) and `b` (video) so that `P = exp(scores + a[:, None] + b[None, :])` has row sums
`row_mass` and column sums `col_mass`. The biases are updated in the log domain. The sums come from
one stored, doubly stabilised kernel, or from exact log-sum-exps if the biases move too far from it.
`solve` is the public function; `iterate` has the updates and the loop, `kernel` the stabilisation,
`overrelaxation` the step lengths, and `blocks` the matrices read in row panels.

Source: Park et al., Normalized Contrastive Learning, EMNLP 2022; Cuturi 2013 for the iteration.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ncl_jax.biases import PAPER_ITERATIONS
from ncl_jax.errors import InputError
from ncl_jax.sinkhorn import iterate
from ncl_jax.sinkhorn import kernel as kernels
from ncl_jax.sinkhorn.blocks import Stored, split
from ncl_jax.sinkhorn.iterate import IterationOptions, Masses
from ncl_jax.types import CONVERGED, AnyArray, Biases, SinkhornReport

__all__ = ["PAPER", "PAPER_ITERATIONS", "Order", "solve"]

PAPER = {"iterations": PAPER_ITERATIONS, "order": "gallery"}
"""Settings of NCL's published implementations: `solve(..., **PAPER)`."""
_CACHED_ENTRIES = 1 << 19  # 2 MB: a panel is still in cache when it is read a second time
_MAX_PANELS = 64

Order = Literal["gallery", "text"]


def solve(
    scores: Float[AnyArray, "text video"],
    row_mass: Float[AnyArray, " text"],
    col_mass: Float[AnyArray, " video"],
    *,
    iterations: int = PAPER_ITERATIONS,
    order: Order = "gallery",
    tolerance: float | None = None,
    overrelaxation: bool = False,
    strength: float = 1.0,
    start: Float[AnyArray, " video"] | None = None,
) -> tuple[Biases, SinkhornReport]:
    """Biases that balance `exp(scores)` to the given row and column masses.

    Updates, K pairs with the video side last:

        b = log c - lse_i(s)  (order "gallery"; b = 0 for "text");
        K times:  a = log r - lse_j(s + b);   b = log c - lse_i(s + a).

    Args:
      scores: logits, [text, video], any scale; float32 or float64 (others are cast to float32).
        Masked entries may have any value, including NaN.
      row_mass: mass of each text [text], >= 0; 0 masks the row (padding).
      col_mass: mass of each video [video], >= 0; 0 masks the column. The two totals must be equal.
      iterations: K >= 0; with a tolerance, the largest number of pairs.
      order: the side that is updated first.
      tolerance: stop once the largest relative error of a row is below it (detected one pair
        later, because the error is computed as part of a pair). None: exactly `iterations` pairs.
      overrelaxation: safeguarded over-relaxation: several times fewer pairs for problems that need
        many, one more for those that need few. Requires a tolerance and strength 1.
      strength: in [0, 1]; each update is multiplied by it (unbalanced Sinkhorn). 1 balances fully,
        0 gives zero biases. Below 1 an additive constant matters, so the biases are not centred.
      start: video biases [video] to start from instead of the first update (warm start).

    Returns:
      `Biases` in logit units (at strength 1 the mean video bias is 0; masked entries are 0) and a
      `SinkhornReport`. They carry no gradient; `losses` defines gradients.

      If all entries are masked, the biases are 0. Under `jit`, where values cannot be checked,
      non-finite unmasked scores make every bias NaN, `error` inf and `converged` False.

    Raises:
      ValueError: mismatched shapes or options; outside `jit` also non-finite unmasked scores or
        `start`, masses that are negative or positive but below the smallest normal float, or
        totals that differ, which no biases can balance.

    Relations: zero iterations of order "gallery" is inverted softmax. A constant added to a column
    of `scores` does not change the biased scores; one added to a row does not at convergence.

    Example:
      >>> import jax.numpy as jnp
      >>> biases, report = solve(jnp.eye(3) * 5, jnp.ones(3), jnp.ones(3))
      >>> bool(report.converged)
      True
    """
    _check_options(
        scores, row_mass, col_mass, iterations, order, tolerance, overrelaxation, strength, start
    )
    dtype = jnp.promote_types(jnp.float32, jnp.asarray(scores).dtype)
    _check_masses(row_mass, col_mass, dtype)
    scores, row_mass, col_mass = (
        lax.stop_gradient(jnp.asarray(x, dtype)) for x in (scores, row_mass, col_mass)
    )
    _check_values(scores, row_mass, col_mass, start)
    masses = Masses(jnp.log(row_mass), jnp.log(col_mass))
    options = IterationOptions(iterations, tolerance, overrelaxation, strength)
    if start is None and order == "text":
        start = jnp.zeros_like(col_mass)
    if start is not None:
        start = lax.stop_gradient(jnp.where(col_mass > 0, start.astype(dtype), -jnp.inf))
    return _solve(scores, masses, options, start)


@partial(jax.jit, static_argnames="options")
def _solve(
    scores: Array, masses: Masses, options: IterationOptions, start: Array | None
) -> tuple[Biases, SinkhornReport]:
    panels = _panels(scores, masses.row > -jnp.inf, masses.col > -jnp.inf)
    return _report(*_iterate(panels, masses, options, start), masses, options)


def _iterate(
    scores: Stored, masses: Masses, options: IterationOptions, start: Array | None
) -> tuple[iterate.State, Array]:
    """The last state and `lse_j(s_ij + b_j)`: from the kernel, or exact if that is not trusted."""
    a = masses.free_row()
    any_b = masses.free_col() if start is None else start
    kernel = kernels.store(scores, a, any_b, columns_first=start is None, axis_name=None)
    b = iterate.stored_first_columns(kernel, masses, options, a) if start is None else start
    state, _ = iterate.run(iterate.stored_pair(kernel, masses, options), a, b, masses, options)
    lse, ok = kernels.trusted_row_lse(kernel, state.b, masses.row)

    def exactly(fast: tuple[iterate.State, Array]) -> tuple[iterate.State, Array]:
        b = iterate.exact_first_columns(scores, masses, options, a) if start is None else start
        exact, _ = iterate.run(iterate.exact_pair(scores, masses, options), a, b, masses, options)
        lse = scores.fold(lambda _, s, a: (None, kernels.exact_row_lse(s, exact.b)), None, exact.a)[
            1
        ]
        return exact, lse

    return lax.cond(state.trusted & ok, lambda fast: fast, exactly, (state, lse))


def _report(
    state: iterate.State, lse: Array, masses: Masses, options: IterationOptions
) -> tuple[Biases, SinkhornReport]:
    rows, cols = masses.row > -jnp.inf, masses.col > -jnp.inf
    error = iterate.row_error(lse, state.a, masses, options)
    error = jnp.where(jnp.isnan(error), jnp.inf, error)
    shift = jnp.sum(jnp.where(cols, state.b, 0.0)) / jnp.maximum(jnp.sum(cols), 1)
    shift = jnp.where(options.strength == 1.0, shift, 0.0)
    text = jnp.where(rows, state.a + shift, 0.0)
    video = jnp.where(cols, state.b - shift, 0.0)
    # Non-finite scores invalidate the biases of all rows, also of rows that are finite themselves.
    sound = jnp.all(jnp.isfinite(jnp.where(rows, lse, 0.0)))
    poison = jnp.where(sound, 0.0, jnp.nan).astype(text.dtype)
    bound = CONVERGED if options.tolerance is None else options.tolerance
    return Biases(text + poison, video + poison), SinkhornReport(error, state.done, error < bound)


def _panels(scores: Array, rows: Array, cols: Array) -> Stored:
    """Panels that stay in cache for a second read on a CPU; one panel on an accelerator."""
    n, m = scores.shape
    height = max(1, _CACHED_ENTRIES // m, -(-n // _MAX_PANELS))
    if jax.default_backend() != "cpu":
        height = n
    sound = jnp.where(scores == -jnp.inf, jnp.nan, scores)  # -inf would act as a mask
    clean = jnp.where(rows[:, None] & cols[None, :], sound, 0.0)
    return split(clean, height)


def _check_options(
    scores: Any, row_mass: Any, col_mass: Any, iterations: Any, order: Any, tolerance: Any,
    overrelaxation: Any, strength: Any, start: Any,
) -> None:  # fmt: skip
    shape = jnp.shape(scores)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"scores: expected a non-empty [text, video] matrix, got shape {shape}")
    for name, mass, size in (("row_mass", row_mass, shape[0]), ("col_mass", col_mass, shape[1])):
        if jnp.shape(mass) != (size,):
            raise InputError(f"{name}: expected shape ({size},), got {jnp.shape(mass)}")
    if start is not None and jnp.shape(start) != (shape[1],):
        raise InputError(f"start: expected one bias per video ({shape[1]},), got {start.shape}")
    if iterations < 0:
        raise InputError(f"expected iterations >= 0, got {iterations}")
    if order not in ("gallery", "text"):
        raise InputError(f"order: expected 'gallery' or 'text', got {order!r}")
    if tolerance is not None and not tolerance > 0:
        raise InputError(f"expected a tolerance > 0 or None, got {tolerance}")
    if not 0 <= strength <= 1:
        raise InputError(f"expected a strength in [0, 1], got {strength}")
    if overrelaxation and (tolerance is None or strength < 1):
        raise InputError("overrelaxation needs a tolerance and strength 1; set them or turn it off")


def _check_masses(row_mass: AnyArray, col_mass: AnyArray, dtype: jnp.dtype) -> None:
    """Checks masses before the cast to `dtype`, where tiny ones would become 0 and so a mask."""
    least = float(np.finfo(dtype).tiny)
    for name, mass in (("row_mass", row_mass), ("col_mass", col_mass)):
        if isinstance(mass, jax.core.Tracer):
            continue
        values = np.asarray(mass, np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise InputError(
                f"{name}: expected finite masses >= 0, got negative, infinite or NaN ones"
            )
        if ((values > 0) & (values < least)).any():
            raise InputError(
                f"{name}: expected 0 (masked) or at least {least:.2g}, the smallest normal "
                f"{np.dtype(dtype)}, got {values[values > 0].min():.2g}; raise masses or mask it"
            )


def _check_values(scores: Array, row_mass: Array, col_mass: Array, start: AnyArray | None) -> None:
    if any(isinstance(x, jax.core.Tracer) for x in (scores, row_mass, col_mass, start)):
        return
    rows, cols = np.asarray(row_mass), np.asarray(col_mass)
    if start is not None and not np.isfinite(np.asarray(start)[cols > 0]).all():
        raise InputError(
            "start: expected finite biases where col_mass > 0, got NaN or infinity; omit start"
        )
    if not np.isclose(rows.sum(), cols.sum(), rtol=1e-4):
        raise InputError(
            f"expected equal totals, without which no biases balance both, got {rows.sum():g} of "
            f"row_mass and {cols.sum():g} of col_mass; for N texts and M videos use 1 and N/M"
        )
    bad = _not_finite(scores, row_mass, col_mass)
    if count := int(bad.sum()):  # copies the matrix to the host only after an error
        i, j = np.argwhere(np.asarray(bad))[0]
        raise InputError(f"expected finite scores, got {count} others, the first at [{i}, {j}]")


@jax.jit
def _not_finite(scores: Array, row_mass: Array, col_mass: Array) -> Array:
    return ~jnp.isfinite(scores) & (row_mass > 0)[:, None] & (col_mass > 0)
