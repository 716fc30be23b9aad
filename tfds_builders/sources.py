"""What a dataset was made from, and whether the files there now are still that."""

import concurrent.futures
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from tfds_builders import layout

_THREADS = 8  # of hashing, which waits for disks


def describe(found: layout.Layout) -> dict[str, Any]:
    """What identifies the files of a set, for the dataset's metadata.

    Args:
      found: the files.

    Returns:
      {'texts': {split: SHA-256 of its clips, captions and ids}, 'order_pairs': SHA-256, 'videos':
      {clip: [name, bytes, nanoseconds of its change, SHA-256 of its content]}}, ready for JSON; of
      all listed clips whose file is there, readable or not.
    """
    videos = layout.listed_videos(found)
    stamps = {clip: _stamp(path) for clip, path in videos.items()}  # before anything is read
    digests = _digests(videos)
    return _texts(found) | {"videos": {c: [*stamps[c], digests[c]] for c in videos}}


def changes(then: Mapping[str, Any], found: layout.Layout, verify: bool = False) -> str:
    """What a dataset made from `then` lacks of the files there are now, in words; "" if nothing.

    Files that went away since do not count: a dataset is complete without its sources.

    Args:
      then: by `describe`.
      found: the files there are now.
      verify: whether the content of every file is read. Otherwise only that of files whose name or
        time is another one, which copying changes too.
    """
    if not then:
        return "what it was made from was not recorded"
    now, before = layout.listed_videos(found), then["videos"]
    seen = {clip: path for clip, path in now.items() if clip in before}
    other = _other(seen, before, verify)
    texts, differences = _texts(found), []
    for name, split in found.splits.items():
        here, there = (sum(clip in clips for clip in split) for clips in (now, before))
        if any(clip in now and clip not in before for clip in split):
            differences.append(f"{name}: {there:,} clips then, {here:,} now")
        if swapped := [clip for clip in split if clip in other]:
            first = now[swapped[0]].name
            differences.append(f"{name}: {len(swapped):,} other video files, as {first}")
        if texts["texts"][name] != then["texts"].get(name):
            differences.append(f"{name}: other captions")
    if texts["order_pairs"] != then["order_pairs"]:
        differences.append("other order pairs")
    return "; ".join(differences)


def _other(
    videos: Mapping[str, epath.Path], before: Mapping[str, Any], verify: bool
) -> set[str]:
    """Clips whose file is not the one there was."""
    stamps = {clip: _stamp(path) for clip, path in videos.items()}
    other = {clip for clip, (_, size, _) in stamps.items() if size != before[clip][1]}
    unsure = {
        clip: path
        for clip, path in videos.items()
        if clip not in other and (verify or stamps[clip] != before[clip][:3])
    }
    return other | {c for c, digest in _digests(unsure).items() if digest != before[c][3]}


def _texts(found: layout.Layout) -> dict[str, Any]:
    uncaptioned = {name: list(found.uncaptioned.get(name, ())) for name in found.splits}
    texts = {name: _digest([split, uncaptioned[name]]) for name, split in found.splits.items()}
    return {"texts": texts, "order_pairs": _digest(found.order_pairs)}


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=lambda value: np.asarray(value).tolist())
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: epath.Path) -> list[Any]:
    return [path.name.encode(errors="backslashreplace").decode(), *layout.size_and_time(path)]


def _digests(videos: Mapping[str, epath.Path]) -> dict[str, str]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(videos, pool.map(_content, videos.values()), strict=True))


def _content(path: epath.Path) -> str:
    """SHA-256 of a file; "" of what cannot be read, or is no file."""
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
