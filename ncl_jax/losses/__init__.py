"""InfoNCE and NCL on embeddings, with custom forward and backward passes.

Both losses return one value per (caption, clip) pair, unreduced: the mean of its text-to-video and
its video-to-text cross-entropy. The training step masks and averages them.

Under `shard_map(check_vma=False)` or `pmap`, pass `axis_name`: the arguments are then the local
rows, the rows of all devices are candidates for each other, and the values are those of the local
pairs. Texts are not exchanged; videos are gathered once. The gradient of local embeddings is that
of the sum over all devices. The gradient of `scale` is this device's part of it, and so is every
gradient derived from these: `psum` of the devices' parameter gradients is the gradient of the
global sum.

`materialize` does not change results: "always" stores a device's rows of the kernel, "never"
recomputes them panel by panel in O(batch dim) memory at one matrix product per iteration, and
"auto" stores up to 2 GB per device (`inputs.stores`).
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

# Compiled as one program when called outside `jit`, inlined into the caller's program inside it.
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
    """Symmetric InfoNCE of each pair: `ncl` with zero biases.

    Args:
      text: unit-norm caption embeddings [batch, dim].
      video: unit-norm clip embeddings [batch, dim]; row i of each is one (caption, clip) pair.
      scale: logits per cosine, a scalar in (0, 100].
      video_id: [batch]; equal ids show the same clip.
      valid: [batch]; padded rows are False and have no effect.
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
        under x64, float64. Computations use at least float32.
      video: unit-norm clip embeddings [batch, dim]; row i of each is one (caption, clip) pair.
      scale: logits per cosine, a scalar in (0, 100].
      video_id: [batch]; equal ids show the same clip.
      valid: [batch]; padded rows are False: whatever they contain, they are never used as
        candidates, and their loss and gradient are 0.
      iterations: Sinkhorn pairs of updates, video side first and last; with a tolerance, at most.
      gradient: "stop" treats the biases as constants; "unroll" differentiates the iterations,
        exactly and in O(iterations batch) memory; both accept any cotangent per pair. "implicit"
        differentiates the fixed point, damped by the tolerance, which it requires: docs/method.md
        explains what damping removes when the plan is nearly decomposable.
      tolerance: stop when no row sum deviates from its mass by more than this fraction; not
        allowed with "unroll".
      overrelaxation: safeguarded over-relaxation; needs a tolerance.
      positives: "same_clip" shares the target among all pairs of the clip; "diagonal" uses only
        the pair itself, as CLIP4Clip does.
      axis_name: name of the mapped axis over which the batch is split, if any.
      materialize: whether the kernel is stored: "always", "never", or "auto" (up to 2 GB).

    Returns:
      The loss of each local pair [batch] in nats, float32 or float64, and the solver's report on
      the whole batch. All losses are 0 if no pair is valid. Under `jit`, where values cannot be
      checked, a NaN or infinity in a valid row makes the loss of every valid pair NaN,
      `report.error` inf and `report.converged` False.

    Raises:
      ValueError: mismatched shapes or options, an empty batch, host ids beyond 32 bits without
        x64; outside `jit` also non-finite valid rows, a scale of 0 or less, and logits beyond
        5,000. `shard_map` raises if the batch does not divide among the devices.

    Source: Park et al. 2022; the closed-form gradients are ours (docs/method.md).
    Relations: with zero biases equals `infonce`; at convergence, all three gradients of the mean
    loss in the scores are (P - Q) / batch, with Q the target distribution.

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
        raise InputError(f"expected iterations >= 0, got {iterations}")
    if tolerance is not None and (tolerance <= 0 or iterations < 1):
        raise InputError(
            "expected a tolerance > 0 and iterations >= 1, which limit the pairs of updates, got "
            f"{tolerance} and {iterations}"
        )
    if gradient == "unroll" and tolerance is not None:
        raise InputError("gradient 'unroll' needs a fixed number of iterations; omit the tolerance")
    if tolerance is None and (gradient == "implicit" or overrelaxation):
        raise InputError("gradient 'implicit' and overrelaxation need a tolerance; try 1e-3")
    return _normalized(*map(jnp.asarray, (text, video, scale, video_id, valid)), options)
