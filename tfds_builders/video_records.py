"""What the builders share: find the files, turn clips into records, account for every clip."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import av
import numpy as np
import tensorflow_datasets as tfds

from ncl_jax.video import decode
from tfds_builders import layout

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
    """The rules of decoding and the libraries behind them, for the dataset's metadata."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {codec}, frames by rules {decode.VERSION}"


def record(clip: str, texts: layout.Texts, decoded: decode.Clip) -> dict[str, Any]:
    """One example of `features`, from JPEG frames."""
    return {
        "video_id": clip,
        "frames": decoded.frames,
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


def account(
    found: layout.Layout,
    split: str,
    unreadable: Mapping[str, str],
    remarks: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Counts what of a split is used and what is expected, and names what is not there.

    Args:
      found: the files.
      split: one of theirs.
      unreadable: clip id -> reason.
      remarks: clip id -> what of its file was ignored, set right or left out (`video.Clip`).

    Returns:
      {'clips': {'used', 'expected'}, 'captions': {'used', 'expected'}, 'published': {'clips',
      'captions'} or {}, 'missing': {'count', 'first': [ids]}, 'uncaptioned': likewise,
      'unreadable': {'count', 'first': {id: reason}}, 'remarks': likewise, of clips that are used,
      'bytes'}, ready for JSON. Expected is what
      these files list and caption; published is the known size of the set; bytes are those of
      the video files that are there.
    """
    clips, videos = found.splits[split], found.videos
    missing = [clip for clip in clips if clip not in videos]
    bad = {clip: reason for clip, reason in unreadable.items() if clip in clips}
    used = [clip for clip in clips if clip in videos and clip not in bad]
    published = found.known.get(split)
    remarked = {clip: "; ".join(remarks[clip]) for clip in used if remarks.get(clip)}
    return {
        "clips": {"used": len(used), "expected": len(clips)},
        "captions": {
            "used": sum(len(clips[clip].captions) for clip in used),
            "expected": sum(len(texts.captions) for texts in clips.values()),
        },
        "published": published._asdict() if published else {},
        "missing": _counted(missing),
        "uncaptioned": _counted(found.uncaptioned.get(split, [])),
        "unreadable": _explained(bad),
        "remarks": _explained(remarked),
        "bytes": sum(layout.size_and_time(videos[clip])[0] for clip in clips if clip in videos),
    }


def _explained(clips: Mapping[str, str]) -> dict[str, Any]:
    return {
        "count": len(clips),
        "first": dict(itertools.islice(clips.items(), layout.NAMES_KEPT)),
    }


def _counted(clips: Sequence[str]) -> dict[str, Any]:
    return {"count": len(clips), "first": list(clips[: layout.NAMES_KEPT])}
