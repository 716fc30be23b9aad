"""A finished run as encoders: the last checkpoint of a workdir, from words and frames to rows."""

import concurrent.futures
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from ncl_jax.data.clips import clip_frames
from ncl_jax.errors import InputError
from ncl_jax.experiment import build
from ncl_jax.experiment.restore import RestoredRun, restore

JPEG_QUALITY = 90
"""Of a dataset whose settings do not say."""


class StoredFrames(NamedTuple):
    """Frames per second, pixels of the shorter side, and quality (1 to 95) of stored frames."""

    fps: float
    short_side: int
    jpeg_quality: int


class Trained(NamedTuple):
    """A trained model; embeddings have unit norm.

    Attributes:
      encode_text: captions -> [text, dim].
      encode_video: JPEG frames of each clip -> [video, dim].
      frames: how the frames were stored that it was trained on.
      batch_size: clips at a time.
      fingerprint: differs between any two models.
    """

    encode_text: Callable[[Sequence[str]], Float[np.ndarray, "text dim"]]
    encode_video: Callable[[Sequence[Sequence[bytes]]], Float[np.ndarray, "video dim"]]
    frames: StoredFrames
    batch_size: int
    fingerprint: str


def load(workdir: epath.PathLike) -> Trained:
    """The model of the last checkpoint.

    Args:
      workdir: folder of a finished run.

    Returns:
      Encoders for captions and for JPEG frames, and how frames have to be stored for them.

    Raises:
      FileNotFoundError: there is no checkpoint in `workdir`.
      ValueError: it is damaged, or of another version.
    """
    run = restore(epath.Path(workdir))
    config, towers, params = run.config, run.towers, run.params
    if towers.score is not None:
        raise InputError(
            f"{workdir}: its head {config.model.temporal} scores pairs, so clips have no "
            "embeddings and cannot be searched; choose a run with another model.temporal"
        )
    encode_text, encode_video = jax.jit(towers.encode_text), jax.jit(towers.encode_video)
    shapes, view = build.build_shapes(config), build.build_view(config, "eval")

    def texts(captions: Sequence[str]) -> np.ndarray:
        return np.asarray(encode_text(params, *run.tokenizer(captions, config.data.max_tokens)))

    def look(jpegs: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        return clip_frames(jpegs, shapes, view, np.random.default_rng(config.seed))

    def videos(clips: Sequence[Sequence[bytes]]) -> np.ndarray:
        rows = []
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for first in range(0, len(clips), config.eval.batch_size):
                part = list(pool.map(look, clips[first : first + config.eval.batch_size]))
                batch = [_padded(np.stack(column)) for column in zip(*part, strict=True)]
                rows.append(np.asarray(encode_video(params, *batch))[: len(part)])
        return np.concatenate(rows)

    settings = config.data.settings
    quality = settings.get("jpeg_quality", JPEG_QUALITY)
    frames = StoredFrames(settings.fps, settings.short_side, quality)
    return Trained(texts, videos, frames, config.eval.batch_size, _fingerprint(run))


def _padded(rows: np.ndarray) -> np.ndarray:
    """Up to the next power of two: few shapes to compile, and one clip costs about one clip."""
    size = 1 << (len(rows) - 1).bit_length()
    return np.pad(rows, [(0, size - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


def _fingerprint(run: RestoredRun) -> str:
    digest = hashlib.sha256(json.dumps(run.config.to_dict(), sort_keys=True).encode())
    digest.update(run.tokenizer.to_json().encode())
    for leaf in jax.tree.leaves(run.params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
