"""A split -> batches: (clip, caption) pairs for training, clips and captions for evaluation.

A training sample is one caption with its clip, chosen by its index, so an epoch shows every
caption once. The position in training is a single number, the count of samples seen by all
processes together: the order of samples, and whatever is random about one, is a function of the
seed and that count, and a run may go on from any position on any number of processes.
"""

import functools
from collections.abc import Sequence
from typing import TypeVar

import grain
import numpy as np
from grain.experimental import multithread_prefetch
from jaxtyping import Bool, Int, UInt8

from ncl_jax.data import order
from ncl_jax.data.clips import Shapes, View, clip_frames
from ncl_jax.data.prefetch import Ahead
from ncl_jax.data.records import Split
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.errors import InputError
from ncl_jax.types import Batch

T = TypeVar("T")
Rows = Int[np.ndarray, " batch"]
"""Numbers of items; -1 is padding."""


def train_batches(
    split: Split,
    tokenizer: Tokenizer,
    shapes: Shapes,
    view: View,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    distinct_clips: bool = False,
    threads: int = 4,
    cache_clips: int = 0,
) -> Ahead[Batch]:
    """Endless shuffled batches of this process's share.

    Args:
      split: what is shown.
      tokenizer: for its captions.
      shapes: in which form.
      view: which frames of a clip, and how.
      batch_size: pairs per batch over all processes, a multiple of `process_count`.
      seed: fixes the order of samples and their random views; every epoch has its own order.
      start: samples already seen by all processes together.
      process_index: which share of every batch is this process's.
      process_count: of how many.
      distinct_clips: no clip twice in a batch; `start` is then a multiple of `batch_size`.
      threads: decoding threads beside the one that makes batches, >= 0.
      cache_clips: decoded clips kept in memory, the least recently used go first.

    Returns:
      An iterator; a damaged record is a ValueError from `next`. Close it when done.
    """
    _check_divides(batch_size, process_count, "train.batch_size")
    if seed < 0:
        raise InputError(f"seed: expected a number >= 0, got {seed}")
    kept = 0 if view.is_random else cache_clips
    look = functools.lru_cache(maxsize=kept)(functools.partial(_look, split, shapes, view))
    tokens, token_mask = tokenizer(split.captions, shapes.max_tokens)

    def example(position: int, pair: int) -> Batch:
        video = int(split.video_of_text[pair])
        frames, frame_mask = look(video, (seed, position) if view.is_random else ())
        number, valid = np.asarray(video, np.int32), np.asarray(True)
        return Batch(frames, frame_mask, tokens[pair], token_mask[pair], number, valid)

    pairs = _pairs(split, batch_size, seed, distinct_clips)
    placed = pairs.map_with_index(lambda position, pair: (position, pair))
    mine = placed[start + process_index :: process_count].map(lambda sample: example(*sample))
    return Ahead(_batches(mine, batch_size // process_count, threads))


def text_batches(
    captions: Sequence[str],
    tokenizer: Tokenizer,
    length: int,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Ahead[tuple[Rows, Int[np.ndarray, "batch token"], Bool[np.ndarray, "batch token"]]]:
    """Numbers, tokens and token mask of the captions in each batch, see `evaluation_rows`."""
    batches = evaluation_rows(len(captions), batch_size, process_index, process_count)
    tokens, mask = tokenizer([*captions, ""], length)
    tokens[-1], mask[-1] = 0, False  # what row -1 shows
    return Ahead((rows, tokens[rows], mask[rows]) for rows in batches)


def video_batches(
    split: Split,
    shapes: Shapes,
    view: View,
    batch_size: int,
    *,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
) -> Ahead[tuple[Rows, UInt8[np.ndarray, "..."], Bool[np.ndarray, "batch frame"]]]:
    """Numbers, frames and frame mask of the clips in each batch, see `evaluation_rows`.

    Args:
      split: which clips.
      shapes: in which form.
      view: which frames of a clip, and how.
      batch_size: clips at a time over all processes, a multiple of `process_count`.
      seed: of a random view; a clip always looks the same under one seed.
      process_index: which share of every batch is this process's.
      process_count: of how many.
      threads: decoding threads.

    Returns:
      An iterator; padded rows have no valid frame, a damaged record is a ValueError from `next`.
      Close it when done.
    """
    rows = evaluation_rows(len(split.video_ids), batch_size, process_index, process_count)
    count, size = shapes.max_frames, shapes.image_size
    empty = np.zeros((count, size, size, 3), np.uint8), np.zeros(count, bool)

    def example(place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        video = int(rows.flat[place])
        shown = empty if video < 0 else _look(split, shapes, view, video, (seed, video))
        return np.asarray(video, np.int32), *shown

    clips = grain.MapDataset.range(rows.size).map(example)
    return Ahead(_batches(clips, rows.shape[1], threads))


def evaluation_rows(
    count: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Int[np.ndarray, "batches batch"]:
    """Which items a process holds in each evaluation batch; -1 is padding.

    All processes have the same number of batches. The rows of process 0, 1, ... side by side are
    the global batch, and the batches in a row are the items in order, each once, with padding at
    the very end.

    Args:
      count: items there are.
      batch_size: rows over all processes, a multiple of `process_count`.
      process_index: whose rows.
      process_count: of how many.

    Example:
      >>> evaluation_rows(5, 4, process_index=1, process_count=2).tolist()
      [[2, 3], [-1, -1]]
    """
    _check_divides(batch_size, process_count, "eval.batch_size")
    rows = np.arange(-(-count // batch_size) * batch_size, dtype=np.int32)
    rows[count:] = -1
    return rows.reshape(-1, process_count, batch_size // process_count)[:, process_index]


def _check_divides(batch_size: int, process_count: int, name: str) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise InputError(
            f"{name}: expected a multiple of the {process_count} processes, got {batch_size}"
        )


def _pairs(
    split: Split, batch_size: int, seed: int, distinct_clips: bool
) -> grain.MapDataset[int]:
    """The caption shown at each position, without end."""
    if not distinct_clips:
        return order.shuffled(len(split.captions), seed)
    distinct = order.DistinctClips(split.video_of_text, batch_size, seed)
    # A lambda, because grain copies whatever else it finds, once per thread.
    return grain.MapDataset.range(len(distinct)).map(lambda position: distinct[position])


def _look(
    split: Split, shapes: Shapes, view: View, video: int, seed: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    try:
        return clip_frames(split.jpegs(video), shapes, view, np.random.default_rng(seed))
    except InputError as error:
        raise InputError(f"clip {split.video_ids[video]!r}: {error}") from error


def _batches(
    examples: grain.MapDataset[T], batch_size: int, threads: int
) -> grain.IterDataset[T]:
    """Batches in order, decoded by `threads` threads; Pillow lets go of the interpreter lock.

    Threads work on examples, not on batches, which are large: two batches are in flight, one
    here and one in `Ahead`, however many threads there are. grain's usual pool of threads would
    keep a process from ending when a read hangs; these are daemons.
    """
    source = examples.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    ahead = max(1, batch_size // max(threads, 1))
    return multithread_prefetch(source, threads, buffer_size=ahead).batch(batch_size)

