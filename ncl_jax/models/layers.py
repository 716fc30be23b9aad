"""Transformer parts with the names of Hugging Face's CLIP."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float


class Attention(nnx.Module):
    """Multi-head self-attention with separate query, key, value and output projections."""

    def __init__(self, width: int, heads: int, *, out_std: float, rngs: nnx.Rngs):
        self.heads = heads
        std = nnx.initializers.normal(width**-0.5)
        self.q_proj = nnx.Linear(width, width, kernel_init=std, rngs=rngs)
        self.k_proj = nnx.Linear(width, width, kernel_init=std, rngs=rngs)
        self.v_proj = nnx.Linear(width, width, kernel_init=std, rngs=rngs)
        out = nnx.initializers.normal(out_std)
        self.out_proj = nnx.Linear(width, width, kernel_init=out, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch token width"], mask: Bool[Array, "#batch #head token token"]
        | None
    ) -> Float[Array, "batch token width"]:
        split = (*x.shape[:2], self.heads, -1)
        q, k, v = (f(x).reshape(split) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(jax.nn.dot_product_attention(q, k, v, mask=mask).reshape(x.shape))


class MLP(nnx.Module):
    """Two linear layers around CLIP's quick GELU."""

    def __init__(self, width: int, *, out_std: float, rngs: nnx.Rngs):
        inner = nnx.initializers.normal((2 * width) ** -0.5)
        outer = nnx.initializers.normal(out_std)
        self.fc1 = nnx.Linear(width, 4 * width, kernel_init=inner, rngs=rngs)
        self.fc2 = nnx.Linear(4 * width, width, kernel_init=outer, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        hidden = self.fc1(x)
        return self.fc2(hidden * jax.nn.sigmoid(1.702 * hidden))


class EncoderLayer(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, *, out_std: float, rngs: nnx.Rngs):
        self.layer_norm1 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.self_attn = Attention(width, heads, out_std=out_std, rngs=rngs)
        self.layer_norm2 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.mlp = MLP(width, out_std=out_std, rngs=rngs)

    def __call__(self, x: Array, mask: Array | None) -> Array:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nnx.Module):
    """A stack of blocks; residual branches start smaller the deeper the stack, as in CLIP."""

    def __init__(self, width: int, layers: int, heads: int, *, rngs: nnx.Rngs):
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the number of heads {heads}")
        out_std = width**-0.5 * (2 * layers) ** -0.5
        self.layers = nnx.List(
            EncoderLayer(width, heads, out_std=out_std, rngs=rngs) for _ in range(layers)
        )

    def __call__(
        self,
        x: Float[Array, "batch token width"],
        mask: Bool[Array, "#batch #head token token"] | None,
    ) -> Float[Array, "batch token width"]:
        for layer in self.layers:
            x = layer(x, mask)
        return x


class PatchEmbedding(nnx.Module):
    """Non-overlapping patches through one linear map.

    The kernel has the shape of a convolution, (patch, patch, channel, width), but is applied as
    a matrix product, which XLA runs several times faster on a CPU.
    """

    def __init__(self, patch: int, width: int, *, rngs: nnx.Rngs):
        self.patch = patch
        init = nnx.initializers.normal((3 * patch * patch) ** -0.5)
        self.kernel = nnx.Param(init(rngs.params(), (patch, patch, 3, width)))

    def __call__(
        self, images: Float[Array, "image height width channel"]
    ) -> Float[Array, "image patch dim"]:
        count, height, width, channels = images.shape
        p = self.patch
        grid = images.reshape(count, height // p, p, width // p, p, channels)
        patches = grid.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, p * p * channels)
        return jnp.matmul(patches, self.kernel[...].reshape(p * p * channels, -1))
