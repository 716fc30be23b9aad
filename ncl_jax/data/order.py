"""The order in which training shows its (clip, caption) pairs: a function of the seed alone."""

import functools
import sys

import grain
import numpy as np
from jaxtyping import Int

from ncl_jax.errors import InputError


def shuffled(pairs: int, seed: int) -> grain.MapDataset[int]:
    """Endless pair numbers: every epoch is another permutation of `range(pairs)`."""
    return grain.MapDataset.range(pairs).seed(seed).shuffle().repeat()


class DistinctClips:
    """Endless pair numbers in which no batch shows a clip twice.

    Every epoch is a permutation of all pairs, and batches go on over the edge of an epoch. Inside
    an epoch the pairs, ordered by clip, are dealt to the batches like cards, each round in a new
    order of batches; what would meet its own clip in the batch on the edge is swapped away.

    Args:
      video_of_text: the clip of each pair.
      batch_size: pairs in a batch over all processes.
      seed: fixes the order.

    Raises:
      ValueError: a clip has more captions than an epoch has whole batches.
    """

    def __init__(self, video_of_text: Int[np.ndarray, " text"], batch_size: int, seed: int):
        most = int(np.bincount(video_of_text).max())
        largest = (len(video_of_text) + 1) // (most + 1)
        if batch_size > largest:
            raise InputError(
                f"data.distinct_clips: expected train.batch_size of at most {largest}, because "
                f"{len(video_of_text):,} captions, up to {most} of one clip, make no larger "
                f"batches of different clips; got {batch_size}"
            )
        self._clip, self._size, self._seed = video_of_text, batch_size, seed
        self._epoch = functools.lru_cache(maxsize=2)(self._joined)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, len(self._clip))
        return int(self._epoch(epoch)[place])

    def _joined(self, epoch: int) -> Int[np.ndarray, " text"]:
        """The epoch as dealt, its first pairs made to fit the last ones of the epoch before."""
        order = self._dealt(epoch)
        head = -epoch * len(self._clip) % self._size
        if not head:
            return order
        met = set(self._clip[self._dealt(epoch - 1)[head - self._size :]])
        taken = met | set(self._clip[order[:head]])
        batches = head + np.arange((len(order) - head) // self._size) * self._size
        rng = np.random.default_rng([self._seed, epoch, 1])
        for place in range(head):
            clip = self._clip[order[place]]
            if clip in met:
                other = self._partner(order, clip, taken, rng.permutation(batches))
                order[[place, other]] = order[[other, place]]
                taken.add(self._clip[order[place]])
        return order

    def _partner(
        self, order: np.ndarray, clip: int, taken: set[int], batches: Int[np.ndarray, " batch"]
    ) -> int:
        """Place of a pair to swap with: its batch lacks `clip`, its own clip is not in `taken`.

        There is one: `clip` has a caption outside the whole batches, so one of them lacks it, and
        that one holds more clips than `taken`.
        """
        for first in batches:
            clips = self._clip[order[first : first + self._size]]
            if clip not in clips:
                return int(first + next(i for i, c in enumerate(clips) if c not in taken))
        raise AssertionError("a clip fills more batches than the constructor allows")

    def _dealt(self, epoch: int) -> Int[np.ndarray, " text"]:
        """Batches of different clips: the tail of the edge before, whole ones, the next edge."""
        rng = np.random.default_rng([self._seed, epoch, 0])
        count, size = len(self._clip), self._size
        head = -epoch * count % size
        whole, tail = divmod(count - head, size)
        room = np.array([head, *[size] * whole, tail])
        rank = rng.permutation(int(self._clip.max()) + 1)[self._clip]
        cards = np.lexsort((rng.random(count), rank))
        batch_of_card = _deal(rank[cards], room, rng)
        return cards[np.lexsort((rng.random(count), batch_of_card))]


def _deal(
    clip: Int[np.ndarray, " card"], room: Int[np.ndarray, " batch"], rng: np.random.Generator
) -> Int[np.ndarray, " card"]:
    """Batch of each card, `room` cards to a batch; cards of a clip are neighbours."""
    dealt = np.empty(len(clip), np.int64)
    done = 0
    for row in range(int(room.max())):
        open_batches = rng.permutation(np.flatnonzero(room > row))
        # A clip that began in the row before must not meet its batches again.
        before = dealt[np.searchsorted(clip[:done], clip[done]) : done] if row else dealt[:0]
        after = int(np.searchsorted(clip[done:], clip[done], side="right")) if len(before) else 0
        free = open_batches[~np.isin(open_batches, before)][:after]
        rest = open_batches[~np.isin(open_batches, free)]
        here = np.concatenate([free, rest])
        dealt[done : done + len(here)] = here
        done += len(here)
    return dealt
