"""The files of MSR-VTT in the forms that circulate -> a `Layout`."""

import collections
import re
from typing import Any

from etils import epath

from ncl_jax.errors import InputError
from tfds_builders import layout, text_files

VIDEO_FOLDERS = ("videos", "videos/all", "MSRVTT_Videos", "all", "TrainValVideo", "TestVideo")
WHOLE = (
    "MSRVTT_data.json",
    "MSR_VTT.json",
    "annotation/MSR_VTT.json",
    "videodatainfo_2016.json",
)
PARTS = ("train_val_videodatainfo.json", "test_videodatainfo.json")
TEST_1KA = "MSRVTT_JSFUSION_test.csv"
CAPTIONS_PER_CLIP = 20

KNOWN = {
    "9k": {"train": layout.Known(9_000, 180_000), "test": layout.Known(1_000, 1_000)},
    "7k": {"train": layout.Known(7_010, 140_200), "test": layout.Known(1_000, 1_000)},
    "full": {
        "train": layout.Known(6_513, 130_260),
        "val": layout.Known(497, 9_940),
        "test": layout.Known(2_990, 59_800),
    },
}
# Clip numbers of the official split: below 6,513 train, below 7,010 validation.
_OFFICIAL = {"train": range(6_513), "val": range(6_513, 7_010), "test": range(7_010, 10_000)}
_FIELD = {"train": "train", "validate": "val", "val": "val", "test": "test"}

Sentences = dict[str, dict[str, str]]  # clip -> caption id -> caption


def read_layout(folder: epath.Path, protocol: str, expected: str) -> layout.Layout:
    """Reads captions, lists and the names of the video files in `folder`.

    Args:
      folder: as `expected` shows.
      protocol: '9k', '7k' (test: 1k-A, one caption per clip) or 'full'.
      expected: the folder tree to show to whoever lacks a part of it.

    Raises:
      FileNotFoundError: naming every missing part, or saying that no listed clip is there.
      ValueError: a file has another form, or a clip belongs to two splits.
    """
    files = [folder / name for name in WHOLE if (folder / name).exists()][:1]
    files = files or [folder / name for name in PARTS if (folder / name).exists()]
    parts: dict[str, object] = {
        f"{VIDEO_FOLDERS[0]}/": layout.find_folder(folder, VIDEO_FOLDERS),
        f"{' or '.join(WHOLE)} or {' + '.join(PARTS)}": files,
    }
    if protocol != "full":
        parts[TEST_1KA] = (folder / TEST_1KA).exists()
    layout.require(folder, parts, expected)
    sentences, official = _read_captions(files)
    read = _read_full if protocol == "full" else _read_1ka
    splits, listed, notes = read(folder, protocol, sentences, official)
    uncaptioned = {
        name: [clip for clip in clips if clip not in splits[name]] for name, clips in listed.items()
    }
    return layout.assemble(
        _videos(folder),
        splits,
        expected,
        known=KNOWN[protocol],
        uncaptioned=uncaptioned,
        notes=(*notes, *_count_notes(splits, protocol)),
    )


def _videos(folder: epath.Path) -> dict[str, epath.Path]:
    """Of all folders there are: the official archives unpack into two."""
    videos: dict[str, epath.Path] = {}
    for name in reversed(VIDEO_FOLDERS):
        if (folder / name).is_dir():
            videos |= layout.find_videos(folder / name)
    return videos


def _read_captions(files: list[epath.Path]) -> tuple[Sentences, dict[str, str]]:
    """Captions of every clip, and the official split of every clip."""
    sentences: Sentences = collections.defaultdict(dict)
    official: dict[str, str] = {}
    for file in files:
        content = text_files.read_json(file)
        try:
            for clip, number, caption in _rows(content, file.name):
                sentences[clip][number or f"{clip}#{len(sentences[clip])}"] = caption
            for item in content.get("videos", []):
                if item.get("split") and isinstance(item["video_id"], str):
                    official[item["video_id"]] = _FIELD[item["split"]]
        except (KeyError, TypeError, AttributeError) as error:
            message = f"{file.name}: expected video_id, caption and split of every item: {error!r}"
            raise InputError(message) from error
    for clip in sentences:
        official.setdefault(clip, _by_number(clip))
    return sentences, official


def _rows(content: Any, name: str) -> list[tuple[str, str, str]]:
    """(clip, caption id or '', caption) of either JSON form."""
    forms = (("sentences", "video_id", "sen_id"), ("annotations", "image_id", "id"))
    for rows, clip, number in forms:
        if isinstance(content, dict) and rows in content:
            found = [(r[clip], str(r.get(number, "")), r["caption"]) for r in content[rows]]
            if all(isinstance(c, str) and isinstance(text, str) for c, _, text in found):
                return found
            raise InputError(f"{name}: expected clip ids and captions as text in '{rows}'")
    got = ", ".join(content) if isinstance(content, dict) else type(content).__name__
    raise InputError(f"{name}: expected 'sentences' or 'annotations', got {got}")


def _by_number(clip: str) -> str:
    match = re.fullmatch(r"video(\d+)", clip)
    for split, numbers in _OFFICIAL.items():
        if match and int(match[1]) in numbers:
            return split
    raise InputError(f"clip ids: expected video0 to video9999, got {clip!r}")


_Read = tuple[dict[str, layout.Split], dict[str, list[str]], list[str]]


def _read_1ka(
    folder: epath.Path, protocol: str, sentences: Sentences, official: dict[str, str]
) -> _Read:
    """1k-A: the test caption of each clip is in the table; train has all captions."""
    rows = text_files.read_table(folder / TEST_1KA, "key", "video_id", "sentence")
    test = {row["video_id"]: layout.Texts([row["sentence"]], [row["key"]]) for row in rows}
    train_clips = {
        "9k": [clip for clip in sentences if clip not in test],
        "7k": [clip for clip in sentences if official[clip] in ("train", "val")],
    }[protocol]
    clips, notes = _listed(folder / f"MSRVTT_train.{protocol}.csv", train_clips)
    foreign = [clip for clip, texts in test.items() if not _among(texts, sentences.get(clip, {}))]
    if foreign:
        notes.append(
            f"test: the sentence of {len(foreign):,} clips is not among the clip's captions in "
            f"the caption file, apart from punctuation: {layout.some(foreign)}"
        )
    different = len({texts.captions[0] for texts in test.values()})
    if different < len(test):
        notes.append(f"test: {different:,} different sentences on {len(test):,} clips")
    splits = {"train": _texts(clips, sentences), "test": test}
    return splits, {"train": clips, "test": list(test)}, notes


def _read_full(
    folder: epath.Path, protocol: str, sentences: Sentences, official: dict[str, str]
) -> _Read:
    listed, notes = {}, []
    for split in _OFFICIAL:
        clips = [clip for clip in official if official[clip] == split]
        listed[split], more = _listed(folder / f"MSRVTT_{split}.full.csv", clips)
        notes += more
    return {name: _texts(clips, sentences) for name, clips in listed.items()}, listed, notes


def _listed(path: epath.Path, derived: list[str]) -> tuple[list[str], list[str]]:
    """The clips of the list if it is there, else those the rule gives; and how the two differ."""
    if not path.exists():
        return derived, []
    clips = list(dict.fromkeys(row["video_id"] for row in text_files.read_table(path, "video_id")))
    difference = set(clips) ^ set(derived)
    if not difference:
        return clips, []
    return clips, [
        f"{path.name}: differs in {len(difference):,} clips from what the caption file gives; "
        f"the list is used: {layout.some(sorted(difference))}"
    ]


def _texts(clips: list[str], sentences: Sentences) -> layout.Split:
    return {
        clip: layout.Texts(list(sentences[clip].values()), list(sentences[clip]))
        for clip in clips
        if sentences.get(clip)
    }


def _among(texts: layout.Texts, own: dict[str, str]) -> bool:
    (sentence,) = texts.captions
    return _words(sentence) in map(_words, own.values())


def _words(sentence: str) -> list[str]:
    """The table of 1k-A has lost some punctuation."""
    return re.findall(r"\w+", sentence)


def _count_notes(splits: dict[str, layout.Split], protocol: str) -> list[str]:
    notes = []
    for name, split in splits.items():
        if name == "test" and protocol != "full":
            continue
        counts = collections.Counter(len(texts.captions) for texts in split.values())
        other = {n: clips for n, clips in sorted(counts.items()) if n != CAPTIONS_PER_CLIP}
        if other:
            found = ", ".join(f"{clips:,} clips with {n}" for n, clips in other.items())
            notes.append(f"{name}: expected {CAPTIONS_PER_CLIP} captions per clip, got {found}")
    return notes
