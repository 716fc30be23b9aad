"""What a folder of published files offers: clips, their texts and splits, and what differs.

Each set has a reader of its own that returns a `Layout`; everything after that is common.
"""

import collections
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from etils import epath

from ncl_jax.errors import InputError
from ncl_jax.video import decode

# Names written out in messages and metadata; the counts are always complete.
NAMES_KEPT = 20


class Texts(NamedTuple):
    """The texts of one clip.

    Attributes:
      captions: each is one retrieval query.
      ids: of the captions.
      more: further features of the set (ActivityNet's sentences, say).
    """

    captions: list[str]
    ids: list[str]
    more: Mapping[str, Any] = {}


Split = dict[str, Texts]


class Known(NamedTuple):
    """Published size of a split."""

    clips: int
    captions: int


class Layout(NamedTuple):
    """What a folder offers.

    Attributes:
      videos: clip id -> file, for all video files that are there.
      splits: split -> clip id -> texts, for all clips that are listed and captioned.
      known: split -> published size; empty where there is none.
      uncaptioned: split -> listed clips without any caption; they are left out.
      notes: one sentence per difference from what was published.
      order_pairs: pairs of clips that show the same events in opposite order.
    """

    videos: dict[str, epath.Path]
    splits: dict[str, Split]
    known: Mapping[str, Known] = {}
    uncaptioned: Mapping[str, list[str]] = {}
    notes: tuple[str, ...] = ()
    order_pairs: tuple[list[str], ...] = ()


def numbered(clip: str, captions: list[str]) -> Texts:
    """Texts whose captions are numbered in the order of the file."""
    return Texts(captions, [f"{clip}#{n}" for n in range(len(captions))])


def find_videos(folder: epath.Path) -> dict[str, epath.Path]:
    """Maps file stem -> video file; of two containers of one stem the first by name counts."""
    files = sorted(folder.iterdir(), key=lambda file: file.name, reverse=True)
    found = (file for file in files if file.suffix.lower() in decode.SUFFIXES)
    # A name that is not UTF-8 can belong to no list, but it can be printed.
    return {file.stem.encode(errors="backslashreplace").decode(): file for file in found}


def listed_videos(found: Layout) -> dict[str, epath.Path]:
    """Clip id -> file, of the clips of any split whose file is there."""
    clips = (clip for split in found.splits.values() for clip in split)
    return {clip: found.videos[clip] for clip in clips if clip in found.videos}


def size_and_time(path: epath.Path) -> tuple[int, int]:
    """Bytes of a file and when it was changed (nanoseconds), zeros for a dangling link."""
    try:
        if "://" in os.fspath(path):
            remote = path.stat()
            return remote.length, int(remote.mtime) * 10**9
        local = os.stat(path)
    except OSError:
        return 0, 0
    return local.st_size, local.st_mtime_ns


def find_folder(folder: epath.Path, names: Iterable[str]) -> epath.Path | None:
    """The first of the sub-folders `names` that is there."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def require(folder: epath.Path, parts: Mapping[str, object], expected: str) -> None:
    """Raises unless every part was found.

    Raises:
      FileNotFoundError: names every part that is missing, then the expected tree.
    """
    missing = [name for name, part in parts.items() if not part]
    if missing:
        raise FileNotFoundError(f"{folder}: missing {'; '.join(missing)}\n{expected}")


def assemble(
    videos: dict[str, epath.Path],
    splits: dict[str, Split],
    expected: str,
    **rest: Any,
) -> Layout:
    """A layout, after the checks that every set needs.

    Raises:
      FileNotFoundError: none of the listed clips is there.
      ValueError: a clip belongs to two splits, or a split has no captioned clip.
    """
    clips = collections.Counter(clip for split in splits.values() for clip in split)
    twice = [clip for clip, count in clips.items() if count > 1]
    if twice:
        raise InputError(
            f"lists: expected every clip in one split, got {len(twice):,} in two, as {twice[0]!r}"
        )
    empty = [name for name, split in splits.items() if not split]
    if empty:
        raise InputError(f"split {empty[0]!r}: none of its listed clips has a caption")
    if not any(clip in videos for clip in clips):
        raise FileNotFoundError(
            f"videos: expected some of the {clips.total():,} listed clips, got {len(videos):,} "
            f"video files, none of them a listed clip\n{expected}"
        )
    layout = Layout(videos, splits, **rest)
    return layout._replace(notes=(*size_notes(layout), *layout.notes))


def size_notes(layout: Layout) -> list[str]:
    """One sentence per split whose size is not the published one."""
    notes = []
    for name, split in layout.splits.items():
        without = layout.uncaptioned.get(name, [])
        if without:
            listed = len(split) + len(without)
            notes.append(
                f"{name}: {len(without):,} of {listed:,} listed clips have no caption and are "
                f"left out: {some(without)}"
            )
        if name not in layout.known:
            continue
        counts = Known(len(split), sum(len(texts.captions) for texts in split.values()))
        for kind, got, known in zip(Known._fields, counts, layout.known[name], strict=True):
            if got != known:
                notes.append(
                    f"{name}: {got:,} {kind} in these files, {known:,} published ({got - known:+,})"
                )
    return notes


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
