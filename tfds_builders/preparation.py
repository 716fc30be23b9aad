"""From a folder of videos to a dataset directory, in one call and without TensorFlow."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from ncl_jax.errors import InputError, check_choice
from ncl_jax.locks import locked
from ncl_jax.progress import announced
from tfds_builders import clip_builder, layout, sources
from tfds_builders.activitynet import activitynet_dataset_builder
from tfds_builders.demo import demo_dataset_builder
from tfds_builders.frame_store import BuildOptions
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
    options: BuildOptions | None = None,
    verify: bool = False,
    **settings: Any,
) -> str:
    """Builds a dataset if it is not there yet, and prints which part of it could be used.

    A dataset that was built from fewer or other clips than there are now, or from other captions,
    is built again: annotations by content, video files by name, size and time, and where only name
    or time differ by content. A build that was killed goes on where it stopped.

    Args:
      name: one of `BUILDERS`, with a protocol after a slash where a set has several, as
        'msrvtt/7k'; the first one is the default.
      manual_dir: its sub-folder, named like the set, holds the files as published; 'demo'
        renders its own.
      data_dir: where datasets are kept, one directory per name, settings and version.
      options: how to build; unreadable clips are skipped and accounted for by default.
      verify: whether a dataset that is there is compared with the content of every video file.
      **settings: fields of the builder's config, as short_side=224 (pixels), fps=1.0.

    Returns:
      The directory to hand to `tfds.builder_from_directory`. It appears in one step when it is
      complete, so what a killed build leaves behind is never taken for a dataset.

    Raises:
      FileNotFoundError: files are missing; the message shows the expected tree.
      ValueError: unknown name or setting, unreadable clips that `options` do not allow, or no
        readable clip in a split.
    """
    builder_class, config = resolve(name, settings)
    with _alone(epath.Path(data_dir) / builder_class.name):
        builder = builder_class(data_dir=os.fspath(data_dir), config=config)
        directory = epath.Path(builder.data_dir)
        _clean(directory)
        if not directory.exists():
            files = epath.Path(manual_dir) / builder_class.name
            # Another build may want other generated files in the same place.
            with _alone(files) if builder_class.GENERATED else contextlib.nullcontext():
                builder_class.provide_files(epath.Path(manual_dir), config)
                _build(builder_class, config, manual_dir, data_dir, options)
        elif change := _change(
            builder_class, config, epath.Path(manual_dir), directory, verify
        ):
            print(f"{name}: built from other files ({change}); building again", flush=True)
            with _replaced(directory):
                _build(builder_class, config, manual_dir, data_dir, options)
    metadata = read_metadata(directory)
    print(f"{name}: {summary(metadata['accounting'])} -> {directory}")
    for sentence in metadata["notes"]:
        print(f"{name}: {sentence}")
    return str(directory)


def require_files(
    name: str, manual_dir: str | os.PathLike[str], data_dir: str | os.PathLike[str], **settings: Any
) -> None:
    """Makes sure that `prepare` will find what it needs, without decoding anything.

    Raises:
      FileNotFoundError: files are missing; the message shows the expected tree.
      ValueError: unknown name or setting, or a damaged list or caption file.
    """
    builder_class, config = resolve(name, settings)
    built = builder_class(data_dir=os.fspath(data_dir), config=config).data_dir
    if not (builder_class.GENERATED or epath.Path(built).exists()):
        builder_class.read_layout(epath.Path(manual_dir) / builder_class.name, config)


def read_layout(
    name: str, manual_dir: str | os.PathLike[str], **settings: Any
) -> layout.Layout:
    """What the files of a set that are below `manual_dir` offer now; nothing is rendered.

    Raises:
      FileNotFoundError: files are missing; the message shows the expected tree.
      ValueError: unknown name or setting, or a damaged list or caption file.
    """
    builder_class, config = resolve(name, settings)
    return builder_class.read_layout(epath.Path(manual_dir) / builder_class.name, config)


def download(name: str, manual_dir: str | os.PathLike[str], **settings: Any) -> None:
    """Fetches what of a set is public to its place below `manual_dir`; one process at a time.

    Raises:
      ValueError: unknown name or setting, nothing can be downloaded, or the download failed.
    """
    builder_class, _ = resolve(name, settings)
    folder = epath.Path(manual_dir) / builder_class.name
    with _alone(folder):
        builder_class.download(folder)


def _build(
    builder_class: type[clip_builder.ClipBuilder],
    config: clip_builder.VideoConfig,
    manual_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    options: BuildOptions | None,
) -> None:
    builder = builder_class(data_dir=os.fspath(data_dir), config=config)
    builder.options = options or BuildOptions()
    download_config = tfds.download.DownloadConfig(manual_dir=os.fspath(manual_dir))
    if builder.options.beam is not None:
        from tfds_builders import beam_decoding

        download_config.beam_options = beam_decoding.pipeline_options(builder.options)
    builder.download_and_prepare(download_config=download_config, file_format="array_record")
    with announced(f"{builder.name}: removing intermediate files"):
        epath.Path(builder.frame_store().folder).rmtree(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: epath.Path) -> Iterator[None]:
    """One process at a time builds or collects a set there, however long it takes."""
    with contextlib.suppress(OSError):  # of a place that is read-only
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder, math.inf):
        yield


def _clean(directory: epath.Path) -> None:
    """Removes what a killed build left, and brings back a dataset it was replacing."""
    replaced = _aside(directory)
    if replaced.exists():
        if directory.exists():
            replaced.rmtree()
        else:
            replaced.rename(directory)
    for left in directory.parent.glob(f"incomplete.*_{directory.name}"):
        left.rmtree()


@contextlib.contextmanager
def _replaced(directory: epath.Path) -> Iterator[None]:
    """The old dataset steps aside, and comes back if there is no new one."""
    directory.rename(_aside(directory))
    try:
        yield
    finally:
        _clean(directory)


def _aside(directory: epath.Path) -> epath.Path:
    return directory.with_name(f"replaced.{directory.name}")


def _change(
    builder_class: type[clip_builder.ClipBuilder],
    config: clip_builder.VideoConfig,
    manual_dir: epath.Path,
    directory: epath.Path,
    verify: bool,
) -> str:
    """What a dataset lacks of the files there are now, see `sources.changes`; '' if nothing.

    A folder that is not there any more does not count: a dataset is complete without its sources.
    """
    if builder_class.GENERATED:
        return ""
    try:
        found = builder_class.read_layout(manual_dir / builder_class.name, config)
    except FileNotFoundError:
        return ""
    except InputError as error:
        print(f"{error}; the dataset that was built before is used", flush=True)
        return ""
    return sources.changes(read_metadata(directory).get("sources", {}), found, verify)


def resolve(
    name: str, settings: Mapping[str, Any]
) -> tuple[type[clip_builder.ClipBuilder], clip_builder.VideoConfig]:
    """The builder and the config that a name as 'msrvtt/7k' and settings mean.

    Raises:
      ValueError: unknown name, protocol or setting, or a value out of range.
    """
    base, slash, protocol = name.partition("/")
    check_choice("name", base, sorted(BUILDERS))
    builder_class = BUILDERS[base]
    protocols = [config.protocol for config in builder_class.BUILDER_CONFIGS]
    if slash and protocol not in filter(None, protocols):
        choices = ", ".join(f"{base}/{p}" if p else base for p in protocols)
        raise InputError(f"name: expected {choices}, got {name!r}")
    known = {field.name for field in dataclasses.fields(builder_class.CONFIG) if field.init}
    known -= {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)} | {"protocol"}
    unknown = sorted(set(settings) - known)
    if unknown:
        choices = ", ".join(sorted(known))
        raise InputError(f"settings: expected some of {choices}, got {', '.join(unknown)}")
    config = builder_class.CONFIG(protocol=protocol or protocols[0], **settings)
    # TFDS wants its own instance back where the values are those of a named config.
    return builder_class, builder_class.builder_configs.get(config.name, config)


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a prepared dataset's metadata: fps, short_side, jpeg_quality, look, protocol, decoder,
    accounting per split, notes, order_pairs, sources.
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
    clips = split["clips"]
    text = f"{name} {clips['used']:,}/{clips['expected']:,}"
    if not clips["used"]:
        text += ", left out"
    if unreadable := split["unreadable"]["count"]:
        text += f", {unreadable:,} unreadable"
    if remarked := split.get("remarks", {"count": 0})["count"]:
        text += f", {remarked:,} with remarks"
    return text
