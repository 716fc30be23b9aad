"""From frame features to one unit-norm vector per clip (heads of CLIP4Clip, Luo et al. 2021)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ncl_jax.models.layers import Encoder


class MeanPool(nnx.Module):
    """meanP: unit-norm frames, averaged over the valid ones. Blind to the order of frames."""

    def __init__(self, dim: int, *, max_frames: int, layers: int, heads: int, rngs: nnx.Rngs):
        del dim, max_frames, layers, heads, rngs  # no parameters

    def __call__(
        self, frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
    ) -> Float[Array, "video dim"]:
        return mean_of_valid(frames, frame_mask)


class SeqTransformer(nnx.Module):
    """seqTransf: a small transformer over frames, added to its input, then meanP."""

    def __init__(self, dim: int, *, max_frames: int, layers: int, heads: int, rngs: nnx.Rngs):
        # Frame features start with entries of size 1: positions far below that are not seen.
        self.position_embedding = nnx.Embed(
            max_frames, dim, embedding_init=nnx.initializers.normal(0.5), rngs=rngs
        )
        self.encoder = Encoder(dim, layers, heads, rngs=rngs)

    def __call__(
        self, frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
    ) -> Float[Array, "video dim"]:
        positions = self.position_embedding(jnp.arange(frames.shape[1]))
        hidden = self.encoder(frames + positions, frame_mask[:, None, None, :])
        return mean_of_valid(frames + hidden, frame_mask)


TemporalHead = MeanPool | SeqTransformer
TEMPORAL_HEADS: dict[str, type[TemporalHead]] = {"meanP": MeanPool, "seqTransf": SeqTransformer}


def mean_of_valid(
    frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
) -> Float[Array, "video dim"]:
    """Unit-norm mean of the unit-norm valid frames; zero for a clip without a valid frame."""
    weight = frame_mask[..., None].astype(jnp.float32)
    total = jnp.sum(unit_norm(frames) * weight, axis=1)
    return unit_norm(total / jnp.maximum(jnp.sum(weight, axis=1), 1.0))


def unit_norm(x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """`x / |x|` in float32; a zero vector stays zero and has a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
