"""The builder behind every set; a set adds its name, texts and the reader of its files."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from ncl_jax.errors import InputError
from ncl_jax.video import decode
from tfds_builders import decoding, layout, sources, video_records
from tfds_builders.frame_store import BuildOptions, FrameStore


@dataclasses.dataclass(eq=False)
class VideoConfig(tfds.core.BuilderConfig):
    """How frames are stored. The name follows from the values, so each choice is a directory.

    Attributes:
      name: derived: the protocol, then the other values unless all are the defaults of a protocol.
      protocol: which of the published splits, '' where a set has one.
      fps: frames kept per second.
      short_side: pixels of the shorter side.
      jpeg_quality: 1 to 95.
      look: `stored` for pixels and colours as the published pipelines read them, `shown` for
        square pixels and the colours that a player shows; see `video.decode_frames`.
    """

    name: str = dataclasses.field(default="", init=False)
    protocol: str = ""
    fps: float = 1.0
    short_side: int = 224
    jpeg_quality: int = 90
    look: decode.Look = "stored"

    def __post_init__(self) -> None:
        if not (self.fps > 0 and math.isfinite(self.fps)):
            raise InputError(f"fps: expected a number > 0, got {self.fps}")
        if self.short_side < 1:
            raise InputError(f"short_side: expected at least 1 pixel, got {self.short_side}")
        if not 1 <= self.jpeg_quality <= 95:
            raise InputError(f"jpeg_quality: expected 1 to 95, got {self.jpeg_quality}")
        decode.check_look(self.look)
        frames = self.frames
        plain = frames == "fps1_side224_jpeg90"
        if not self.protocol:
            self.name = frames
        else:
            self.name = self.protocol if plain else f"{self.protocol}_{frames}"

    @property
    def frames(self) -> str:
        """How frames are stored, as a part of names."""
        frames = f"fps{self.fps:g}_side{self.short_side}_jpeg{self.jpeg_quality}"
        return frames if self.look == "stored" else f"{frames}_{self.look}"


class ClipBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One record per clip: JPEG frames and all captions (`video_records.features`).

    `info.metadata` states how the frames were made, which clips are in (`accounting`, per split,
    see `video_records.account`), in what the files differ from the published ones (`notes`), the
    `order_pairs` and what it was made from (`sources`, see `sources.describe`). A subclass named
    `Builder` lives in its own package with README.md, CITATIONS.bib and TAGS.txt; its files are in
    `<manual_dir>/<name>/`.
    """

    VERSION = tfds.core.Version("1.3.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "First release.",
        "1.2.0": "Size of the source picture; published sizes and notes in the metadata.",
        "1.3.0": "Frames as FFmpeg's command shows them: mirrors, AVI files with B-frames, clocks "
        "that go back, the choice of a stream; remarks in the accounting.",
    }
    # The class of `BUILDER_CONFIGS`; its fields are the settings `prepare` takes.
    CONFIG: type[VideoConfig] = VideoConfig
    # Features of the set beside those that all sets have.
    MORE_FEATURES: ClassVar[dict[str, Any]] = {}
    # Whether `provide_files` makes the files, so that they follow from the config.
    GENERATED = False
    # How to build; `prepare` sets it, `tfds build` takes the default.
    options = BuildOptions()

    @classmethod
    def provide_files(cls, manual_dir: epath.Path, config: Any) -> None:
        """Makes the files of a generated set; sets that are collected by hand need no action."""

    @classmethod
    def download(cls, folder: epath.Path) -> None:
        """Fetches what of the set is public to `folder`, its place below manual_dir."""
        expected = cls.MANUAL_DOWNLOAD_INSTRUCTIONS
        raise InputError(f"{cls.name}: none of its files can be downloaded\n{expected}")

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
            look=config.look,
            protocol=config.protocol,
            decoder=video_records.decoder_version(),
            accounting={},
            notes=[],
            order_pairs=[],
            sources={},
        )
        return self.dataset_info_from_configs(
            features=video_records.features(self.MORE_FEATURES),
            supervised_keys=None,
            metadata=metadata,
        )

    def _log_download_bytes(self) -> None:
        """In place of TFDS's "Downloading ... Unknown size": nothing is downloaded here."""
        print(f"{self.name}: building {self.data_dir}", flush=True)

    def _log_download_done(self) -> None:
        """Says nothing: `prepare` says which part of the set could be used."""

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """Decodes every clip, then hands them out split by split.

        A split none of whose clips is there is left out; the accounting still lists it.
        """
        try:
            folder = dl_manager.manual_dir / self.name
        except AssertionError as error:  # TFDS's word for a missing or empty manual_dir
            raise FileNotFoundError(str(error)) from error
        found = self.read_layout(folder, self.builder_config)
        self.info.metadata["sources"] = sources.describe(found)
        store = self.frame_store()
        unreadable = decoding.decode_clips(store, layout.listed_videos(found), self.options)
        self.info.metadata["order_pairs"] = list(found.order_pairs)
        self.info.metadata["notes"] = list(found.notes)
        generators = {}
        for name, split in found.splits.items():
            remarks = self._remarks(store, found, split, unreadable)
            account = video_records.account(found, name, unreadable, remarks)
            self.info.metadata["accounting"][name] = account
            bad = account["unreadable"]
            if bad["count"] and not account["clips"]["used"]:
                reason = next(iter(bad["first"].values()))
                raise InputError(f"{name}: none of {bad['count']:,} clips is readable: {reason}")
            good = [clip for clip in split if clip in found.videos and clip not in unreadable]
            if good:
                generators[name] = self._generate_examples(store, found, split, good)
        return generators

    def _remarks(
        self,
        store: FrameStore,
        found: layout.Layout,
        split: layout.Split,
        unreadable: Mapping[str, str],
    ) -> dict[str, tuple[str, ...]]:
        clips = (clip for clip in split if clip in found.videos and clip not in unreadable)
        return {clip: store.remarks(clip, found.videos[clip]) for clip in clips}

    def _generate_examples(
        self, store: FrameStore, found: layout.Layout, split: layout.Split, good: list[str]
    ) -> Any:
        """(clip id, record) of the clips that were decoded, in the order of the lists."""

        def example(clip: str) -> tuple[str, dict[str, Any]]:
            decoded = store.load(clip, found.videos[clip])
            return clip, video_records.record(clip, split[clip], decoded)

        if self.options.beam is None:
            return map(example, good)
        from tfds_builders import beam_decoding

        inputs = [(clip, found.videos[clip], split[clip]) for clip in good]
        return beam_decoding.examples(store, inputs)

    def frame_store(self) -> FrameStore:
        """Decoded clips, kept until the dataset is complete; protocols of a set share them."""
        config = self.builder_config
        folder = epath.Path(self._data_dir_root) / self.name / ".decoded" / config.frames
        return FrameStore(
            str(folder),
            config.fps,
            config.short_side,
            config.jpeg_quality,
            video_records.decoder_version(),
            config.look,
        )
