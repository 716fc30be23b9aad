"""The towers of a checkpoint over any number of captions and clips, on the devices of this process.

Batches are padded to a few sizes, so that few programs are compiled; the next batch is prepared
while the devices work on the last one.
"""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
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
FRAMES = 64
"""Frames at a time for each device; clips of few frames do not pay for those of many."""
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
        towers, self._most = checkpoint.towers, checkpoint.preprocessing.shapes.max_frames
        self._encode_video = jax.jit(towers.encode_video)
        self._encode_frames, self._pool = (
            None if part is None else jax.jit(part) for part in (towers.encode_frames, towers.pool)
        )
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
        """One row per clip, from its frames: JPEGs or RGB pixels."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            looks = self._looks(clips, batch_size, pool)
            if self._encode_frames is None or self._pool is None:
                return self._rows_of(self._encode_video, self._whole(looks, batch_size), bar)
            counts = [min(len(clip), self._most) for clip in clips]
            chunks = _chunks((pixels for pixels, _ in looks), FRAMES * self._devices)
            features = self._rows_of(self._encode_frames, chunks, None)
            return self._rows_of(self._pool, self._pooled(features, counts, batch_size), bar)

    def _looks(
        self, clips: Sequence[Frames], batch_size: int, pool: concurrent.futures.Executor
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A batch of clips at a time: `map` decodes all that it is given at once."""
        for first in range(0, len(clips), batch_size):
            yield from pool.map(self._look, clips[first : first + batch_size])

    def _look(self, clip: Frames) -> tuple[np.ndarray, np.ndarray]:
        """The frames that the model sees, and their mask; without padding where it can be."""
        given = self._checkpoint.preprocessing
        length = self._most if self._pool is None else min(len(clip), self._most)
        shapes = dataclasses.replace(given.shapes, max_frames=length)
        return clip_frames(clip, shapes, given.view, np.random.default_rng(0))

    def _whole(
        self, looks: Iterable[tuple[np.ndarray, ...]], batch_size: int
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Batches of whole clips, for patches that span several frames."""
        looks = iter(looks)
        while part := list(itertools.islice(looks, batch_size)):
            yield tuple(np.stack(column) for column in zip(*part, strict=True))

    def _pooled(
        self, features: np.ndarray, counts: Sequence[int], batch_size: int
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Batches of the features of each clip's frames, with their mask."""
        mask = np.arange(self._most) < np.array(counts)[:, None]
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place = np.where(mask, first[:, None] + np.arange(self._most), 0)
        for start in range(0, len(counts), batch_size):
            part = slice(start, start + batch_size)
            yield features[place[part]], mask[part]

    def _rows_of(
        self,
        encode: Callable[..., Any],
        batches: Iterator[tuple[np.ndarray, ...]],
        bar: tqdm | None,
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


def _fetched(running: Any, count: int, bar: tqdm | None) -> np.ndarray:
    rows = np.asarray(running)[:count]
    if bar is not None:
        bar.update(count)
    return rows


def _chunks(clips: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray]]:
    """The frames of all clips in arrays of `size` frames; the last one may have fewer."""
    waiting, count = list[np.ndarray](), 0
    for frames in clips:
        waiting.append(frames)
        count += len(frames)
        while count >= size:
            joined = np.concatenate(waiting)
            yield (joined[:size],)
            waiting, count = [joined[size:]], count - size
    if count:
        yield (np.concatenate(waiting),)
