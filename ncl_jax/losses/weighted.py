"""Gradients through a kernel without a B x B gradient: panel by panel, or by scaling only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ncl_jax.losses.inputs import Inputs
from ncl_jax.sinkhorn.blocks import Step, Stored, scan_panels
from ncl_jax.sinkhorn.kernel import Kernel, sum_over

_ROWS = 512  # rows of a gradient panel of a stored matrix: an eighth of it at B = 4096


class Slices(NamedTuple):
    """A stored matrix, read slice by slice, so only one gradient panel is in memory at a time."""

    matrix: Float[Array, "row col"]

    def fold(self, step: Step, init: Any, *rows: Array) -> tuple[Any, Any]:
        """Like `Stored.fold`."""
        return scan_panels(step, init, _ROWS, (self.matrix, *rows))


def accumulate(
    matrix: Any, weigh: Callable[..., Array], inputs: Inputs, *rows: Array
) -> tuple[Float[Array, "local dim"], Float[Array, "batch dim"]]:
    """`(D Y, D^T X)` for `D = weigh(panel, *rows of the panel)`, one panel of D at a time.

    X holds the scaled texts and Y the videos; the second result is this device's part.
    """
    if isinstance(matrix, Kernel) and isinstance(matrix.panels, Stored):
        matrix = matrix.panels
    if isinstance(matrix, Stored):
        matrix = Slices(*matrix.parts)

    def step(dy: Array, panel: Array, x: Array, *rows: Array) -> tuple[Array, Array]:
        d = weigh(panel, *rows)
        return dy + d.T @ x, d @ inputs.video

    dy, dx = matrix.fold(step, jnp.zeros_like(inputs.video), inputs.scaled, *rows)
    return dx, dy


def low_rank(
    kernel: Kernel,
    left: Float[Array, "local rank"],
    right: Float[Array, "batch rank"],
    inputs: Inputs,
) -> tuple[Float[Array, "local dim"], Float[Array, "batch dim"]]:
    """`(D Y, D^T X)` for `D = E * (left @ right.T)` elementwise."""
    return accumulate(kernel, lambda e, u: e * (u @ right.T), inputs, left)


def rank_one(
    kernel: Kernel, left: Float[Array, " local"], right: Float[Array, " batch"], inputs: Inputs
) -> tuple[Float[Array, "local dim"], Float[Array, "batch dim"]]:
    """`low_rank` of rank one: D is E scaled on both sides, so scaling the embeddings suffices."""
    x, y = left[:, None] * inputs.scaled, right[:, None] * inputs.video

    def step(dy: Array, e: Array, x: Array) -> tuple[Array, Array]:
        return dy + e.T @ x, e @ y

    if isinstance(kernel.panels, Stored) and len(kernel.panels.parts) == 1:
        e = kernel.panels.parts[0]
        dx, dy = e @ y, e.T @ x
    else:
        dy, dx = kernel.fold(step, jnp.zeros_like(y), x)
    return left[:, None] * dx, right[:, None] * dy


def sweep(
    kernel: Kernel,
    right: Float[Array, " batch"],
    respond: Callable[..., Array],
    *rows: Array,
    axis_name: str | None,
) -> tuple[Float[Array, " local"], Float[Array, " batch"]]:
    """`t = respond(E @ right, *rows)` and `E.T @ t` over all devices, reading E once."""

    def step(total: Array, e: Array, *rows: Array) -> tuple[Array, Array]:
        t = respond(e @ right, *rows)
        return total + t @ e, t

    total, t = kernel.fold(step, jnp.zeros_like(right), *rows)
    return t, sum_over(total, axis_name)


def column_moments(
    kernel: Kernel, left: Float[Array, " local"], axis_name: str | None
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Column sums of `diag(left) E` and of its squared entries, over all devices."""
    matrix = Slices(*kernel.panels.parts) if isinstance(kernel.panels, Stored) else kernel

    def step(total: tuple[Array, Array], e: Array, left: Array) -> tuple[tuple[Array, Array], None]:
        return (total[0] + left @ e, total[1] + (left * left) @ (e * e)), None

    zero = jnp.zeros_like(kernel.col)
    (sums, squares), _ = matrix.fold(step, (zero, zero), left)
    return sum_over(sums, axis_name), sum_over(squares, axis_name)
