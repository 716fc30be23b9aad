"""Prepared split -> `Batch`es: (clip, caption) pairs for training, clips and captions for
evaluation.

A training sample is one caption with its clip, chosen by its index, so an epoch shows every
caption once. The position in training is a single number, the count of samples seen by all
processes together: the order of samples is a function of the seed alone, and a run may go on from
any position on any number of processes.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from jaxtyping import Bool, Int, UInt8

from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.data.transforms import resize_and_crop
from ncl_jax.data.video import choose_frames, decode_jpeg
from ncl_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What one example looks like: frames and tokens are upper limits, `image_size` pixels."""

    max_frames: int
    image_size: int
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a prepared dataset: random access to its records, and all its captions."""

    records: Sequence[dict[str, Any]]
    video_ids: list[str]
    captions: list[str]
    video_of_text: Int[np.ndarray, " text"]


def load_split(directory: epath.PathLike, name: str) -> Split:
    """Open a split of the dataset prepared in `directory`; reads every record once for its text.

    Raises:
      ValueError: the split is not there or holds no clip.
    """
    builder = tfds.builder_from_directory(directory)
    if name not in builder.info.splits:
        raise ValueError(
            f"split {name!r}: {directory} has {sorted(builder.info.splits)}; "
            "choose one of these or prepare the missing clips"
        )
    records = builder.as_data_source(name)
    video_ids, captions, video_of_text = [], [], []
    for video, record in enumerate(records):
        video_ids.append(_text(record["video_id"]))
        captions += [_text(caption) for caption in record["captions"]]
        video_of_text += [video] * len(record["captions"])
    return Split(records, video_ids, captions, np.asarray(video_of_text, np.int32))


def train_batches(
    split: Split,
    tokenizer: Tokenizer,
    shapes: Shapes,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
    cache_clips: int = 0,
) -> Iterator[Batch]:
    """Endless shuffled batches of this process's share.

    Args:
      split: what is shown.
      tokenizer: for its captions.
      shapes: in which form.
      batch_size: pairs per batch over all processes, a multiple of `process_count`.
      seed: fixes the order of samples; every epoch has its own order.
      start: samples already seen by all processes together.
      process_index: which share of every batch is this process's.
      process_count: of how many.
      threads: decoding threads.
      cache_clips: decoded clips kept in memory, the least recently used go first.
    """

    @functools.lru_cache(maxsize=cache_clips)
    def frames_of(video: int) -> tuple[np.ndarray, np.ndarray]:
        return clip_frames(split.records[video]["frames"], shapes)

    tokens, token_mask = tokenizer(split.captions, shapes.max_tokens)

    def example(pair: int) -> Batch:
        video = int(split.video_of_text[pair])
        frames, frame_mask = frames_of(video)
        number, valid = np.asarray(video, np.int32), np.asarray(True)
        return Batch(frames, frame_mask, tokens[pair], token_mask[pair], number, valid)

    samples = grain.MapDataset.range(len(split.captions)).seed(seed).shuffle().repeat()
    mine = samples[start + process_index :: process_count]
    batches = mine.map(example).batch(batch_size // process_count)
    return iter(batches.to_iter_dataset(_read_options(threads)))


def text_batches(
    captions: Sequence[str], tokenizer: Tokenizer, length: int, batch_size: int
) -> Iterator[tuple[Int[np.ndarray, "batch token"], Bool[np.ndarray, "batch token"]]]:
    """Captions in order, each once, the last batch padded with empty rows."""
    tokens, mask = tokenizer(captions, length)
    for first in range(0, len(captions), batch_size):
        part = slice(first, first + batch_size)
        yield _pad(tokens[part], batch_size), _pad(mask[part], batch_size)


def video_batches(
    split: Split,
    shapes: Shapes,
    batch_size: int,
    *,
    shuffle_frames: int | None = None,
    threads: int = 4,
) -> Iterator[tuple[UInt8[np.ndarray, "..."], Bool[np.ndarray, "batch frame"]]]:
    """Clips in order, each once, the last batch padded with empty clips.

    Args:
      split: which clips.
      shapes: in which form.
      batch_size: how many at a time.
      shuffle_frames: seed of a random frame order per clip (the control that shows whether a
        model uses time); None keeps the order.
      threads: decoding threads.
    """

    def example(video: int) -> tuple[np.ndarray, np.ndarray]:
        order = None if shuffle_frames is None else np.random.default_rng([shuffle_frames, video])
        return clip_frames(split.records[video]["frames"], shapes, order)

    clips = grain.MapDataset.range(len(split.records)).map(example).batch(batch_size)
    for frames, mask in clips.to_iter_dataset(_read_options(threads)):
        yield _pad(frames, batch_size), _pad(mask, batch_size)


def clip_frames(
    jpegs: Sequence[bytes], shapes: Shapes, order: np.random.Generator | None = None
) -> tuple[UInt8[np.ndarray, "frame size size 3"], Bool[np.ndarray, " frame"]]:
    """Evenly spaced frames of one clip, decoded, cropped and zero-padded, with their mask.

    Only the chosen JPEGs are decoded. `order` permutes the chosen frames.
    """
    chosen = choose_frames(len(jpegs), shapes.max_frames)
    if order is not None:
        chosen = order.permutation(chosen)
    size = shapes.image_size
    frames = np.zeros((shapes.max_frames, size, size, 3), np.uint8)
    for place, index in enumerate(chosen):
        frames[place] = resize_and_crop(decode_jpeg(jpegs[index]), size)
    return frames, np.arange(shapes.max_frames) < len(chosen)


def _read_options(threads: int) -> grain.ReadOptions:
    """A batch per thread in flight: the buffer counts whole batches, and they are large."""
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2, threads))


def _pad(rows: np.ndarray, count: int) -> np.ndarray:
    return np.pad(rows, [(0, count - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
