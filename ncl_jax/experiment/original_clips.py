"""The test clips of a finished run, as its dataset has them: video files, captions, frames.

The files are those that the dataset was built from; where they are gone, stored frames are left.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

import tfds_builders
from ncl_jax.data.records import Split, load_split
from ncl_jax.errors import InputError
from ncl_jax.experiment.finished import read_results


class OriginalClip(NamedTuple):
    """One test clip.

    Attributes:
      file: its video file, absolute; None where that is gone or another one now.
      captions: its test captions; none where they are not known.
      seconds: its length; 0.0 where that is not known.
    """

    file: pathlib.Path | None
    captions: list[str]
    seconds: float


class OriginalClips(NamedTuple):
    """The test clips of a run.

    Attributes:
      clips: by id, in the order asked for.
      folder: where the video files belong.
      stored: the test split with its stored frames, or None where the dataset is gone.
    """

    clips: dict[str, OriginalClip]
    folder: pathlib.Path
    stored: Split | None

    def frame(self, clip: str) -> bytes | None:
        """The middle stored frame of a clip as JPEG; None where there is none.

        Raises:
          ValueError: the record is damaged.
        """
        if self.stored is None or clip not in self.stored.video_ids:
            return None
        frames = self.stored.jpegs(self.stored.video_ids.index(clip))
        return frames[len(frames) // 2] if len(frames) else None


def original_clips(workdir: str | os.PathLike[str], ids: Sequence[str]) -> OriginalClips:
    """What is known of the test clips `ids` of a finished run.

    Raises:
      ValueError: the run has not finished, or its results are damaged.
    """
    results = read_results(epath.Path(workdir))
    data, name = results["config"]["data"], results["config"]["data"]["test_split"]
    stored = _stored(results["data"]["directory"], name)
    sizes = {} if stored is None else _sizes(results["data"]["directory"])
    found = _layout(data)
    texts: dict[str, list[str]] = {}
    if stored is not None:
        for caption, video in zip(stored.captions, stored.video_of_text, strict=True):
            texts.setdefault(stored.video_ids[video], []).append(caption)
    elif found is not None:
        texts = {clip: known.captions for clip, known in found.splits[name].items()}
    seconds = {} if stored is None else dict(zip(stored.video_ids, stored.seconds, strict=True))
    videos = {} if found is None else found.videos
    return OriginalClips(
        {
            clip: OriginalClip(
                _local_file(videos.get(clip), sizes.get(clip)), texts.get(clip, []),
                seconds.get(clip, 0.0),
            )
            for clip in ids
        },
        pathlib.Path(os.path.abspath(os.path.join(data["manual_dir"], _set_of(data)))),
        stored,
    )  # fmt: skip


def _set_of(data: dict[str, Any]) -> str:
    """The name of the dataset's folder below `manual_dir`."""
    return str(data["builder"]).partition("/")[0]


def _stored(directory: str, split: str) -> Split | None:
    """The split, or None where the dataset is gone or cannot be read."""
    if not epath.Path(directory).exists():
        return None
    try:
        return load_split(directory, split)
    except (InputError, OSError):
        return None


def _sizes(directory: str) -> dict[str, int]:
    """Bytes of the file that each clip was decoded from."""
    known = tfds_builders.read_metadata(directory).get("sources", {}).get("videos", {})
    return {clip: int(size) for clip, (_, size, *_) in known.items()}


def _layout(data: dict[str, Any]) -> Any:
    """The files as published, or None where they are gone or cannot be read."""
    try:
        return tfds_builders.read_layout(data["builder"], data["manual_dir"], **data["settings"])
    except (InputError, OSError):
        return None


def _local_file(path: os.PathLike[str] | None, size: int | None) -> pathlib.Path | None:
    """The file, where it lies on this machine and has the size that was decoded."""
    if path is None or "://" in os.fspath(path):
        return None
    file = pathlib.Path(os.path.abspath(path))
    try:
        return file if size in (None, file.stat().st_size) else None
    except OSError:
        return None
