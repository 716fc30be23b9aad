"""MSVD, the Microsoft Research Video Description corpus."""

from typing import ClassVar

from tfds_builders import clip_builder


class Builder(clip_builder.ClipBuilder):
    """Builds MSVD from files collected by hand; see README.md."""

    BUILDER_CONFIGS: ClassVar[list[clip_builder.VideoConfig]] = [clip_builder.VideoConfig()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Expected below manual_dir:
  msvd/
    videos/                 the clips, <youtube id>_<start>_<end>.avi (any video container);
                            the names YouTubeClips and MSVD_Videos are accepted too
    raw-captions.pkl        clip -> captions; or captions.json, or AllVideoDescriptions.txt
    train_list.txt          one clip id per line: 1,200
    val_list.txt            100
    test_list.txt           670
What to do: fetch the clips from https://www.cs.utexas.edu/users/ml/clamp/videoDescription/,
take captions and lists from the data archive that the CLIP4Clip repository links, and run again.
Missing clips are counted and named, not fatal.
"""
