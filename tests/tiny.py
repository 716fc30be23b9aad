"""A tiny model and batches for it, shared by tests of the training road."""

import functools

import jax
import numpy as np
from flax import nnx

from ncl_jax.models import clip
from ncl_jax.types import Batch, Towers

SIZES = clip.ClipConfig(
    image_size=16,
    patch_size=8,
    vocab_size=50,
    context_length=8,
    max_frames=3,
    embed_dim=16,
    vision=clip.TowerConfig(width=16, layers=1, heads=2),
    text=clip.TowerConfig(width=16, layers=1, heads=2),
    temporal="seqTransf",
    temporal_layers=1,
    temporal_heads=2,
    init_scale=10.0,
)


def model(sizes: clip.ClipConfig = SIZES) -> clip.VideoClip:
    return clip.VideoClip(sizes, rngs=nnx.Rngs(0))


@functools.cache
def towers(sizes: clip.ClipConfig = SIZES) -> tuple[Towers, dict]:
    """Compiled as a whole, which is quicker than operation by operation."""
    plain, params = clip.functional(model(sizes))
    encoders = (jax.jit(x) for x in (plain.encode_text, plain.encode_video))
    return Towers(*encoders, plain.scale), params


def batch(seed: int, size: int, valid: int | None = None) -> Batch:
    """Random pixels and words; a few clips appear twice, the last rows may be padding."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, size)
    video_id = rng.integers(0, max(size - 2, 1), size).astype(np.int32)
    return Batch(
        video=rng.integers(0, 255, (size, 3, 16, 16, 3)).astype(np.uint8),
        frame_mask=np.arange(3) < rng.integers(1, 4, size)[:, None],
        tokens=rng.integers(0, 50, (size, 8)).astype(np.int32),
        token_mask=np.arange(8) < lengths[:, None],
        video_id=video_id,
        valid=np.arange(size) < (size if valid is None else valid),
    )


def leaves(tree) -> np.ndarray:
    """All numbers of a tree in one vector, for comparisons in norm."""
    return np.concatenate([np.ravel(np.asarray(x)) for x in jax.tree.leaves(tree)])
