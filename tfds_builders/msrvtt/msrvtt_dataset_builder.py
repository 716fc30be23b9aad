"""MSR-VTT under its three usual protocols."""

from typing import Any, ClassVar

from etils import epath

from tfds_builders import clip_builder, layout
from tfds_builders.msrvtt import annotations


class Builder(clip_builder.ClipBuilder):
    """Builds MSR-VTT from files collected by hand; see README.md."""

    BUILDER_CONFIGS: ClassVar[list[clip_builder.VideoConfig]] = [
        clip_builder.VideoConfig(
            protocol="9k", description="Test: 1k-A. Train: the other 9,000 clips."
        ),
        clip_builder.VideoConfig(
            protocol="7k", description="Test: 1k-A. Train: official train and validation clips."
        ),
        clip_builder.VideoConfig(
            protocol="full", description="Official train, validation and test clips."
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Expected below manual_dir:
  msrvtt/
    videos/                    video0.mp4 to video9999.mp4 (any video container); the folders
                               videos/all, MSRVTT_Videos, all, TrainValVideo and TestVideo are
                               read too
    MSRVTT_data.json           captions; or MSR_VTT.json, videodatainfo_2016.json, or
                               train_val_videodatainfo.json and test_videodatainfo.json
    MSRVTT_JSFUSION_test.csv   configs 9k and 7k: the 1,000 test clips and captions of 1k-A
    MSRVTT_train.9k.csv        optional, as MSRVTT_train.7k.csv and MSRVTT_train.full.csv,
                               MSRVTT_val.full.csv, MSRVTT_test.full.csv: lists to train on and
                               test with instead of those that follow from the other files
What to do: captions and lists are in the data archive that the CLIP4Clip repository links; the
clips have to be obtained from those who hold a copy. Missing clips are counted and named, not
fatal.
"""

    @classmethod
    def read_layout(cls, folder: epath.Path, config: Any) -> layout.Layout:
        """Reads the published files."""
        return annotations.read_layout(folder, config.protocol, cls.MANUAL_DOWNLOAD_INSTRUCTIONS)
