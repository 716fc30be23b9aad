"""From a folder of videos to a dataset directory, in one call and without TensorFlow."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from tfds_builders import clip_builder
from tfds_builders.activitynet import activitynet_dataset_builder
from tfds_builders.demo import demo_dataset_builder
from tfds_builders.msrvtt import msrvtt_dataset_builder
from tfds_builders.msvd import msvd_dataset_builder

BUILDERS: dict[str, type[clip_builder.ClipBuilder]] = {
    "activitynet": activitynet_dataset_builder.Builder,
    "demo": demo_dataset_builder.Builder,
    "msrvtt": msrvtt_dataset_builder.Builder,
    "msvd": msvd_dataset_builder.Builder,
}


def prepare(
    name: str,
    manual_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    **settings: float,
) -> str:
    """Builds a dataset if it is not there yet, and prints which part of it could be used.

    Args:
      name: one of `BUILDERS`, with a protocol after a slash where a set has several, as
        'msrvtt/7k'; the first one is the default.
      manual_dir: its sub-folder, named like the set, holds the files as published; 'demo'
        renders its own.
      data_dir: where datasets are kept, one directory per name, settings and version.
      **settings: fields of the builder's config, as short_side=224 (pixels), fps=1.0.

    Returns:
      The directory to hand to `tfds.builder_from_directory`. It appears in one step when it is
      complete, so what a killed build leaves behind is never taken for a dataset.

    Raises:
      FileNotFoundError: files are missing; the message shows the expected tree.
      ValueError: unknown name or setting, or no readable clip in a split.
    """
    builder_class, config = resolve(name, settings)
    builder = builder_class(data_dir=os.fspath(data_dir), config=config)
    complete = epath.Path(builder.data_dir).exists()
    if not complete:
        builder_class.provide_files(epath.Path(manual_dir), config)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(manual_dir)),
            file_format="array_record",
        )
    directory = str(builder.data_dir)
    accounting = read_metadata(directory)["accounting"]
    print(f"{name}: {summary(accounting)} -> {directory}")
    for sentence in read_metadata(directory)["notes"]:
        print(f"{name}: {sentence}")
    if complete and any(s["clips"]["used"] < s["clips"]["expected"] for s in accounting.values()):
        print(f"{name}: built earlier; delete {directory} to use clips that came since")
    return directory


def resolve(
    name: str, settings: Mapping[str, Any]
) -> tuple[type[clip_builder.ClipBuilder], clip_builder.VideoConfig]:
    """The builder and the config that a name as 'msrvtt/7k' and settings mean.

    Raises:
      ValueError: unknown name, protocol or setting, or a value out of range.
    """
    base, slash, protocol = name.partition("/")
    if base not in BUILDERS:
        raise ValueError(f"name: expected one of {', '.join(sorted(BUILDERS))}, got {base!r}")
    builder_class = BUILDERS[base]
    protocols = [config.protocol for config in builder_class.BUILDER_CONFIGS]
    if slash and protocol not in filter(None, protocols):
        choices = ", ".join(f"{base}/{p}" if p else base for p in protocols)
        raise ValueError(f"name: expected {choices}, got {name!r}")
    known = {field.name for field in dataclasses.fields(builder_class.CONFIG) if field.init}
    known -= {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)} | {"protocol"}
    unknown = sorted(set(settings) - known)
    if unknown:
        choices = ", ".join(sorted(known))
        raise ValueError(f"settings: expected some of {choices}, got {', '.join(unknown)}")
    config = builder_class.CONFIG(protocol=protocol or protocols[0], **settings)
    # TFDS wants its own instance back where the values are those of a named config.
    return builder_class, builder_class.builder_configs.get(config.name, config)


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a prepared dataset's metadata: fps, short_side, jpeg_quality, decoder,
    protocol, accounting per split, notes, order_pairs.
    """
    return dict(tfds.builder_from_directory(os.fspath(directory)).info.metadata)


def summary(accounting: dict[str, Any]) -> str:
    """One line: used and expected clips and captions, in all and per split."""

    def total(kind: str) -> str:
        counts = [split[kind] for split in accounting.values()]
        used, expected = (sum(c[key] for c in counts) for key in ("used", "expected"))
        return f"{used:,} of {expected:,} {kind}"

    splits = [_split_summary(name, split) for name, split in accounting.items()]
    return f"used {total('clips')} and {total('captions')} ({'; '.join(splits)})"


def _split_summary(name: str, split: dict[str, Any]) -> str:
    clips, unreadable = split["clips"], split["unreadable"]["count"]
    text = f"{name} {clips['used']:,}/{clips['expected']:,}"
    if not clips["used"]:
        text += ", left out"
    return f"{text}, {unreadable:,} unreadable" if unreadable else text
