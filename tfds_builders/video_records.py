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
from tfds_builders import layout

# PyAV, Pillow and NumPy release the interpreter lock, so threads keep the cores busy.
_WORKERS = 4

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def features(more: Mapping[str, Any]) -> tfds.features.FeaturesDict:
    """The schema of one clip; T frames, N captions; `more` are the features of one set only.

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
            "source_width": np.int32,
            "source_height": np.int32,
            **more,
        }
    )


def decoder_version() -> str:
    """The decoder and the codec library behind it, for the dataset's metadata."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {codec}"


def clip_records(
    clips: layout.Split,
    videos: Mapping[str, epath.Path],
    unreadable: dict[str, str],
    *,
    fps: float,
    short_side: int,
    jpeg_quality: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Decodes the clips that are there, in the order of `clips`.

    Args:
      clips: clip id -> its texts.
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
    clip: str, texts: layout.Texts, decoded: video.Clip, jpeg_quality: int
) -> dict[str, Any]:
    return {
        "video_id": clip,
        "frames": video.encode_jpeg(decoded.frames, jpeg_quality),
        "frame_times": decoded.times,
        "captions": texts.captions,
        "caption_ids": texts.ids,
        "source_fps": np.float32(decoded.source_fps),
        "source_width": np.int32(decoded.width),
        "source_height": np.int32(decoded.height),
        **texts.more,
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


def account(found: layout.Layout, split: str, unreadable: Mapping[str, str]) -> dict[str, Any]:
    """Counts what of a split is used and what is expected, and names what is not there.

    Returns:
      {'clips': {'used', 'expected'}, 'captions': {'used', 'expected'}, 'published': {'clips',
      'captions'} or {}, 'missing': {'count', 'first': [ids]}, 'uncaptioned': likewise,
      'unreadable': {'count', 'first': {id: reason}}}, ready for JSON. Expected is what these
      files list and caption; published is the known size of the set.
    """
    clips, videos = found.splits[split], found.videos
    missing = [clip for clip in clips if clip not in videos]
    used = [clip for clip in clips if clip in videos and clip not in unreadable]
    published = found.known.get(split)
    return {
        "clips": {"used": len(used), "expected": len(clips)},
        "captions": {
            "used": sum(len(clips[clip].captions) for clip in used),
            "expected": sum(len(texts.captions) for texts in clips.values()),
        },
        "published": published._asdict() if published else {},
        "missing": _counted(missing),
        "uncaptioned": _counted(found.uncaptioned.get(split, [])),
        "unreadable": {
            "count": len(unreadable),
            "first": dict(itertools.islice(unreadable.items(), layout.NAMES_KEPT)),
        },
    }


def _counted(clips: Sequence[str]) -> dict[str, Any]:
    return {"count": len(clips), "first": list(clips[: layout.NAMES_KEPT])}
