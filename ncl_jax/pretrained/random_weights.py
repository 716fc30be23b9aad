"""A small or full-size CLIP with random weights in the published layout: to try and to measure."""

import pathlib

from flax import nnx

from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.errors import check_choice
from ncl_jax.models import clip, convert

_SMALL = clip.TowerConfig(width=16, layers=1, heads=2)
ARCHITECTURES = {
    "tiny": (32, 16, 600, 16, _SMALL, _SMALL),
    "ViT-B/32": (224, 32, 49_408, 512, clip.TowerConfig(768, 12, 12), clip.TowerConfig(512, 12, 8)),
}
"""Image size, patch size, rows of the token table, width of the shared space, both towers."""
_CAPTIONS = ["a red ball moves left", "two blue cubes grow", "a dog runs on the beach"]


def write(
    folder: str | pathlib.Path, architecture: str = "tiny", temporal: str = "meanP", seed: int = 0
) -> str:
    """Writes model.safetensors, config.json and tokenizer.json; returns the folder.

    The tokenizer has bytes and a few words only; no weight was trained.

    Args:
      folder: created if missing.
      architecture: "tiny" or "ViT-B/32".
      temporal: head over frames.
      seed: of the weights.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     sorted(path.name for path in pathlib.Path(write(folder)).iterdir())
      ['config.json', 'model.safetensors', 'tokenizer.json']
    """
    check_choice("architecture", architecture, ARCHITECTURES)
    image, patch, vocabulary, dim, vision, text = ARCHITECTURES[architecture]
    sizes = clip.ClipConfig(
        image_size=image, patch_size=patch, vocab_size=vocabulary, context_length=77,
        max_frames=12, embed_dim=dim, vision=vision, text=text, temporal=temporal,
        temporal_layers=1, temporal_heads=text.heads, init_scale=100.0,
    )  # fmt: skip
    _, params = clip.functional(clip.VideoClip(sizes, rngs=nnx.Rngs(seed)))
    tokenizer = Tokenizer.train(_CAPTIONS, 600)
    convert.save(pathlib.Path(folder), convert.from_params(params), sizes, tokenizer.to_json())
    return str(folder)
