"""The builder behind every set; a set adds its name, texts and the reader of its files."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from tfds_builders import layout, video_records


@dataclasses.dataclass(eq=False)
class VideoConfig(tfds.core.BuilderConfig):
    """How frames are stored. The name follows from the values, so each choice is a directory.

    Attributes:
      name: derived: the protocol, then the other values unless all are the defaults of a protocol.
      protocol: which of the published splits, '' where a set has one.
      fps: frames kept per second.
      short_side: pixels of the shorter side.
      jpeg_quality: 1 to 95.
    """

    name: str = dataclasses.field(default="", init=False)
    protocol: str = ""
    fps: float = 1.0
    short_side: int = 224
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        if not (self.fps > 0 and math.isfinite(self.fps)):
            raise ValueError(f"fps: expected a number > 0, got {self.fps}")
        if self.short_side < 1:
            raise ValueError(f"short_side: expected at least 1 pixel, got {self.short_side}")
        if not 1 <= self.jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality: expected 1 to 95, got {self.jpeg_quality}")
        frames = f"fps{self.fps:g}_side{self.short_side}_jpeg{self.jpeg_quality}"
        plain = frames == "fps1_side224_jpeg90"
        if not self.protocol:
            self.name = frames
        else:
            self.name = self.protocol if plain else f"{self.protocol}_{frames}"


class ClipBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One record per clip: JPEG frames and all captions (`video_records.features`).

    `info.metadata` states how the frames were made, which clips are in (`accounting`, per split,
    see `video_records.account`), in what the files differ from the published ones (`notes`) and
    the `order_pairs`. A subclass named `Builder` lives in its own package with README.md,
    CITATIONS.bib and TAGS.txt; its files are in `<manual_dir>/<name>/`.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "First release.",
        "1.1.0": "Size of the source picture; known sizes and notes in the metadata.",
    }
    # The class of `BUILDER_CONFIGS`; its fields are the settings `prepare` takes.
    CONFIG: type[VideoConfig] = VideoConfig
    # Features of the set beside those that all sets have.
    MORE_FEATURES: ClassVar[dict[str, Any]] = {}

    @classmethod
    def provide_files(cls, manual_dir: epath.Path, config: Any) -> None:
        """Makes the files of a generated set; sets that are collected by hand need no action."""

    @classmethod
    def read_layout(cls, folder: epath.Path, config: Any) -> layout.Layout:
        """Reads what `folder`, with the files as published, offers under `config`."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        metadata = tfds.core.MetadataDict(
            fps=config.fps,
            short_side=config.short_side,
            jpeg_quality=config.jpeg_quality,
            protocol=config.protocol,
            decoder=video_records.decoder_version(),
            accounting={},
            notes=[],
            order_pairs=[],
        )
        return self.dataset_info_from_configs(
            features=video_records.features(self.MORE_FEATURES),
            supervised_keys=None,
            metadata=metadata,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        """Leaves out a split none of whose clips is there; the accounting still lists it."""
        try:
            folder = dl_manager.manual_dir / self.name
        except AssertionError as error:  # TFDS's word for a missing or empty manual_dir
            raise FileNotFoundError(str(error)) from error
        found = self.read_layout(folder, self.builder_config)
        self.info.metadata["order_pairs"] = list(found.order_pairs)
        self.info.metadata["notes"] = list(found.notes)
        for split in found.splits:
            self._account(split, found, {})
        return {
            split: self._generate_examples(split, found)
            for split, clips in found.splits.items()
            if any(clip in found.videos for clip in clips)
        }

    def _generate_examples(
        self, split: str, found: layout.Layout
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        unreadable: dict[str, str] = {}
        yield from video_records.clip_records(
            found.splits[split],
            found.videos,
            unreadable,
            fps=config.fps,
            short_side=config.short_side,
            jpeg_quality=config.jpeg_quality,
        )
        account = self._account(split, found, unreadable)
        if not account["clips"]["used"]:
            reason = next(iter(unreadable.values()))
            raise ValueError(f"{split}: none of {len(unreadable):,} clips is readable: {reason}")

    def _account(
        self, split: str, found: layout.Layout, unreadable: dict[str, str]
    ) -> dict[str, Any]:
        account = video_records.account(found, split, unreadable)
        self.info.metadata["accounting"][split] = account
        return account
