"""The towers of a checkpoint over any number of captions and clips, on the devices of this process.

Batches are padded to a few sizes, so that few programs are compiled; the next batch is prepared
while the devices work on the last one.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, UInt8
from tqdm import tqdm

from ncl_jax.data.clips import clip_frames
from ncl_jax.distributed.sharding import AXIS, data_mesh
from ncl_jax.pretrained.checkpoint import Checkpoint

SHORT = 32
"""Tokens that most captions need; longer ones are read by a program of their own."""
LENGTHS = 3
"""Programs for clips of different numbers of frames, at most."""
Frames = Sequence[bytes] | UInt8[np.ndarray, "frame height width 3"]


class Encoders:
    """Captions and clips to unit-norm rows; safe to call from several threads."""

    def __init__(self, checkpoint: Checkpoint):
        """Places the parameters on every device of this process."""
        mesh = data_mesh(jax.local_devices())
        self._devices = mesh.size
        self._rows = NamedSharding(mesh, PartitionSpec(AXIS))
        self.params = jax.device_put(checkpoint.params, NamedSharding(mesh, PartitionSpec()))
        self._encode_text = jax.jit(checkpoint.towers.encode_text)
        self._encode_video = jax.jit(checkpoint.towers.encode_video)
        self._checkpoint = checkpoint

    def captions(
        self, captions: Sequence[str], batch_size: int, bar: tqdm
    ) -> Float[np.ndarray, "text dim"]:
        """One row per caption."""
        most = self._checkpoint.preprocessing.shapes.max_tokens

        def batches() -> Iterator[tuple[np.ndarray, ...]]:
            for first in range(0, len(captions), batch_size):
                part = captions[first : first + batch_size]
                tokens, mask = self._checkpoint.tokenizer(part, most)
                length = most if mask[:, SHORT:].any() else min(SHORT, most)
                yield tokens[:, :length], mask[:, :length]

        return self._rows_of(self._encode_text, batches(), bar)

    def clips(
        self, clips: Sequence[Frames], batch_size: int, bar: tqdm
    ) -> Float[np.ndarray, "video dim"]:
        """One row per clip, from its frames: JPEGs or RGB pixels.

        Clips of few frames go together, so that they do not pay for those of many.
        """
        most = self._checkpoint.preprocessing.shapes.max_frames
        step = -(-most // LENGTHS)
        lengths = np.array([min(most, -(-len(clip) // step) * step) for clip in clips])
        rows = np.zeros((len(clips), self._checkpoint.sizes.embed_dim), np.float32)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for length in np.unique(lengths).tolist():
                those = np.flatnonzero(lengths == length).tolist()
                batches = self._clip_batches([clips[i] for i in those], length, batch_size, pool)
                rows[those] = self._rows_of(self._encode_video, batches, bar)
        return rows

    def _clip_batches(
        self,
        clips: Sequence[Frames],
        length: int,
        batch_size: int,
        pool: concurrent.futures.Executor,
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Pixels and masks of clips that have at most `length` frames to be seen."""
        given = self._checkpoint.preprocessing
        shapes = dataclasses.replace(given.shapes, max_frames=length)

        def look(clip: Frames) -> tuple[np.ndarray, np.ndarray]:
            return clip_frames(clip, shapes, given.view, np.random.default_rng(0))

        for first in range(0, len(clips), batch_size):
            part = pool.map(look, clips[first : first + batch_size])
            yield tuple(np.stack(column) for column in zip(*part, strict=True))

    def _rows_of(
        self, encode: Callable[..., Any], batches: Iterator[tuple[np.ndarray, ...]], bar: tqdm
    ) -> np.ndarray:
        rows: list[np.ndarray] = []
        waiting: tuple[Any, int] | None = None
        for batch in batches:
            count = len(batch[0])
            placed = jax.device_put(tuple(map(self._padded, batch)), self._rows)
            running = encode(self.params, *placed), count
            if waiting is not None:
                rows.append(_fetched(*waiting, bar))
            waiting = running
        assert waiting is not None, "no batch to encode"
        return np.concatenate([*rows, _fetched(*waiting, bar)])

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        """Up to a power of two for each device: one clip costs about one clip."""
        each = -(-len(rows) // self._devices)
        size = self._devices * (1 << (each - 1).bit_length())
        return np.pad(rows, [(0, size - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


def _fetched(running: Any, count: int, bar: tqdm) -> np.ndarray:
    rows = np.asarray(running)[:count]
    bar.update(count)
    return rows
