"""The stabilised kernel `E = exp(scores + row[:, None] + col[None, :])` and exact log-domain sums.

`E` is stored once, and every Sinkhorn update is a matrix-vector product with it. Both shifts are
maxima, so each row and each column of `E` contains a 1 and no entry exceeds 1: sums can neither
overflow nor vanish at any scale. With the usual shift by row only, a column e^-88 below the maximum
of every row would be all zeros. As the biases move away from the shifts, entries that were flushed
to zero gain weight; `trusted` reports whether they may still be neglected.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ncl_jax.sinkhorn.blocks import Panels, Step, Stored, Tiled

_LARGE = 1 << 22  # entries; larger matrices are exponentiated in place to avoid a copy
_IN_PLACE_SLICES = 16
_TRUST = 30.0  # logits; entries below e^-87 then weigh less than e^-27 of any sum


class Kernel(NamedTuple):
    """`exp(scores + row + col)`: stored, or recomputed if `panels` are `Tiled` scores.

    Masked rows and columns have a shift of -inf and are zero in E.
    """

    panels: Panels
    row: Float[Array, " row"]
    col: Float[Array, " col"]

    def fold(self, step: Step, init: Any, *rows: Array) -> tuple[Any, Any]:
        """Fold over panels of E; see `Stored.fold`."""
        if isinstance(self.panels, Stored):
            return self.panels.fold(step, init, *rows)

        def exponentiate(carry: Any, scores: Array, row: Array, *rest: Array) -> tuple[Any, Any]:
            return step(carry, jnp.exp(scores + row[:, None] + self.col), *rest)

        return self.panels.fold(exponentiate, init, self.row, *rows)


def store(
    scores: Stored,
    a: Float[Array, " row"],
    b: Float[Array, " col"],
    *,
    columns_first: bool,
    axis_name: str | None,
) -> Kernel:
    """The kernel stabilised around the biases `a`, `b` (-inf masks), in the memory of the scores.

    Set `columns_first` if the columns are updated next: the sums of that update and of every later
    one then lie between 1 and the number of rows.
    """
    live_row, live_col = a > -jnp.inf, b > -jnp.inf
    if columns_first:
        top = _or_zero(_col_max(scores, a, axis_name))
        side = _or_zero(_row_max(scores, a, jnp.where(live_col, -top, -jnp.inf)))
        row, col = a - side, -top
    else:
        side = _or_zero(_row_max(scores, jnp.zeros_like(a), b))
        top = _or_zero(_col_max(scores, jnp.where(live_row, -side, -jnp.inf), axis_name, b))
        row, col = -side, b - top
    return exponential(
        scores, jnp.where(live_row, row, -jnp.inf), jnp.where(live_col, col, -jnp.inf)
    )


def exponential(scores: Stored, row: Float[Array, " row"], col: Float[Array, " col"]) -> Kernel:
    """The stored kernel with the given shifts (-inf masks), in the memory of the scores."""
    parts, top = [], 0
    for part in scores.parts:
        bottom = top + part.shape[0]
        parts.append(_exponential_in_place(part, row[top:bottom], col))
        top = bottom
    return Kernel(Stored(tuple(parts)), row, col)


def _exponential_in_place(s: Array, row: Array, col: Array) -> Array:
    """`exp(s + row + col)`; slice by slice for a large matrix, which XLA:CPU does in place."""
    height = -(-s.shape[0] // _IN_PLACE_SLICES)
    if s.size < _LARGE or s.shape[0] % height:
        return jnp.exp(s + row[:, None] + col)

    def write(k: Array, s: Array) -> Array:
        panel, shift = (lax.dynamic_slice_in_dim(x, k * height, height) for x in (s, row))
        return lax.dynamic_update_slice_in_dim(
            s, jnp.exp(panel + shift[:, None] + col), k * height, 0
        )

    return lax.fori_loop(0, s.shape[0] // height, write, s)


def overwrite(
    stored: Float[Array, "row col"],
    scores: Tiled,
    row: Float[Array, " row"],
    col: Float[Array, " col"],
) -> Kernel:
    """Like `exponential`, but writes recomputed scores into the memory of an old kernel."""

    def write(carry: tuple[Array, Array], s: Array, row: Array) -> Any:
        kernel, top = carry
        e = jnp.exp(s + row[:, None] + col)
        return (lax.dynamic_update_slice_in_dim(kernel, e, top, 0), top + s.shape[0]), None

    (kernel, _), _ = scores.fold(write, (stored, jnp.zeros((), jnp.int32)), row)
    return Kernel(Stored((kernel,)), row, col)


def row_sums(kernel: Kernel, v: Float[Array, " col"]) -> Float[Array, " row"]:
    """`E @ v`."""
    return kernel.fold(lambda _, e, __: (None, e @ v), None, kernel.row)[1]


def row_lse(kernel: Kernel, b: Float[Array, " col"]) -> Float[Array, " row"]:
    """`logsumexp_j(s_ij + b_j)` from the kernel."""
    return log_sum(row_sums(kernel, weight(b, kernel.col)), kernel.row)


def trusted_row_lse(
    kernel: Kernel, b: Float[Array, " col"], log_mass: Float[Array, " row"]
) -> tuple[Float[Array, " row"], Bool[Array, ""]]:
    """`row_lse`, and whether its sums include all entries that matter."""
    total = row_sums(kernel, weight(b, kernel.col))
    return log_sum(total, kernel.row), trusted(b, kernel.col, total, log_mass)


def col_lse(kernel: Kernel, a: Float[Array, " row"], axis_name: str | None) -> Array:
    """`logsumexp_i(s_ij + a_i)` from the kernel, over all devices."""
    total, _ = kernel.fold(
        lambda c, e, u: (c + u @ e, None), jnp.zeros_like(kernel.col), weight(a, kernel.row)
    )
    return log_sum(sum_over(total, axis_name), kernel.col)


def weight(bias: Array, shift: Array) -> Array:
    """The weight of a bias on E: `exp(bias - shift)`, 0 where masked."""
    return jnp.where(bias == -jnp.inf, 0.0, jnp.exp(bias - shift))


def log_sum(total: Array, shift: Array) -> Array:
    """The log-sum-exp of scores from a sum over E: without the shift, -inf where masked."""
    return jnp.where(shift == -jnp.inf, -jnp.inf, jnp.log(total) - shift)


def exact_row_lse(s: Float[Array, "row col"], b: Float[Array, " col"]) -> Float[Array, " row"]:
    """`logsumexp_j(s_ij + b_j)` of a panel of scores, with its own maximum."""
    shifted = s + b
    top = _or_zero(jnp.max(shifted, axis=1))
    return top + jnp.log(jnp.sum(jnp.exp(shifted - top[:, None]), axis=1))


def add_to_col_lse(
    running: tuple[Array, Array], s: Float[Array, "row col"], a: Float[Array, " row"]
) -> tuple[Array, Array]:
    """Adds a panel to a running (maximum, sum of exponentials above it) per column."""
    top, total = running
    shifted = s + a[:, None]
    new = jnp.maximum(top, jnp.max(shifted, axis=0))
    safe = _or_zero(new)
    # A product with ones, because XLA:CPU sums columns many times more slowly than it multiplies.
    added = jnp.ones_like(a) @ jnp.exp(shifted - safe)
    return new, total * jnp.exp(top - safe) + added


def finish_col_lse(
    running: tuple[Array, Array], axis_name: str | None, reference: Array | None = None
) -> Array:
    """The column log-sum-exp over all devices from their running pairs.

    `reference` are the biases of a preceding column update. After that update, no column of a
    row-normalised plan can vanish or exceed the total mass, so one psum suffices; without it, a
    pmax comes first.
    """
    top, total = running
    if axis_name is not None:
        new = lax.pmax(top, axis_name) if reference is None else -reference
        total = lax.psum(total * jnp.exp(top - _or_zero(new)), axis_name)
        top = new
    return _or_zero(top) + jnp.log(total)


def start_col_lse(like: Float[Array, " col"]) -> tuple[Array, Array]:
    """The empty running pair of `add_to_col_lse`."""
    return jnp.full_like(like, -jnp.inf), jnp.zeros_like(like)


def trusted(bias: Array, shift: Array, total: Array, log_mass: Array) -> Bool[Array, ""]:
    """Whether the sums `total`, weighted by `bias` over `shift`, include all that matters.

    `log_mass` masks the sums. NaN is never trusted.
    """
    heaviest = jnp.max(jnp.where(bias == -jnp.inf, -jnp.inf, bias - shift), initial=-jnp.inf)
    smallest = jnp.min(jnp.where(log_mass == -jnp.inf, jnp.inf, total), initial=jnp.inf)
    return (heaviest < _TRUST) & (smallest > math.exp(-_TRUST))


def sum_over(x: Array, axis_name: str | None) -> Array:
    """Sum over the devices of a mapped axis, if there is one."""
    return x if axis_name is None else lax.psum(x, axis_name)


def max_over(x: Array, axis_name: str | None) -> Array:
    """Maximum over the devices of a mapped axis, if there is one."""
    return x if axis_name is None else lax.pmax(x, axis_name)


def _row_max(scores: Stored, a: Array, b: Array) -> Array:
    return scores.fold(lambda _, s, a: (None, jnp.max(s + a[:, None] + b, axis=1)), None, a)[1]


def _col_max(scores: Stored, a: Array, axis_name: str | None, b: Array | float = 0.0) -> Array:
    def step(top: Array, s: Array, a: Array) -> tuple[Array, None]:
        return jnp.maximum(top, jnp.max(s + a[:, None] + b, axis=0)), None

    cols = scores.parts[0].shape[1]
    top, _ = scores.fold(step, jnp.full(cols, -jnp.inf, a.dtype), a)
    return max_over(top, axis_name)


def _or_zero(x: Array) -> Array:
    """Replaces -inf, the mark of masked entries, by 0; NaN stays NaN."""
    return jnp.where(x == -jnp.inf, 0.0, x)
