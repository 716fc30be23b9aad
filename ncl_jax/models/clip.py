"""CLIP over video frames, in Flax NNX.

The parameter tree uses the names of Hugging Face's `CLIPModel`; `hf_name` defines the mapping
(Hugging Face calls `kernel`, `scale` and `embedding` all `weight`). Source of the architecture:
Radford et al. 2021 and `transformers` `CLIPModel`; heads over frames and 3d patches: CLIP4Clip (see
`temporal.py`). `weights.py` and `convert.py` read published weights.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from ncl_jax.errors import InputError, check_choice
from ncl_jax.models.layers import ACTIVATIONS, Encoder, PatchEmbedding, layer_norm
from ncl_jax.models.temporal import TEMPORAL_HEADS, TemporalHead, TightTransformer, unit_norm
from ncl_jax.types import MAX_SCALE, Towers

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


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
    patch_frames: int = 1  # frames per patch: 1, or 3 for CLIP4Clip's 3d patches
    activation: str = "quick_gelu"  # a key of ACTIVATIONS
    dtype: str = "float32"  # of the towers' matrix products: a key of DTYPES
    remat: bool = False  # recompute the activations inside blocks in the backward pass

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise InputError(
                f"image_size: expected a multiple of the patch size {self.patch_size}, "
                f"got {self.image_size}"
            )
        for name, choices in (
            ("temporal", TEMPORAL_HEADS), ("activation", ACTIVATIONS), ("dtype", DTYPES),
            ("patch_frames", (1, 3)),
        ):  # fmt: skip
            value = getattr(self, name)
            check_choice(f"model.{name}", value, choices)
        if not 0 < self.init_scale <= MAX_SCALE:
            raise InputError(
                f"model.init_scale: expected a number in (0, 100], got {self.init_scale}"
            )


class TextEmbeddings(nnx.Module):
    """Token plus position embedding."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        width, dtype = config.text.width, DTYPES[config.dtype]
        normal = nnx.initializers.normal
        self.token_embedding = nnx.Embed(
            config.vocab_size, width, embedding_init=normal(0.02), dtype=dtype, rngs=rngs
        )
        self.position_embedding = nnx.Embed(
            config.context_length, width, embedding_init=normal(0.01), dtype=dtype, rngs=rngs
        )

    def __call__(self, tokens: Int[Array, "text token"]) -> Float[Array, "text token width"]:
        length, limit = tokens.shape[1], self.position_embedding.num_embeddings
        if length > limit:
            raise InputError(
                f"expected captions of at most {limit} tokens, as many as the model has positions, "
                f"got {length}; shorten them"
            )
        return self.token_embedding(tokens) + self.position_embedding(jnp.arange(length))


class TextModel(nnx.Module):
    """Causal transformer; the output at the end token represents the caption."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        self.embeddings = TextEmbeddings(config, rngs=rngs)
        self.encoder = _encoder(config, config.text, rngs)
        self.final_layer_norm = layer_norm(config.text.width, DTYPES[config.dtype], rngs)

    def __call__(
        self, tokens: Int[Array, "text token"], token_mask: Bool[Array, "text token"]
    ) -> Float[Array, "text width"]:
        length = tokens.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
        hidden = self.encoder(self.embeddings(tokens), causal)
        # The end token is the last unmasked one. Ids cannot mark padding: id 0 is also a word.
        end = jnp.maximum(jnp.sum(token_mask, axis=1) - 1, 0)
        return self.final_layer_norm(jnp.take_along_axis(hidden, end[:, None, None], axis=1)[:, 0])


class VisionEmbeddings(nnx.Module):
    """Class token, patches and positions."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        width, dtype = config.vision.width, DTYPES[config.dtype]
        patches = (config.image_size // config.patch_size) ** 2
        self.class_embedding = nnx.Param(
            width**-0.5 * jax.random.normal(rngs.params(), (width,))
        )
        self.patch_embedding = PatchEmbedding(
            config.patch_size, width, frames=config.patch_frames, dtype=dtype, rngs=rngs
        )
        # Patch features start with entries of size 1; much smaller positions would have no effect.
        normal = nnx.initializers.normal(0.5)
        self.position_embedding = nnx.Embed(
            patches + 1, width, embedding_init=normal, dtype=dtype, rngs=rngs
        )

    def __call__(
        self, video: Float[Array, "*clip frame height width channel"]
    ) -> Float[Array, "image token dim"]:
        patches = self.patch_embedding(video)
        patches = patches.reshape(-1, *patches.shape[-2:])
        first = self.class_embedding[...].astype(patches.dtype)
        first = jnp.broadcast_to(first, (patches.shape[0], 1, patches.shape[-1]))
        tokens = jnp.concatenate([first, patches], axis=1)
        return tokens + self.position_embedding(jnp.arange(tokens.shape[1]))


class VisionModel(nnx.Module):
    """Vision transformer; the output at the class token represents the image."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        width, dtype = config.vision.width, DTYPES[config.dtype]
        self.embeddings = VisionEmbeddings(config, rngs=rngs)
        self.pre_layrnorm = layer_norm(width, dtype, rngs)  # HF's spelling
        self.encoder = _encoder(config, config.vision, rngs)
        self.post_layernorm = layer_norm(width, dtype, rngs)

    def __call__(
        self, video: Float[Array, "*clip frame height width channel"]
    ) -> Float[Array, "image dim"]:
        hidden = self.encoder(self.pre_layrnorm(self.embeddings(video)), mask=None)
        return self.post_layernorm(hidden[:, 0])


class VideoClip(nnx.Module):
    """Two towers, a head over frames, and a learned logit scale.

    Example:
      >>> import numpy as np
      >>> small = TowerConfig(width=8, layers=1, heads=2)
      >>> model = VideoClip(
      ...     ClipConfig(16, 8, 50, 6, 2, 4, small, small, "meanP", 0, 1, 10.0), rngs=nnx.Rngs(0)
      ... )
      >>> video = np.zeros((3, 2, 16, 16, 3), np.uint8)
      >>> model.encode_video(video, np.ones((3, 2), bool)).shape
      (3, 4)
    """

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        self.config = config
        dim = config.embed_dim
        self.text_model = TextModel(config, rngs=rngs)
        self.vision_model = VisionModel(config, rngs=rngs)
        self.text_projection = _projection(config, config.text.width, rngs)
        self.visual_projection = _projection(config, config.vision.width, rngs)
        self.temporal: TemporalHead = TEMPORAL_HEADS[config.temporal](
            dim,
            max_frames=config.max_frames,
            layers=config.temporal_layers,
            heads=config.temporal_heads,
            activation=config.activation,
            rngs=rngs,
        )
        self.logit_scale = nnx.Param(jnp.asarray(math.log(config.init_scale), jnp.float32))

    def text_features(
        self, tokens: Int[Array, "text token"], token_mask: Bool[Array, "text token"]
    ) -> Float[Array, "text dim"]:
        """Projected captions, float32, of any norm: `CLIPModel.get_text_features`."""
        return self.text_projection(self.text_model(tokens, token_mask)).astype(jnp.float32)

    def frame_features(
        self, video: Float[Array, "*clip frame height width channel"]
    ) -> Float[Array, "image dim"]:
        """Projected frames, float32, of any norm, from normalised pixels:
        `CLIPModel.get_image_features`.
        """
        return self.visual_projection(self.vision_model(video)).astype(jnp.float32)

    def encode_text(
        self, tokens: Int[Array, "text token"], token_mask: Bool[Array, "text token"]
    ) -> Float[Array, "text dim"]:
        """Unit-norm float32 embedding of each caption (of any norm for `tightTransf`)."""
        features = self.text_features(tokens, token_mask)
        return features if isinstance(self.temporal, TightTransformer) else unit_norm(features)

    def encode_video(
        self,
        video: UInt8[Array, "video frame height width channel"],
        frame_mask: Bool[Array, "video frame"],
    ) -> Float[Array, "video dim"]:
        """Unit-norm float32 embedding of each clip; every clip needs at least one valid frame.

        For `tightTransf` the result is [video, frame, dim + 1]: features and mask of every frame.
        """
        pixels = _normalised(video)
        # Padded frames become zero after normalisation: 3d patches read neighbouring frames.
        pixels = jnp.where(frame_mask[:, :, None, None, None], pixels, 0.0)
        features = self.frame_features(pixels)
        return self.temporal(features.reshape(*video.shape[:2], -1), frame_mask)

    def encode_frames(
        self, frames: UInt8[Array, "frame height width channel"]
    ) -> Float[Array, "frame dim"]:
        """Features of single frames, for `pool`."""
        return self.frame_features(_normalised(frames)[:, None])

    def pool(
        self, frames: Float[Array, "video frame dim"], frame_mask: Bool[Array, "video frame"]
    ) -> Float[Array, "video dim"]:
        """`encode_video` from the features of its frames; what masked ones hold has no effect."""
        return self.temporal(frames, frame_mask)

    def scale(self) -> Float[Array, ""]:
        """Logits per cosine, `exp(logit_scale)`; the optimizer keeps it at or below 100.

        It is 1 for `tightTransf`, whose scores are logits.
        """
        if isinstance(self.temporal, TightTransformer):
            return jnp.ones(())
        return jnp.exp(self.logit_scale[...])


def functional(model: VideoClip) -> tuple[Towers, Any]:
    """The model as pure functions of its parameters, and its current parameters (a dict)."""
    graph, params = nnx.split(model)

    def bind(params: Any) -> VideoClip:
        return nnx.merge(graph, nnx.State(params))

    def score(params: Any, *pair: Array) -> Array:
        head = bind(params).temporal
        assert isinstance(head, TightTransformer)
        return head.score(*pair)

    joint = isinstance(model.temporal, TightTransformer)
    single = model.config.patch_frames == 1
    towers = Towers(
        encode_text=lambda params, *inputs: bind(params).encode_text(*inputs),
        encode_video=lambda params, *inputs: bind(params).encode_video(*inputs),
        scale=lambda params: bind(params).scale(),
        score=score if joint else None,
        encode_frames=(lambda params, frames: bind(params).encode_frames(frames))
        if single else None,
        pool=(lambda params, *frames: bind(params).pool(*frames)) if single else None,
    )  # fmt: skip
    return towers, nnx.to_pure_dict(params)


def abstract(config: ClipConfig) -> tuple[Towers, Any]:
    """`functional` of a model with shapes and types only: no weights are initialized."""
    return functional(nnx.eval_shape(lambda: VideoClip(config, rngs=nnx.Rngs(0))))


def _normalised(pixels: UInt8[Array, "*batch channel"]) -> Float[Array, "*batch channel"]:
    return (pixels.astype(jnp.float32) / 255 - jnp.asarray(PIXEL_MEAN)) / jnp.asarray(PIXEL_STD)


def hf_name(path: tuple[str, ...]) -> str:
    """Name in Hugging Face's `CLIPModel` of the parameter at `path` in our tree.

    `CLIPModel` has no temporal head; parameters of that head keep our names.

    Example:
      >>> hf_name(("text_model", "encoder", "layers", "0", "mlp", "fc1", "kernel"))
      'text_model.encoder.layers.0.mlp.fc1.weight'
    """
    leaf = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(path[-1], path[-1])
    return ".".join((*path[:-1], leaf))


def _encoder(config: ClipConfig, tower: TowerConfig, rngs: nnx.Rngs) -> Encoder:
    return Encoder(
        tower.width,
        tower.layers,
        tower.heads,
        activation=config.activation,
        dtype=DTYPES[config.dtype],
        remat=config.remat,
        rngs=rngs,
    )


def _projection(config: ClipConfig, width: int, rngs: nnx.Rngs) -> nnx.Linear:
    init = nnx.initializers.normal(width**-0.5)
    return nnx.Linear(
        width, config.embed_dim, use_bias=False, kernel_init=init, dtype=DTYPES[config.dtype],
        rngs=rngs,
    )  # fmt: skip
