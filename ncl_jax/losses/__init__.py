"""InfoNCE and NCL on embeddings, with their own forward and backward.

Both return one value per (caption, clip) pair, unreduced: the mean of its text-to-video and its
video-to-text cross-entropy. The training step masks and averages.

Under `shard_map(check_vma=False)` or `pmap`, pass `axis_name`: arguments are then the local rows,
every device's rows are candidates for every other's, and the values are those of the local pairs.
Texts stay where they are and videos are gathered once. The gradient returned for local embeddings
is that of the sum over all devices; that of `scale` is the device's part of it, and so is whatever
follows from either: `psum` of the devices' parameter gradients is the gradient of the global sum.

`materialize` changes no answer: "always" stores a device's rows of the kernel, "never"
recomputes them panel by panel in O(batch dim) memory for one matrix product per iteration. "auto"
stores up to 2 GB per device (`inputs.stores`).
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ncl_jax import sinkhorn
from ncl_jax.errors import InputError
from ncl_jax.losses import contrast, normalized
from ncl_jax.losses.groups import Positives
from ncl_jax.losses.inputs import Materialize, Options, check
from ncl_jax.types import AnyArray, SinkhornReport

__all__ = ["Gradient", "Materialize", "Positives", "infonce", "ncl"]

Gradient = Literal["stop", "unroll", "implicit"]

# One program also where the caller does not compile; part of the caller's where it does.
_compiled = partial(jax.jit, static_argnums=5, inline=True)
_contrast, _normalized = _compiled(contrast.contrast), _compiled(normalized.normalized)


def infonce(
    text: Float[AnyArray, "batch dim"],
    video: Float[AnyArray, "batch dim"],
    scale: Float[AnyArray, ""] | float,
    video_id: Int[AnyArray, " batch"],
    valid: Bool[AnyArray, " batch"],
    *,
    positives: Positives = "same_clip",
    axis_name: str | None = None,
    materialize: Materialize = "auto",
) -> Float[Array, " batch"]:
    """Symmetric InfoNCE of each pair: what `ncl` is with zero biases.

    Args:
      text: unit-norm caption embeddings [batch, dim].
      video: unit-norm clip embeddings [batch, dim]; row i of each is one (caption, clip) pair.
      scale: logits per cosine, a scalar in (0, 100].
      video_id: [batch]; equal ids show the same clip.
      valid: [batch]; padded rows are False and count for nothing.
      positives: as in `ncl`.
      axis_name: as in `ncl`.
      materialize: as in `ncl`.

    Returns:
      The loss of each local pair [batch] in nats.

    Raises:
      ValueError: as `ncl`.

    Source: van den Oord et al. 2018; Radford et al. 2021 for the symmetric form.
    Relations: equals `ncl` with zero biases.

    Example:
      >>> import jax.numpy as jnp
      >>> one_hot, ids = jnp.eye(2), jnp.arange(2)
      >>> values = infonce(one_hot, one_hot, jnp.array(1.0), ids, ids >= 0)
      >>> [f"{value:.4f}" for value in values]
      ['0.3133', '0.3133']
    """
    options = Options(positives=positives, materialize=materialize, axis_name=axis_name)
    check(text, video, scale, video_id, valid, options)
    return _contrast(*map(jnp.asarray, (text, video, scale, video_id, valid)), options)


def ncl(
    text: Float[AnyArray, "batch dim"],
    video: Float[AnyArray, "batch dim"],
    scale: Float[AnyArray, ""] | float,
    video_id: Int[AnyArray, " batch"],
    valid: Bool[AnyArray, " batch"],
    *,
    iterations: int = sinkhorn.PAPER_ITERATIONS,
    gradient: Gradient = "stop",
    tolerance: float | None = None,
    overrelaxation: bool = False,
    positives: Positives = "same_clip",
    axis_name: str | None = None,
    materialize: Materialize = "auto",
) -> tuple[Float[Array, " batch"], SinkhornReport]:
    """Normalized contrastive loss of each pair: InfoNCE on Sinkhorn-biased scores.

        P = exp(s + a + b);  loss_i = -(log softmax_j(s_ij + b_j) + log softmax_j(s_ji + a_j)) / 2
        at j = i, or averaged over the positives j of i.

    Args:
      text: unit-norm caption embeddings [batch, dim] (cosines as products), float32, bfloat16 or,
        under x64, float64. Computed in at least float32.
      video: unit-norm clip embeddings [batch, dim]; row i of each is one (caption, clip) pair.
      scale: logits per cosine, a scalar in (0, 100].
      video_id: [batch]; equal ids show the same clip.
      valid: [batch]; padded rows are False: nobody's candidate, loss 0, gradient 0, whatever they
        hold.
      iterations: Sinkhorn pairs of updates, video side first and last; with a tolerance, at most.
      gradient: "stop" holds the biases constant; "unroll" differentiates the iterations, exactly
        and in O(iterations batch) memory; both for any cotangent per pair. "implicit"
        differentiates the fixed point, damped by the tolerance it needs: docs/method.md says what
        that takes away where the plan is nearly decomposable.
      tolerance: stop when no row is off its mass by more than this fraction. Not with "unroll".
      overrelaxation: safeguarded over-relaxation; needs a tolerance.
      positives: "same_clip" shares the target among all pairs of the clip; "diagonal" keeps
        only the pair itself (what CLIP4Clip does).
      axis_name: mapped axis the batch is split over, if any.
      materialize: whether the kernel is stored: "always", "never", or "auto" up to 2 GB.

    Returns:
      The loss of each local pair [batch] in nats, float32 or float64, and the solver's report (of
      the whole batch). Without any valid pair all is 0. Under `jit`, where values cannot be
      refused, a NaN or infinity in a valid row makes every valid pair's loss NaN,
      `report.error` inf and `report.converged` False.

    Raises:
      ValueError: shapes or options that do not fit, an empty batch, ids beyond 32 bits from the
        host without x64; outside `jit` also non-finite valid rows, a scale of 0 or less, and
        logits beyond 5,000. A batch that does not divide by the devices is refused by `shard_map`.

    Source: Park et al. 2022; the closed-form gradients are ours (docs/method.md).
    Relations: with zero biases equals `infonce`; at convergence every semantics' gradient of the
    mean loss in the scores is (P - Q) / batch, Q the target distribution.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> one_hot, ids = jnp.eye(2), jnp.arange(2)
      >>> mean = lambda x: ncl(x, one_hot, jnp.array(1.0), ids, ids >= 0)[0].mean()
      >>> jax.grad(mean)(one_hot).shape
      (2, 2)
    """
    options = Options(
        iterations, tolerance, overrelaxation, gradient, positives, materialize, axis_name
    )
    check(text, video, scale, video_id, valid, options)
    if iterations < 0:
        raise InputError(f"iterations must be >= 0, got {iterations}")
    if tolerance is not None and (tolerance <= 0 or iterations < 1):
        raise InputError("a tolerance must be > 0 and needs iterations >= 1, the most to do")
    if gradient == "unroll" and tolerance is not None:
        raise InputError("gradient 'unroll' needs a fixed count: drop the tolerance")
    if tolerance is None and (gradient == "implicit" or overrelaxation):
        raise InputError("gradient 'implicit' and overrelaxation need a tolerance; try 1e-3")
    return _normalized(*map(jnp.asarray, (text, video, scale, video_id, valid)), options)
