"""The files of ActivityNet Captions -> a `Layout` of paragraphs."""

from typing import Any

import numpy as np
from etils import epath

from ncl_jax.errors import InputError
from tfds_builders import layout, text_files

VIDEO_FOLDERS = ("videos", "Activity_Videos", "v1-3")
PREFIX = "v_"
_LONGEST = 1e6
"""Seconds of a video, and more."""
# Protocol -> the caption file of its test split.
TEST_FILES = {"paragraph": "val_1.json", "val_2": "val_2.json"}
KNOWN = {
    "paragraph": {"train": layout.Known(10_009, 10_009), "test": layout.Known(4_917, 4_917)},
    "val_2": {"train": layout.Known(10_009, 10_009), "test": layout.Known(4_885, 4_885)},
}


def read_layout(folder: epath.Path, protocol: str, expected: str) -> layout.Layout:
    """Reads captions, id lists and the names of the video files in `folder`.

    A clip is a whole video, its one caption all its sentences joined by a space.

    Args:
      folder: as `expected` shows.
      protocol: 'paragraph' (test is val_1) or 'val_2'.
      expected: the folder tree to show to whoever lacks a part of it.

    Raises:
      FileNotFoundError: naming every missing part, or saying that no listed clip is there.
      ValueError: a file has another form, or a clip belongs to two splits.
    """
    video_folder = layout.find_folder(folder, VIDEO_FOLDERS)
    names = {"train": "train.json", "test": TEST_FILES[protocol]}
    parts: dict[str, object] = {f"{VIDEO_FOLDERS[0]}/": video_folder}
    parts |= {name: (folder / name).exists() for name in names.values()}
    layout.require(folder, parts, expected)
    assert video_folder is not None
    splits, uncaptioned, notes = {}, {}, []
    for split, name in names.items():
        splits[split] = _read_split(folder / name)
        notes += _time_notes(split, splits[split])
        listed = _read_ids(folder, {"train": "train", "test": "val"}[split])
        uncaptioned[split] = [clip for clip in listed if clip not in splits[split]]
        unlisted = set(splits[split]) - set(listed)
        if listed and unlisted:
            notes.append(
                f"{split}: {len(unlisted):,} captioned clips are not in the id list and are used: "
                f"{layout.some(sorted(unlisted))}"
            )
    return layout.assemble(
        _find_videos(video_folder),
        splits,
        expected,
        known=KNOWN[protocol],
        uncaptioned=uncaptioned,
        notes=tuple(notes),
    )


def _find_videos(folder: epath.Path) -> dict[str, epath.Path]:
    """Files are named after the bare id, of 11 characters, or with the prefix."""
    return {
        stem if len(stem) > 11 and stem.startswith(PREFIX) else PREFIX + stem: path
        for stem, path in layout.find_videos(folder).items()
    }


def _read_split(path: epath.Path) -> layout.Split:
    content = text_files.read_json(path)
    try:
        return {clip: _texts(clip, item) for clip, item in content.items() if item["sentences"]}
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: expected id -> duration, timestamps and sentences: {error!r}"
        ) from error


def _texts(clip: str, item: dict[str, Any]) -> layout.Texts:
    sentences = [sentence.strip() for sentence in item["sentences"]]
    timestamps = np.asarray(item["timestamps"], np.float64).reshape(-1, 2)
    times = [float(item["duration"]), *timestamps.ravel()]
    if not all(0 <= time < _LONGEST for time in times):
        raise InputError(f"{clip}: expected a duration and timestamps in seconds, got {times[:5]}")
    if len(timestamps) != len(sentences):
        raise InputError(f"{clip} has {len(sentences)} sentences, {len(timestamps)} timestamps")
    more = {
        "duration": np.float32(item["duration"]),
        "sentences": sentences,
        "timestamps": timestamps.astype(np.float32),
    }
    return layout.Texts([" ".join(sentences)], [clip], more)


def _read_ids(folder: epath.Path, name: str) -> list[str]:
    """The optional id list; ids without captions are in it."""
    for path in sorted(folder.glob(f"{name}_ids*.json")):
        return [PREFIX + clip.removeprefix(PREFIX) for clip in text_files.read_list(path)]
    return []


def _time_notes(name: str, split: layout.Split) -> list[str]:
    spans = {clip: texts.more["timestamps"] for clip, texts in split.items()}
    backward = [clip for clip, times in spans.items() if (times[:, 0] >= times[:, 1]).any()]
    if not backward:
        return []
    return [
        f"{name}: {len(backward):,} clips have a segment that ends before it begins, kept as "
        f"published: {layout.some(backward)}"
    ]
