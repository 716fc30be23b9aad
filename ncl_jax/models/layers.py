"""Transformer parts with the names of Hugging Face's CLIP.

Weights are float32. `dtype` is the type of matrix products and activations; softmax and the moments
of the norms are always computed in float32.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ncl_jax.errors import InputError


def quick_gelu(x: Array) -> Array:
    """`x * sigmoid(1.702 x)`, OpenAI's fast approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Array) -> Array:
    """The exact GELU, used by models trained with OpenCLIP."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"quick_gelu": quick_gelu, "gelu": gelu}


class Attention(nnx.Module):
    """Multi-head self-attention with separate query, key, value and output projections."""

    def __init__(
        self, width: int, heads: int, *, out_std: float, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        self.heads = heads
        std = nnx.initializers.normal(width**-0.5)
        self.q_proj = nnx.Linear(width, width, kernel_init=std, dtype=dtype, rngs=rngs)
        self.k_proj = nnx.Linear(width, width, kernel_init=std, dtype=dtype, rngs=rngs)
        self.v_proj = nnx.Linear(width, width, kernel_init=std, dtype=dtype, rngs=rngs)
        out = nnx.initializers.normal(out_std)
        self.out_proj = nnx.Linear(width, width, kernel_init=out, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch token width"], mask: Bool[Array, "#batch #head #token token"]
        | None
    ) -> Float[Array, "batch token width"]:
        split = (*x.shape[:2], self.heads, -1)
        q, k, v = (f(x).reshape(split) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(jax.nn.dot_product_attention(q, k, v, mask=mask).reshape(x.shape))


class MLP(nnx.Module):
    """Two linear layers around an activation."""

    def __init__(
        self, width: int, *, activation: str, out_std: float, dtype: Any, rngs: nnx.Rngs
    ):
        inner = nnx.initializers.normal((2 * width) ** -0.5)
        outer = nnx.initializers.normal(out_std)
        self.activation = activation
        self.fc1 = nnx.Linear(width, 4 * width, kernel_init=inner, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(4 * width, width, kernel_init=outer, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class EncoderLayer(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        activation: str = "quick_gelu",
        out_std: float,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shared = {"out_std": out_std, "dtype": dtype, "rngs": rngs}
        self.layer_norm1 = layer_norm(width, dtype, rngs)
        self.self_attn = Attention(width, heads, **shared)
        self.layer_norm2 = layer_norm(width, dtype, rngs)
        self.mlp = MLP(width, activation=activation, **shared)

    def __call__(self, x: Array, mask: Array | None) -> Array:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nnx.Module):
    """A stack of blocks; as in CLIP, deeper stacks start with smaller residual branches.

    Args:
      remat: store only the input of each block for the backward pass and recompute the rest.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        activation: str = "quick_gelu",
        dtype: Any = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if width % heads:
            raise InputError(f"width {width} is not a multiple of the number of heads {heads}")
        out_std = width**-0.5 * (2 * layers) ** -0.5
        self.remat = remat
        self.layers = nnx.List(
            EncoderLayer(
                width, heads, activation=activation, out_std=out_std, dtype=dtype, rngs=rngs
            )
            for _ in range(layers)
        )

    def __call__(
        self,
        x: Float[Array, "batch token width"],
        mask: Bool[Array, "#batch #head #token token"] | None,
    ) -> Float[Array, "batch token width"]:
        run = nnx.remat(EncoderLayer.__call__) if self.remat else EncoderLayer.__call__
        for layer in self.layers:
            x = run(layer, x, mask)
        return x


class PatchEmbedding(nnx.Module):
    """A linear map of non-overlapping patches, which span one frame or three.

    The kernel has the shape of a convolution, (patch, patch, channel, width), or for three frames
    (frame, patch, patch, channel, width). It is applied as a matrix product, which XLA runs several
    times faster on a CPU. In time, the clip is padded with zeros at both ends.
    """

    def __init__(
        self, patch: int, width: int, *, frames: int = 1, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        self.patch, self.frames, self.dtype = patch, frames, dtype
        init = nnx.initializers.normal((3 * patch * patch) ** -0.5)
        flat = init(rngs.params(), (patch, patch, 3, width))
        # A 3d kernel starts equal to the 2d one: its outer frames are zero, as in CLIP4Clip.
        deep = jnp.zeros((frames, *flat.shape)).at[frames // 2].set(flat)
        self.kernel = nnx.Param(flat if frames == 1 else deep)

    def __call__(
        self, video: Float[Array, "*clip frame height width channel"]
    ) -> Float[Array, "*clip frame patch dim"]:
        *outer, height, width, channels = video.shape
        p = self.patch
        grid = video.astype(self.dtype).reshape(-1, height // p, p, width // p, p, channels)
        size = p * p * channels
        patches = grid.transpose(0, 1, 3, 2, 4, 5).reshape(*outer, -1, size)
        kernel = self.kernel[...].astype(self.dtype)
        if self.frames == 1:
            return jnp.matmul(patches, kernel.reshape(size, -1))
        half, count = self.frames // 2, patches.shape[-3]
        pad = [(0, 0)] * patches.ndim
        pad[-3] = (half, half)
        padded = jnp.pad(patches, pad)
        shifted = [padded[..., t : t + count, :, :] for t in range(self.frames)]
        return jnp.matmul(jnp.concatenate(shifted, axis=-1), kernel.reshape(-1, kernel.shape[-1]))


def layer_norm(width: int, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """CLIP's norm: epsilon 1e-5; moments in float32, result in `dtype`."""
    return nnx.LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)
