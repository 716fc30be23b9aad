"""The MSVD folder layout on disk, shared by every set that is handed out this way."""

from typing import NamedTuple

from etils import epath

from tfds_builders import caption_files, video_records

SPLITS = ("train", "val", "test")
VIDEO_FOLDERS = ("videos", "YouTubeClips", "MSVD_Videos")


class Layout(NamedTuple):
    """What a folder offers.

    Attributes:
      videos: clip id -> file, for the files that are there.
      splits: split -> clip id -> captions, for all clips that belong to the set.
      order_pairs: pairs of clips that show the same events in opposite order.
    """

    videos: dict[str, epath.Path]
    splits: dict[str, caption_files.Captions]
    order_pairs: list[list[str]]


def read_layout(folder: epath.Path, expected: str) -> Layout:
    """Reads lists, captions and the names of the video files in `folder`.

    Args:
      folder: holds a video folder, a caption file and the three split lists.
      expected: the folder tree to show to whoever lacks a part of it.

    Raises:
      FileNotFoundError: naming every missing part, or saying that no listed clip is there.
      ValueError: a listed clip has no caption.
    """
    video_folder = next((folder / n for n in VIDEO_FOLDERS if (folder / n).is_dir()), None)
    captions = caption_files.read_captions(folder)
    missing = [] if video_folder else [" or ".join(f"{n}/" for n in VIDEO_FOLDERS)]
    missing += [] if captions is not None else [" or ".join(caption_files.READERS)]
    missing += [f"{s}_list.txt" for s in SPLITS if not (folder / f"{s}_list.txt").exists()]
    if missing or video_folder is None or captions is None:
        raise FileNotFoundError(f"{folder}: missing {'; '.join(missing)}\n{expected}")
    splits = {split: _split(folder, split, captions) for split in SPLITS}
    videos = video_records.find_videos(video_folder)
    if not any(clip in videos for clips in splits.values() for clip in clips):
        total = sum(map(len, splits.values()))
        found = f"{len(videos):,} video files, none of them a listed clip"
        raise FileNotFoundError(
            f"{video_folder}: expected some of the {total:,} listed clips, got {found}\n{expected}"
        )
    return Layout(videos, splits, _order_pairs(folder / "order_pairs.txt"))


def _split(
    folder: epath.Path, split: str, captions: caption_files.Captions
) -> caption_files.Captions:
    name = f"{split}_list.txt"
    clips = (folder / name).read_text().split()
    without = [clip for clip in clips if not captions.get(clip)]
    if without:
        raise ValueError(
            f"{name}: expected captions for every clip, got none for {len(without):,} of "
            f"{len(clips):,}, the first is {without[0]!r}"
        )
    return {clip: captions[clip] for clip in clips}


def _order_pairs(path: epath.Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
