"""Embeddings -> score matrix, always `[text, video]`."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ncl_jax.types import AnyArray


def logits(
    text: Float[AnyArray, "text dim"],
    video: Float[AnyArray, "video dim"],
    scale: Float[AnyArray, ""] | float,
) -> Float[Array, "text video"]:
    """`scale * cosine` of unit-norm embeddings, float32, in [-scale, scale].

    Example:
      >>> import jax.numpy as jnp
      >>> logits(jnp.eye(2), jnp.eye(2), 10.0)[0].tolist()
      [10.0, 0.0]
    """
    return jnp.multiply(scale, jnp.matmul(text, video.T, preferred_element_type=jnp.float32))
