"""ActivityNet Captions for paragraph retrieval."""

from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from tfds_builders import clip_builder, layout
from tfds_builders.activitynet import annotations


class Builder(clip_builder.ClipBuilder):
    """Builds ActivityNet Captions from files collected by hand; see README.md."""

    BUILDER_CONFIGS: ClassVar[list[clip_builder.VideoConfig]] = [
        clip_builder.VideoConfig(protocol="paragraph", description="Test: val_1."),
        clip_builder.VideoConfig(protocol="val_2", description="Test: val_2."),
    ]
    MORE_FEATURES: ClassVar[dict[str, Any]] = {
        "duration": np.float32,
        "sentences": tfds.features.Sequence(tfds.features.Text()),
        "timestamps": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Expected below manual_dir:
  activitynet/
    videos/                 whole videos, <youtube id> or v_<youtube id>, any video container;
                            the names Activity_Videos and v1-3 are accepted too
    train.json              id -> duration, timestamps, sentences: 10,009
    val_1.json              4,917, the test split of the config paragraph
    val_2.json              4,885, the test split of the config val_2
    train_ids.json          optional, as val_ids.json: the official id lists
What to do: fetch captions.zip from the ActivityNet Captions page, the videos by the request form
of ActivityNet, and run again. Missing videos are counted and named, not fatal.
"""

    @classmethod
    def read_layout(cls, folder: epath.Path, config: Any) -> layout.Layout:
        """Reads the published files."""
        return annotations.read_layout(folder, config.protocol, cls.MANUAL_DOWNLOAD_INSTRUCTIONS)
