"""What the builders share: find the files, turn clips into records, account for every clip."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import av
import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from ncl_jax.data import video

_SUFFIXES = "3gp avi flv gif m4v mkv mov mp4 mpeg mpg ts webm wmv"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
# Names written out in the metadata; the counts are always complete.
_NAMES_KEPT = 20
# PyAV, Pillow and NumPy release the interpreter lock, so threads keep the cores busy.
_WORKERS = 4

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def features() -> tfds.features.FeaturesDict:
    """The schema of one clip; T frames, N captions.

    `frames` holds JPEG bytes as objects rather than `features.Video`: that reads and writes
    without TensorFlow, and a reader decodes only the frames it chooses.
    """
    text = tfds.features.Text
    return tfds.features.FeaturesDict(
        {
            "video_id": text(),
            "frames": tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.object_)),
            "frame_times": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "captions": tfds.features.Sequence(text()),
            "caption_ids": tfds.features.Sequence(text()),
            "source_fps": np.float32,
        }
    )


def decoder_version() -> str:
    """The decoder and the codec library behind it, for the dataset's metadata."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {codec}"


def find_videos(folder: epath.Path) -> dict[str, epath.Path]:
    """Maps file stem -> video file; of two containers of one stem the first by name counts."""
    files = sorted(folder.iterdir(), key=lambda file: file.name, reverse=True)
    return {file.stem: file for file in files if file.suffix.lower() in VIDEO_SUFFIXES}


def clip_records(
    clips: Mapping[str, Sequence[str]],
    videos: Mapping[str, epath.Path],
    unreadable: dict[str, str],
    *,
    fps: float,
    short_side: int,
    jpeg_quality: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Decodes the clips that are there, in the order of `clips`.

    Args:
      clips: clip id -> its captions.
      videos: clip id -> file; clips without a file are passed over.
      unreadable: filled on the way with clip id -> reason.
      fps: frames kept per second.
      short_side: pixels of the shorter side of the stored frames.
      jpeg_quality: 1 to 95.

    Yields:
      (clip id, record of `features`).
    """

    def read(clip: str) -> dict[str, Any] | video.VideoError:
        try:
            decoded = video.decode_frames(videos[clip], fps, short_side)
        except video.VideoError as error:
            return error
        return _record(clip, clips[clip], decoded, jpeg_quality)

    present = [clip for clip in clips if clip in videos]
    for clip, record in zip(present, ordered_map(read, present, _WORKERS), strict=True):
        if isinstance(record, video.VideoError):
            unreadable[clip] = str(record)
        else:
            yield clip, record


def _record(
    clip: str, captions: Sequence[str], decoded: video.Clip, jpeg_quality: int
) -> dict[str, Any]:
    return {
        "video_id": clip,
        "frames": video.encode_jpeg(decoded.frames, jpeg_quality),
        "frame_times": decoded.times,
        "captions": list(captions),
        "caption_ids": [f"{clip}#{n}" for n in range(len(captions))],
        "source_fps": np.float32(decoded.source_fps),
    }


def ordered_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """`map` on a thread pool: results in order, at most `2 * workers` of them in memory."""
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque(
            pool.submit(function, item) for item in itertools.islice(items, 2 * workers)
        )
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in itertools.islice(items, 1))


def account(
    clips: Mapping[str, Sequence[str]],
    videos: Mapping[str, epath.Path],
    unreadable: Mapping[str, str],
) -> dict[str, Any]:
    """Counts what of a split is used and what is expected, and names what is not there.

    Returns:
      {'clips': {'used', 'expected'}, 'captions': {'used', 'expected'}, 'missing': {'count',
      'first': [ids]}, 'unreadable': {'count', 'first': {id: reason}}}, ready for JSON.
    """
    missing = [clip for clip in clips if clip not in videos]
    used = [clip for clip in clips if clip in videos and clip not in unreadable]
    first = dict(itertools.islice(unreadable.items(), _NAMES_KEPT))
    return {
        "clips": {"used": len(used), "expected": len(clips)},
        "captions": {
            "used": sum(len(clips[clip]) for clip in used),
            "expected": sum(map(len, clips.values())),
        },
        "missing": {"count": len(missing), "first": missing[:_NAMES_KEPT]},
        "unreadable": {"count": len(unreadable), "first": first},
    }
