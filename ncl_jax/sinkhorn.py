"""Sinkhorn-Knopp in the log domain: scores and masses -> biases with evidence.

Finds `a` (text) and `b` (video) so that `P = exp(scores + a[:, None] + b[None, :])` has row sums
`row_mass` and column sums `col_mass`. Order of updates as in the public descendants of NCL:
gallery (video) side first and last,

    b = log c - lse_i(s);   K times:  a = log r - lse_j(s + b);   b = log c - lse_i(s + a).

Source: Park et al., Normalized Contrastive Learning, EMNLP 2022; Cuturi 2013 for the iteration.
"""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float

from ncl_jax.types import Biases, SinkhornReport

PAPER_ITERATIONS = 4
CONVERGED = 1e-3
_MASKED = -1e30  # finite, so that a masked row never turns into inf - inf


def solve(
    scores: Float[Array, "text video"],
    row_mass: Float[Array, " text"],
    col_mass: Float[Array, " video"],
    *,
    iterations: int = PAPER_ITERATIONS,
) -> tuple[Biases, SinkhornReport]:
    """Biases that balance `exp(scores)` to the given row and column masses.

    Args:
      scores: logits, [text, video].
      row_mass: mass of each text, >= 0; 0 masks the row (padding).
      col_mass: mass of each video, >= 0; 0 masks the column. The two totals must be equal.
      iterations: pairs of updates after the first video update, >= 0.

    Returns:
      `Biases` in logit units (mean video bias 0, masked entries 0) and a `SinkhornReport`.

    Relations: zero iterations is inverted softmax; a constant added to a column of `scores`
    leaves the biased scores as they are.

    Example:
      >>> import jax.numpy as jnp
      >>> biases, report = solve(jnp.eye(3) * 5, jnp.ones(3), jnp.ones(3))
      >>> bool(report.converged)
      True
    """
    rows, cols = row_mass > 0, col_mass > 0
    scores = jnp.where(rows[:, None] & cols[None, :], scores, _MASKED)
    log_r = jnp.log(jnp.where(rows, row_mass, 1.0))
    log_c = jnp.log(jnp.where(cols, col_mass, 1.0))

    def video_update(a: Array) -> Array:
        return jnp.where(cols, log_c - logsumexp(scores + a[:, None], axis=0), 0.0)

    def text_update(b: Array) -> Array:
        return jnp.where(rows, log_r - logsumexp(scores + b[None, :], axis=1), 0.0)

    def pair(_: int, ab: tuple[Array, Array]) -> tuple[Array, Array]:
        a = text_update(ab[1])
        return a, video_update(a)

    a = jnp.zeros_like(log_r)
    a, b = jax.lax.fori_loop(0, iterations, pair, (a, video_update(a)))

    shift = jnp.sum(b) / jnp.maximum(jnp.sum(cols), 1)
    a, b = jnp.where(rows, a + shift, 0.0), jnp.where(cols, b - shift, 0.0)
    # The video side was updated last, so only the rows can be off their mass.
    row_sum = jnp.exp(logsumexp(scores + a[:, None] + b[None, :], axis=1) - log_r)
    error = jnp.max(jnp.where(rows, jnp.abs(row_sum - 1), 0.0), initial=0.0)
    report = SinkhornReport(error, jnp.asarray(iterations), error < CONVERGED)
    return Biases(a, b), report
