"""Score matrices as row panels, stored or recomputed, with a common `fold`.

The solver and the losses process a B x B matrix only by folds over its row panels. So each
algorithm is written once, and works on a stored matrix, on one device's rows of it, or on panels
recomputed from the embeddings in O(B dim) memory.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

PANEL_ENTRIES = 1 << 22
"""Entries of a recomputed panel (16 MB in float32), unless it then has too few rows."""
PANEL_ROWS = 128
"""Fewest rows of a recomputed panel: a matrix product of fewer would be inefficient."""

Step = Callable[..., tuple[Any, Any]]


class Stored(NamedTuple):
    """Row panels stored in memory, from top to bottom."""

    parts: tuple[Float[Array, "panel col"], ...]

    def fold(self, step: Step, init: Any, *rows: Array) -> tuple[Any, Any]:
        """`carry, out = step(carry, panel, *rows_of_panel)` from top to bottom.

        `rows` are arrays with one entry per row of the matrix. Returns the last carry and the
        outputs joined along the rows.
        """
        carry, outs, top = init, [], 0
        for part in self.parts:
            bottom = top + part.shape[0]
            carry, out = step(carry, part, *(r[top:bottom] for r in rows))
            outs.append(out)
            top = bottom
        return carry, _join(outs)


class Tiled(NamedTuple):
    """Panels of `rows @ cols.T`, recomputed at every fold (the row side carries the scale)."""

    rows: Float[Array, "row dim"]
    cols: Float[Array, "col dim"]

    def fold(self, step: Step, init: Any, *rows: Array) -> tuple[Any, Any]:
        """Like `Stored.fold`; a smaller last panel is processed after the loop."""
        height = panel_height(self.rows.shape[0], self.cols.shape[0])

        def scored(carry: Any, x: Array, *rows: Array) -> tuple[Any, Any]:
            return step(carry, score_panel(x, self.cols), *rows)

        return scan_panels(scored, init, height, (self.rows, *rows))


Panels = Stored | Tiled


def scan_panels(step: Step, init: Any, height: int, rows: tuple[Array, ...]) -> tuple[Any, Any]:
    """`carry, out = step(carry, *panels)` for one panel of `height` rows after the other.

    A smaller last panel is processed after the loop. Returns the last carry and the joined outputs.
    """
    n = rows[0].shape[0]
    height = min(height, n)
    full = n // height * height
    tall = tuple(r[:full].reshape(-1, height, *r.shape[1:]) for r in rows)
    carry, outs = lax.scan(lambda carry, panel: step(carry, *panel), init, tall)
    outs = jax.tree.map(lambda o: o.reshape(full, *o.shape[2:]), outs)
    if full == n:
        return carry, outs
    carry, tail = step(carry, *(r[full:] for r in rows))
    return carry, _join([outs, tail])


def score_panel(rows: Array, cols: Array) -> Array:
    """`rows @ cols.T` in full float32 (or float64), even if JAX's default precision is lower.

    At scale 100 a bfloat16 product would deviate by .4 logits. The product is a tiny part of a
    training step, so full precision costs little.
    """
    return jnp.matmul(rows, cols.T, precision=lax.Precision.HIGHEST)


def panel_height(rows: int, cols: int) -> int:
    """Rows of a recomputed panel: `PANEL_ENTRIES` in all, at least `PANEL_ROWS`, at most `rows`."""
    return max(1, min(rows, max(PANEL_ROWS, PANEL_ENTRIES // max(cols, 1))))


def split(matrix: Float[Array, "row col"], height: int) -> Stored:
    """A matrix as panels of at most `height` rows."""
    return Stored(tuple(matrix[i : i + height] for i in range(0, matrix.shape[0], height)))


def _join(outs: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *o: jnp.concatenate(o) if len(o) > 1 else o[0], *outs)
