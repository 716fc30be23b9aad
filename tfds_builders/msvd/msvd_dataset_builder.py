"""MSVD, the Microsoft Research Video Description corpus."""

from typing import Any, ClassVar

from etils import epath

from tfds_builders import clip_builder, download, layout, listed_clips

# The public home of the corpus.
HOME = "https://www.cs.utexas.edu/users/ml/clamp/videoDescription"

KNOWN = {
    "train": layout.Known(1_200, 48_774),
    "val": layout.Known(100, 4_290),
    "test": layout.Known(670, 27_763),
}


class Builder(clip_builder.ClipBuilder):
    """Builds MSVD from files collected by hand; see README.md."""

    BUILDER_CONFIGS: ClassVar[list[clip_builder.VideoConfig]] = [clip_builder.VideoConfig()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Expected below manual_dir:
  msvd/
    videos/                 the clips, <youtube id>_<start>_<end>.avi (any video container);
                            the names YouTubeClips and MSVD_Videos are accepted too
    raw-captions.pkl        clip -> captions; or captions.json, AllVideoDescriptions.txt,
                            video_corpus.csv, "MSR Video Description Corpus.csv"
    train_list.txt          one clip id per line: 1,200
    val_list.txt            100
    test_list.txt           670
What to do: `python -m tfds_builders.build msvd --download ...` fetches clips and captions from
https://www.cs.utexas.edu/users/ml/clamp/videoDescription/; take the lists, and raw-captions.pkl if
you want it, from the data archive that the CLIP4Clip repository links, and run again. Missing clips
are counted and named, not fatal.
"""

    @classmethod
    def download(cls, folder: epath.Path) -> None:
        """Fetches the clips (1.7 GB) and their descriptions, unless they are there."""
        if not (folder / "AllVideoDescriptions.txt").exists():
            download.fetch(f"{HOME}/AllVideoDescriptions.txt", folder)
        stamp = folder / "YouTubeClips" / ".unpacked"
        if not stamp.exists():
            archive = download.fetch(f"{HOME}/YouTubeClips.tar", folder)
            count = download.extract_videos(archive, stamp.parent)
            stamp.write_text(f"{count}\n")
            archive.unlink()

    @classmethod
    def read_layout(cls, folder: epath.Path, config: Any) -> layout.Layout:
        """Reads the published files."""
        return listed_clips.read_layout(folder, cls.MANUAL_DOWNLOAD_INSTRUCTIONS, KNOWN)
