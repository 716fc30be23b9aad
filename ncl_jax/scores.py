"""Embeddings -> score matrix, always `[text, video]`."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def logits(
    text: Float[Array, "text dim"],
    video: Float[Array, "video dim"],
    scale: Float[Array, ""] | float,
) -> Float[Array, "text video"]:
    """`scale * cosine` of unit-norm embeddings, float32, in [-scale, scale].

    Example:
      >>> import jax.numpy as jnp
      >>> logits(jnp.eye(2), jnp.eye(2), 10.0)[0].tolist()
      [10.0, 0.0]
    """
    return scale * jnp.matmul(text, video.T, preferred_element_type=jnp.float32)


def same_clip(
    row_id: Int[Array, " row"], col_id: Int[Array, " col"]
) -> Bool[Array, "row col"]:
    """Which columns show the clip of each row."""
    return row_id[:, None] == col_id[None, :]
