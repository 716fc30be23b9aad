"""What the normalisers of a test split are fitted on: the queries of either direction, by name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ncl_jax import metrics, normalizers
from ncl_jax.errors import InputError
from ncl_jax.evaluation.embeddings import Embedded

TRAIN = "train"


class SideBank(NamedTuple):
    """The banks of one direction.

    Attributes:
      pairs: queries with their items, on which `auto` tries what it may choose from.
      queries: [bank, dim] of each bank by name; None for the queries of `pairs`.
    """

    pairs: normalizers.Bank
    queries: dict[str, np.ndarray | None]

    def of(self, name: str) -> np.ndarray:
        """The queries of a bank [bank, dim]."""
        found = self.queries[name]
        return self.pairs.query if found is None else found


class Banks(NamedTuple):
    """Of both directions: texts that look for videos, and videos that look for texts."""

    text: SideBank
    video: SideBank


def make_banks(
    splits: Mapping[str, Embedded],
    tried_on: str,
    names: Sequence[str],
    texts: Mapping[str, np.ndarray] | None = None,
) -> Banks:
    """The banks that `names` says, tried on the pairs of one split.

    Args:
      splits: captions with their clips by name.
      tried_on: the one whose pairs `auto` goes by.
      names: of `splits`, the banks.
      texts: captions without clips by name, [text, dim]. They take the place of `names` from text
        to video; from video to text, `auto` then goes by the first of `names` itself.

    Raises:
      ValueError: a name that is not there, or a clip that does not count exactly once.

    Example:
      >>> split = Embedded(np.eye(2), np.eye(2), np.arange(2), ["a", "b"])
      >>> banks = make_banks({"train": split}, "train", ["train"])
      >>> banks.text.of("train").shape, banks.video.queries
      ((2, 2), {'train': None})
    """
    if missing := [name for name in (tried_on, *names) if name not in splits]:
        raise InputError(f"bank {missing[0]!r}: expected one of {', '.join(splits)}")
    for split in splits.values():
        metrics.check_ids(split.video_ids, sorted(set(split.video_ids)))
    clips = names[0] if texts else tried_on
    by_text = {n: None if n == tried_on else splits[n].text for n in names}
    by_video = {n: None if n == clips else splits[n].video for n in names}
    return Banks(
        SideBank(_text_pairs(splits[tried_on]), dict(texts) if texts else by_text),
        SideBank(_video_pairs(splits[clips]), by_video),
    )


def bank_of(split: Embedded, name: str = TRAIN) -> Banks:
    """One split as the only bank, tried on itself."""
    return make_banks({name: split}, name, [name])


def _text_pairs(split: Embedded) -> normalizers.Bank:
    ids = np.arange(len(split.video))
    return normalizers.Bank(split.text, split.video, split.video_of_text, ids)


def _video_pairs(split: Embedded) -> normalizers.Bank:
    ids = np.arange(len(split.video))
    return normalizers.Bank(split.video, split.text, ids, split.video_of_text)
