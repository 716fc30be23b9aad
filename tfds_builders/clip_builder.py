"""The builder behind every set in the MSVD layout; a set adds its name, texts and files."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from tfds_builders import layout, video_records


@dataclasses.dataclass(eq=False)
class VideoConfig(tfds.core.BuilderConfig):
    """How frames are stored. The name follows from the values, so each choice is a directory.

    Attributes:
      name: derived.
      fps: frames kept per second.
      short_side: pixels of the shorter side.
      jpeg_quality: 1 to 95.
    """

    name: str = dataclasses.field(default="", init=False)
    fps: float = 1.0
    short_side: int = 224
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        self.name = f"fps{self.fps:g}_side{self.short_side}_jpeg{self.jpeg_quality}"


class ClipBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One record per clip: JPEG frames and all captions (`video_records.features`).

    `info.metadata` states how the frames were made, which clips are in (`accounting`, per split,
    see `video_records.account`) and the `order_pairs`. A subclass named `Builder` lives in its
    own package with README.md, CITATIONS.bib and TAGS.txt; its files are in
    `<manual_dir>/<name>/`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    # The class of `BUILDER_CONFIGS`; its fields are the settings `prepare` takes.
    CONFIG: type[VideoConfig] = VideoConfig

    @classmethod
    def provide_files(cls, manual_dir: epath.Path, config: Any) -> None:
        """Makes the files of a generated set; sets that are collected by hand need no action."""

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        metadata = tfds.core.MetadataDict(
            fps=config.fps,
            short_side=config.short_side,
            jpeg_quality=config.jpeg_quality,
            decoder=video_records.decoder_version(),
            accounting={},
            order_pairs=[],
        )
        return self.dataset_info_from_configs(
            features=video_records.features(), supervised_keys=None, metadata=metadata
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        """Leaves out a split none of whose clips is there; the accounting still lists it."""
        try:
            folder = dl_manager.manual_dir / self.name
        except AssertionError as error:  # TFDS's word for a missing or empty manual_dir
            raise FileNotFoundError(str(error)) from error
        found = layout.read_layout(folder, self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        self.info.metadata["order_pairs"] = found.order_pairs
        for split, clips in found.splits.items():
            self._account(split, video_records.account(clips, found.videos, {}))
        return {
            split: self._generate_examples(split, clips, found.videos)
            for split, clips in found.splits.items()
            if any(clip in found.videos for clip in clips)
        }

    def _generate_examples(
        self, split: str, clips: dict[str, list[str]], videos: dict[str, epath.Path]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        unreadable: dict[str, str] = {}
        yield from video_records.clip_records(
            clips,
            videos,
            unreadable,
            fps=config.fps,
            short_side=config.short_side,
            jpeg_quality=config.jpeg_quality,
        )
        account = video_records.account(clips, videos, unreadable)
        if not account["clips"]["used"]:
            reason = next(iter(unreadable.values()))
            raise ValueError(f"{split}: none of {len(unreadable):,} clips is readable: {reason}")
        self._account(split, account)

    def _account(self, split: str, account: dict[str, Any]) -> None:
        self.info.metadata["accounting"][split] = account
