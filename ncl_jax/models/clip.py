"""CLIP over video frames, in Flax NNX.

The parameter tree has the names of Hugging Face's `CLIPModel`; `hf_name` states the mapping
(`kernel`, `scale` and `embedding` are all `weight` there). Source of the architecture: Radford et
al. 2021 and `transformers` `CLIPModel`; frame pooling: CLIP4Clip (see `temporal.py`).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from ncl_jax.models.layers import Encoder, PatchEmbedding
from ncl_jax.models.temporal import TEMPORAL_HEADS, TemporalHead, unit_norm
from ncl_jax.types import MAX_SCALE, Towers

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """Size of one transformer: `width` must be a multiple of `heads`."""

    width: int
    layers: int
    heads: int


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Sizes of the model; pixels and tokens are counts, `init_scale` is logits per cosine."""

    image_size: int
    patch_size: int
    vocab_size: int
    context_length: int
    max_frames: int
    embed_dim: int
    vision: TowerConfig
    text: TowerConfig
    temporal: str  # a key of TEMPORAL_HEADS
    temporal_layers: int
    temporal_heads: int
    init_scale: float

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size: expected a multiple of the patch size {self.patch_size}, "
                f"got {self.image_size}"
            )
        if self.temporal not in TEMPORAL_HEADS:
            choices = ", ".join(TEMPORAL_HEADS)
            raise ValueError(f"model.temporal: expected one of {choices}, got {self.temporal!r}")
        if not 0 < self.init_scale <= MAX_SCALE:
            raise ValueError(
                f"model.init_scale: expected a number in (0, 100], got {self.init_scale}"
            )


class TextEmbeddings(nnx.Module):
    """Token plus position embedding."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        width = config.text.width
        self.token_embedding = nnx.Embed(
            config.vocab_size, width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs
        )
        self.position_embedding = nnx.Embed(
            config.context_length, width, embedding_init=nnx.initializers.normal(0.01), rngs=rngs
        )

    def __call__(self, tokens: Int[Array, "text token"]) -> Float[Array, "text token width"]:
        positions = self.position_embedding(jnp.arange(tokens.shape[1]))
        return self.token_embedding(tokens) + positions


class TextModel(nnx.Module):
    """Causal transformer; the caption's vector is read at its end token."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        tower = config.text
        self.embeddings = TextEmbeddings(config, rngs=rngs)
        self.encoder = Encoder(tower.width, tower.layers, tower.heads, rngs=rngs)
        self.final_layer_norm = nnx.LayerNorm(tower.width, epsilon=1e-5, rngs=rngs)

    def __call__(
        self, tokens: Int[Array, "text token"], token_mask: Bool[Array, "text token"]
    ) -> Float[Array, "text width"]:
        length = tokens.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
        hidden = self.final_layer_norm(self.encoder(self.embeddings(tokens), causal))
        # The end token is the last real one: id 0 is also a word, so the mask decides.
        end = jnp.maximum(jnp.sum(token_mask, axis=1) - 1, 0)
        return jnp.take_along_axis(hidden, end[:, None, None], axis=1)[:, 0]


class VisionEmbeddings(nnx.Module):
    """Class token, patches and positions."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        width = config.vision.width
        patches = (config.image_size // config.patch_size) ** 2
        self.class_embedding = nnx.Param(
            width**-0.5 * jax.random.normal(rngs.params(), (width,))
        )
        self.patch_embedding = PatchEmbedding(config.patch_size, width, rngs=rngs)
        # Patch features start with entries of size 1: positions far below that are not seen.
        self.position_embedding = nnx.Embed(
            patches + 1, width, embedding_init=nnx.initializers.normal(0.5), rngs=rngs
        )

    def __call__(
        self, images: Float[Array, "image height width channel"]
    ) -> Float[Array, "image token dim"]:
        patches = self.patch_embedding(images)
        first = jnp.broadcast_to(self.class_embedding[...], (len(images), 1, patches.shape[-1]))
        tokens = jnp.concatenate([first, patches], axis=1)
        return tokens + self.position_embedding(jnp.arange(tokens.shape[1]))


class VisionModel(nnx.Module):
    """Vision transformer; the image's vector is read at the class token."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        tower = config.vision
        self.embeddings = VisionEmbeddings(config, rngs=rngs)
        self.pre_layrnorm = nnx.LayerNorm(tower.width, epsilon=1e-5, rngs=rngs)  # HF's spelling
        self.encoder = Encoder(tower.width, tower.layers, tower.heads, rngs=rngs)
        self.post_layernorm = nnx.LayerNorm(tower.width, epsilon=1e-5, rngs=rngs)

    def __call__(
        self, images: Float[Array, "image height width channel"]
    ) -> Float[Array, "image dim"]:
        hidden = self.encoder(self.pre_layrnorm(self.embeddings(images)), mask=None)
        return self.post_layernorm(hidden[:, 0])


class VideoClip(nnx.Module):
    """Two towers, a temporal head over frames, and a learned logit scale."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        self.config = config
        dim = config.embed_dim
        self.text_model = TextModel(config, rngs=rngs)
        self.vision_model = VisionModel(config, rngs=rngs)
        self.text_projection = _projection(config.text.width, dim, rngs)
        self.visual_projection = _projection(config.vision.width, dim, rngs)
        self.temporal: TemporalHead = TEMPORAL_HEADS[config.temporal](
            dim,
            max_frames=config.max_frames,
            layers=config.temporal_layers,
            heads=config.temporal_heads,
            rngs=rngs,
        )
        self.logit_scale = nnx.Param(jnp.asarray(math.log(config.init_scale), jnp.float32))

    def scale(self) -> Float[Array, ""]:
        """Logits per cosine, `exp(logit_scale)`; the optimizer keeps it at or below 100."""
        return jnp.exp(self.logit_scale[...])

    def encode_text(
        self, tokens: Int[Array, "text token"], token_mask: Bool[Array, "text token"]
    ) -> Float[Array, "text dim"]:
        """Unit-norm float32 embedding of each caption."""
        return unit_norm(self.text_projection(self.text_model(tokens, token_mask)))

    def encode_video(
        self,
        video: UInt8[Array, "video frame height width channel"],
        frame_mask: Bool[Array, "video frame"],
    ) -> Float[Array, "video dim"]:
        """Unit-norm float32 embedding of each clip; a clip needs at least one valid frame."""
        clips, frames = video.shape[:2]
        pixels = (video.astype(jnp.float32) / 255 - jnp.asarray(PIXEL_MEAN)) / jnp.asarray(
            PIXEL_STD
        )
        images = pixels.reshape(clips * frames, *video.shape[2:])
        features = self.visual_projection(self.vision_model(images))
        return self.temporal(features.reshape(clips, frames, -1), frame_mask)


def functional(model: VideoClip) -> tuple[Towers, Any]:
    """The model as pure functions of its parameters, and its present parameters (a dict)."""
    graph, params = nnx.split(model)

    def bind(params: Any) -> VideoClip:
        return nnx.merge(graph, nnx.State(params))

    towers = Towers(
        encode_text=lambda params, *inputs: bind(params).encode_text(*inputs),
        encode_video=lambda params, *inputs: bind(params).encode_video(*inputs),
        scale=lambda params: bind(params).scale(),
    )
    return towers, nnx.to_pure_dict(params)


def hf_name(path: tuple[str, ...]) -> str:
    """Name in Hugging Face's `CLIPModel` of the parameter at `path` of our tree.

    The temporal head has no counterpart there and keeps its own name.

    Example:
      >>> hf_name(("text_model", "encoder", "layers", "0", "mlp", "fc1", "kernel"))
      'text_model.encoder.layers.0.mlp.fc1.weight'
    """
    leaf = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(path[-1], path[-1])
    return ".".join((*path[:-1], leaf))


def _projection(width: int, dim: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(
        width, dim, use_bias=False, kernel_init=nnx.initializers.normal(width**-0.5), rngs=rngs
    )
