"""Heads over frames (CLIP4Clip, Luo et al. 2021): frame features -> clip embedding or score.

`meanP`, `seqLSTM` and `seqTransf` return one unit-norm vector per clip, scored by cosines.
`tightTransf` reads a caption and a clip together and returns the logit of the pair. All heads
compute in float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ncl_jax.models.layers import Encoder, layer_norm, quick_gelu

PAIRS = 2048
"""Pairs that `TightTransformer` reads at a time; the backward pass recomputes each chunk."""


class MeanPool(nnx.Module):
    """meanP: unit-norm frames, averaged over the valid ones; the order of frames has no effect."""

    def __init__(
        self, dim: int, *, max_frames: int, layers: int, heads: int, activation: str,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        del dim, max_frames, layers, heads, activation, rngs  # no parameters

    def __call__(
        self, frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
    ) -> Float[Array, "video dim"]:
        return mean_of_valid(frames, frame_mask)


class SeqLSTM(nnx.Module):
    """seqLSTM: one LSTM from the first frame to the last, added to its input, then meanP.

    Gates are in torch's order: input, forget, cell, output. Masked frames come last, so they never
    affect valid ones.
    """

    def __init__(
        self, dim: int, *, max_frames: int, layers: int, heads: int, activation: str,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        del max_frames, layers, heads, activation
        bound = dim**-0.5

        def init(key: Any, shape: Any, dtype: Any) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        linear = functools.partial(nnx.Linear, kernel_init=init, bias_init=init, rngs=rngs)
        self.input_proj = linear(dim, 4 * dim)
        self.hidden_proj = linear(dim, 4 * dim)

    def __call__(
        self, frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
    ) -> Float[Array, "video dim"]:
        def step(carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
            hidden, cell = carry
            gates = jnp.split(x + self.hidden_proj(hidden), 4, axis=-1)
            take, keep, give = (jax.nn.sigmoid(gates[i]) for i in (0, 1, 3))
            cell = keep * cell + take * jnp.tanh(gates[2])
            hidden = give * jnp.tanh(cell)
            return (hidden, cell), hidden

        zero = jnp.zeros_like(frames[:, 0])
        inputs = self.input_proj(frames).swapaxes(0, 1)
        _, hidden = jax.lax.scan(step, (zero, zero), inputs)
        return mean_of_valid(frames + hidden.swapaxes(0, 1), frame_mask)


class SeqTransformer(nnx.Module):
    """seqTransf: a small transformer over frames, added to its input, then meanP."""

    def __init__(
        self, dim: int, *, max_frames: int, layers: int, heads: int, activation: str,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        # Frame features start with entries of size 1; much smaller positions would have no effect.
        self.position_embedding = nnx.Embed(
            max_frames, dim, embedding_init=nnx.initializers.normal(0.5), rngs=rngs
        )
        self.encoder = Encoder(dim, layers, heads, activation=activation, rngs=rngs)

    def __call__(
        self, frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
    ) -> Float[Array, "video dim"]:
        positions = self.position_embedding(jnp.arange(frames.shape[1]))
        hidden = self.encoder(frames + positions, frame_mask[:, None, None, :])
        return mean_of_valid(frames + hidden, frame_mask)


class TightTransformer(nnx.Module):
    """tightTransf: a transformer over (caption, frame, frame, ...) and a linear score per pair.

    A clip is represented by its frames, [frame, dim + 1], whose last channel is the mask. Scoring N
    captions against M clips runs the transformer N M times, so clips cannot be indexed; the score
    is a logit, not a cosine.
    """

    def __init__(
        self, dim: int, *, max_frames: int, layers: int, heads: int, activation: str,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        small = nnx.initializers.normal(0.02)
        self.position_embedding = nnx.Embed(max_frames + 1, dim, embedding_init=small, rngs=rngs)
        self.encoder = Encoder(dim, layers, heads, activation=activation, rngs=rngs)
        self.pool_norm = layer_norm(dim, jnp.float32, rngs)
        self.pool_proj = nnx.Linear(dim, dim, kernel_init=small, rngs=rngs)
        self.similarity = nnx.Linear(dim, 1, kernel_init=small, rngs=rngs)

    def __call__(
        self, frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
    ) -> Float[Array, "video frame dim_and_mask"]:
        return jnp.concatenate([frames, frame_mask[..., None].astype(frames.dtype)], axis=-1)

    def score(
        self, text: Float[Array, "text dim"], video: Float[Array, "video frame dim_and_mask"]
    ) -> Float[Array, "text video"]:
        """Logits of all pairs; reads a few captions at a time together with every clip."""
        frames, frame_mask = video[..., :-1], video[..., -1] > 0

        def row(caption: Float[Array, " dim"]) -> Float[Array, " video"]:
            first = jnp.broadcast_to(caption, (len(frames), 1, len(caption)))
            return self._pairs(jnp.concatenate([first, frames], axis=1), frame_mask)

        return jax.lax.map(jax.checkpoint(row), text, batch_size=max(1, PAIRS // len(frames)))

    def _pairs(
        self, tokens: Float[Array, "pair token dim"], frame_mask: Bool[Array, "pair frame"]
    ) -> Float[Array, " pair"]:
        mask = jnp.pad(frame_mask, ((0, 0), (1, 0)), constant_values=True)
        positions = self.position_embedding(jnp.arange(tokens.shape[1]))
        hidden = self.encoder(tokens + positions, mask[:, None, None, :])
        pooled = quick_gelu(self.pool_proj(self.pool_norm(hidden[:, 0])))
        return self.similarity(pooled)[:, 0]


TemporalHead = MeanPool | SeqLSTM | SeqTransformer | TightTransformer
TEMPORAL_HEADS: dict[str, type[TemporalHead]] = {
    "meanP": MeanPool,
    "seqLSTM": SeqLSTM,
    "seqTransf": SeqTransformer,
    "tightTransf": TightTransformer,
}


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
