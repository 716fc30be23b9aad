"""A split of a prepared dataset: random access to its clips, and all its captions."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from jaxtyping import Int

from ncl_jax.data.frames import length_of
from ncl_jax.data.prefetch import Ahead, watched
from ncl_jax.errors import InputError, blame_input

BEFOREHAND = 64  # records read while the text of one is taken


@dataclasses.dataclass(frozen=True)
class Split:
    """Clips by number, every caption with the number of its clip, and how long each clip is."""

    records: Sequence[dict[str, Any]]
    video_ids: list[str]
    captions: list[str]
    video_of_text: Int[np.ndarray, " text"]
    seconds: list[float] = dataclasses.field(default_factory=list)

    def part(self, videos: Int[np.ndarray, " part"]) -> "Split":
        """These clips in this order, with their captions in the order of the split."""
        place = np.full(len(self.video_ids), -1)
        place[videos] = np.arange(len(videos))
        texts = np.flatnonzero(place[self.video_of_text] >= 0)
        return Split(
            _Chosen(self.records, videos),
            [self.video_ids[video] for video in videos],
            [self.captions[text] for text in texts],
            place[self.video_of_text[texts]].astype(np.int32),
        )

    def jpegs(self, video: int) -> Sequence[bytes]:
        """All stored frames of a clip.

        Raises:
          ValueError: the record is damaged.
        """
        return _read(self.records, video)["frames"]


@dataclasses.dataclass(frozen=True)
class _Chosen(Sequence[dict[str, Any]]):
    """Some of the records by new numbers; each is read when it is asked for."""

    records: Sequence[dict[str, Any]]
    numbers: Int[np.ndarray, " part"]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: Any) -> Any:
        return self.records[int(self.numbers[number])]


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """(clips to train on, clips held out), each with all of its captions.

    Which clips are held out depends on their ids, the share and the seed alone: neither on the
    order of the records nor on how many processes there are.

    Args:
      split: of the dataset.
      share: of its clips to hold out, in (0, 1), rounded to a number of clips.
      seed: of the draw.

    Raises:
      ValueError: one of the two would hold no clip.
    """
    clips = len(split.video_ids)
    count = round(share * clips)
    if not 0 < count < clips:
        raise InputError(
            f"data.bank_holdout={share:g}: expected a share that holds out at least one of the "
            f"{clips} training clips and leaves one, got {count}; give another share"
        )
    by_id = np.argsort(np.asarray(split.video_ids, dtype=object), kind="stable")
    held = np.zeros(clips, bool)
    held[by_id[np.random.default_rng(seed).permutation(clips)[:count]]] = True
    return split.part(np.flatnonzero(~held)), split.part(np.flatnonzero(held))


def load_split(directory: epath.PathLike, name: str, timeout: float | None = None) -> Split:
    """Open a split of the dataset prepared in `directory`; reads every record once for its text.

    Args:
      directory: from `tfds_builders.prepare`.
      name: of the split.
      timeout: seconds that a record may take to come; None waits for ever.

    Raises:
      TimeoutError: one took longer.
      ValueError: the split is not there or holds no clip, or a record is damaged or without
        captions or frames.
    """
    read = Ahead(_read_all(directory, name), BEFOREHAND)
    with contextlib.closing(read):
        given = watched(read, timeout, f"split {name!r} of {directory}")
        records = next(given)
        video_ids, captions, video_of_text, seconds = [], [], [], []
        for video, (video_id, texts, length) in enumerate(given):
            video_ids.append(video_id)
            captions += texts
            video_of_text += [video] * len(texts)
            seconds.append(length)
    return Split(records, video_ids, captions, np.asarray(video_of_text, np.int32), seconds)


def _read_all(directory: epath.PathLike, name: str) -> Iterator[Any]:
    """The records, then (video id, captions, seconds) of each."""
    builder = tfds.builder_from_directory(directory)
    if not builder.info.splits.get(name) or not builder.info.splits[name].num_examples:
        raise InputError(
            f"split {name!r}: {directory} has {sorted(builder.info.splits)}; "
            "choose one of these or prepare the missing clips"
        )
    records = builder.as_data_source(name)
    yield records
    for video in range(len(records)):
        record = _read(records, video, f" (of split {name!r} in {directory})")
        video_id = _text(record["video_id"])
        for part in ("frames", "captions"):
            if not len(record[part]):
                raise InputError(f"clip {video_id!r} in {directory}: it has no {part}")
        texts = [_text(caption) for caption in record["captions"]]
        yield video_id, texts, length_of(record.get("frame_times", ()))


def _read(records: Sequence[dict[str, Any]], number: int, where: str = "") -> dict[str, Any]:
    # array_record and protobuf raise what they like, but what a bug raises is no damage.
    advice = "delete the prepared dataset and build it again"
    with blame_input(f"record {number}{where} is damaged", advice):
        return records[number]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
