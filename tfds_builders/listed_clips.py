"""The layout of MSVD, which the demo shares: a folder of clips, one caption file, three lists."""

from collections.abc import Mapping

from etils import epath

from tfds_builders import caption_files, layout, text_files

SPLITS = ("train", "val", "test")
VIDEO_FOLDERS = ("videos", "YouTubeClips", "MSVD_Videos")


def read_layout(
    folder: epath.Path, expected: str, known: Mapping[str, layout.Known] | None = None
) -> layout.Layout:
    """Reads lists, captions and the names of the video files in `folder`.

    Args:
      folder: holds a video folder, a caption file and the three split lists.
      expected: the folder tree to show to whoever lacks a part of it.
      known: published sizes.

    Raises:
      FileNotFoundError: naming every missing part, or saying that no listed clip is there.
      ValueError: a file is damaged, or a clip belongs to two splits.
    """
    video_folder = layout.find_folder(folder, VIDEO_FOLDERS)
    captions = caption_files.read_captions(folder)
    parts: dict[str, object] = {
        " or ".join(f"{name}/" for name in VIDEO_FOLDERS): video_folder,
        " or ".join(caption_files.READERS): captions is not None,
    }
    parts |= {f"{split}_list.txt": (folder / f"{split}_list.txt").exists() for split in SPLITS}
    layout.require(folder, parts, expected)
    assert video_folder is not None
    assert captions is not None
    splits: dict[str, layout.Split] = {}
    uncaptioned: dict[str, list[str]] = {}
    for name in SPLITS:
        clips = text_files.read_list(folder / f"{name}_list.txt")
        uncaptioned[name] = [clip for clip in clips if not captions.get(clip)]
        splits[name] = {
            clip: layout.numbered(clip, captions[clip]) for clip in clips if captions.get(clip)
        }
    return layout.assemble(
        layout.find_videos(video_folder),
        splits,
        expected,
        known=known or {},
        uncaptioned=uncaptioned,
        notes=_unlisted(captions, splits),
        order_pairs=_order_pairs(folder / "order_pairs.txt"),
    )


def _unlisted(captions: caption_files.Captions, splits: dict[str, layout.Split]) -> tuple[str, ...]:
    rest = [clip for clip in captions if not any(clip in split for split in splits.values())]
    if not rest:
        return ()
    return (f"{len(rest):,} captioned clips are in no list: {layout.some(rest)}",)


def _order_pairs(path: epath.Path) -> tuple[list[str], ...]:
    if not path.exists():
        return ()
    return tuple(line.split() for line in text_files.read_text(path).splitlines())
