"""InfoNCE and NCL on embeddings.

Both return one value per (caption, clip) pair, unreduced: the mean of its text-to-video and its
video-to-text cross-entropy. The training step masks and averages.

Under `shard_map` or `pmap`, pass `axis_name`: arguments are then the local rows, every device's
rows are candidates for every other's, and the values are those of the local pairs. The gradient
of a device's local sum is its *share*: `psum` of the shares is the gradient of the global sum.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import log_softmax
from jaxtyping import Array, Bool, Float, Int

from ncl_jax import sinkhorn
from ncl_jax.scores import logits, same_clip
from ncl_jax.types import Biases, SinkhornReport

Positives = Literal["same_clip", "diagonal"]
_MASKED = -1e30


def infonce(
    text: Float[Array, "batch dim"],
    video: Float[Array, "batch dim"],
    scale: Float[Array, ""],
    video_id: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    positives: Positives = "same_clip",
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """Symmetric InfoNCE of each pair; see `ncl` for the arguments.

    Relations: equals `ncl` with zero biases.
    """
    everyone = _gather((text, video, video_id, valid), axis_name)
    zero = jnp.zeros(everyone[0].shape[0])
    return _cross_entropy(
        (text, video, video_id, valid), everyone, scale, Biases(zero, zero), positives, axis_name
    )


def ncl(
    text: Float[Array, "batch dim"],
    video: Float[Array, "batch dim"],
    scale: Float[Array, ""],
    video_id: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    iterations: int = sinkhorn.PAPER_ITERATIONS,
    positives: Positives = "same_clip",
    axis_name: str | None = None,
) -> tuple[Float[Array, " batch"], SinkhornReport]:
    """Normalized contrastive loss of each pair: InfoNCE on Sinkhorn-biased scores.

    Args:
      text, video: unit-norm embeddings; row i of each is one (caption, clip) pair.
      scale: logits per cosine, in (0, 100].
      video_id: equal ids show the same clip.
      valid: padded rows are False; they are nobody's candidate and their loss is 0.
      iterations: Sinkhorn iterations (pairs of updates, video side first and last).
      positives: "same_clip" shares the target among all pairs of the clip; "diagonal" keeps
        only the pair itself (what CLIP4Clip does).
      axis_name: mapped axis the batch is split over, if any.

    Returns:
      The loss of each local pair in nats, and the solver's report. Biases are constants for the
      gradient.

    Source: Park et al. 2022. Relations: with zero biases equals `infonce`.
    """
    everyone = _gather((text, video, video_id, valid), axis_name)
    all_text, all_video, _, all_valid = everyone
    mass = all_valid.astype(jnp.float32)
    scores = jax.lax.stop_gradient(logits(all_text, all_video, scale))
    biases, report = sinkhorn.solve(scores, mass, mass, iterations=iterations)
    biases = jax.lax.stop_gradient(biases)
    loss = _cross_entropy(
        (text, video, video_id, valid), everyone, scale, biases, positives, axis_name
    )
    return loss, report


def _gather(arrays, axis_name):
    if axis_name is None:
        return arrays
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), arrays)


def _cross_entropy(local, everyone, scale, biases, positives, axis_name):
    text, video, video_id, valid = local
    all_text, all_video, all_id, all_valid = everyone
    rows = logits(text, all_video, scale) + biases.video[None, :]
    cols = logits(all_text, video, scale) + biases.text[:, None]
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * text.shape[0]
    if positives == "diagonal":
        target = jnp.arange(all_id.shape[0])[None, :] == first + jnp.arange(text.shape[0])[:, None]
    else:
        target = same_clip(video_id, all_id)
    target = target & all_valid[None, :]
    t2v = _soft_cross_entropy(rows, target, all_valid)
    v2t = _soft_cross_entropy(cols.T, target, all_valid)
    return jnp.where(valid, (t2v + v2t) / 2, 0.0)


def _soft_cross_entropy(scores, target, candidates):
    log_p = log_softmax(jnp.where(candidates[None, :], scores, _MASKED), axis=1)
    count = jnp.maximum(jnp.sum(target, axis=1), 1)
    return -jnp.sum(jnp.where(target, log_p, 0.0), axis=1) / count
