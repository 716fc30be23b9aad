"""The videos of a folder into an index; see `gallery` for what is kept."""

import argparse
import math
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

from ncl_jax.errors import InputError
from ncl_jax.experiment.encoder import Trained, load
from ncl_jax.files import one_line
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.video import decode
from ncl_jax.video_search import gallery

SECONDS_BETWEEN_SAVES = 60.0
JPEG_QUALITY = 90


def build(args: argparse.Namespace) -> Iterator[str]:
    """Embeds what is new or changed, drops what is gone, and fits the biases of all windows.

    The result is the one a build from nothing would give. What was embedded is saved on the way,
    beside the index: a build that was interrupted goes on where it was, and the index stays as it
    is until the new one is whole.

    Raises:
      ValueError: no video to embed, or arguments, a run or an index that do not serve.
    """
    _check(args)
    files = gallery.find_files(args.videos)
    model, bank = load(args.checkpoint), _bank(args.checkpoint)
    _check_writable(args.index)
    about = {
        "folder": os.path.abspath(args.videos),
        "run": os.path.abspath(args.checkpoint),
        "model": model.fingerprint,
        "window": args.window,
        "frames": decode.VERSION,
    }
    old = _known(args.index, about, files)
    entries = gallery.still_true(old, files)
    todo = {name: stamp for name, stamp in files.items() if name not in entries}
    gone = {entry.stamp for entry in old.values()} - set(files.values())
    yield f"{len(files)} files: {len(todo)} to embed, {len(entries)} known, " \
          f"{len(gone)} gone or changed"
    _embed(args, model, todo, entries, about)
    for name in todo:
        if entries[name].error:
            yield f"skipped: {one_line(name)}: {entries[name].error}"
        for remark in entries[name].remarks:
            yield f"remark: {one_line(name)}: {remark}"
    index = _finish(args, bank, entries, about)
    yield f"{len(index)} windows of {_readable(entries)} files, bank of " \
          f"{len(index.bank_text)} texts -> {args.index}"


def _check(args: argparse.Namespace) -> None:
    """What is wrong with the arguments alone; embedding may take hours."""
    for name in ("ids", "bank_text", "scale"):
        if getattr(args, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} goes with --video; with --videos the files and the "
                "run of --checkpoint give it"
            )
    if not args.videos:
        raise InputError("--videos: expected a folder of videos, got an empty name")
    if not args.checkpoint:
        raise InputError("--videos: expected --checkpoint WORKDIR too, the run that embeds them")
    if not 1 <= args.window < math.inf:
        raise InputError(f"--window: expected a number of seconds from 1, got {args.window:g}")
    if not args.timeout > 0:
        raise InputError(f"--timeout: expected a number of seconds above 0, got {args.timeout:g}")
    if args.give_up_after < 0:
        raise InputError(f"--give-up-after: expected at least 0, got {args.give_up_after}")
    if args.iterations < 0:
        raise InputError(f"--iterations: expected at least 0, got {args.iterations}")
    if not 0 <= args.strength <= 1:
        raise InputError(f"--strength: expected a number from 0 to 1, got {args.strength:g}")


def _bank(workdir: str) -> RetrievalIndex:
    """The index that the run left: its captions and scale."""
    path = pathlib.Path(workdir) / "index"
    if not storage.file_of(path).exists():
        raise InputError(
            f"{workdir} has no index yet: expected a finished run; let it finish first"
        )
    return RetrievalIndex.load(path)


def _check_writable(path: str) -> None:
    """Tries it out: rights and free space are not all that can be wrong."""
    file = storage.file_of(path)
    try:
        if file.is_dir():
            raise IsADirectoryError("it is a folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise InputError(f"cannot write {file}: {error}; name another INDEX") from error


def _partial(path: str) -> pathlib.Path:
    """Where an unfinished build keeps what it has embedded."""
    return storage.file_of(path).with_suffix(".partial.npz")


def _known(
    path: str, about: dict[str, Any], files: Mapping[str, gallery.Stamp]
) -> dict[str, gallery.Entry]:
    """What the index, or a build that was interrupted, knows of the files through this model.

    Raises:
      ValueError: it is no index of videos, or one of another folder's.
    """
    known = _entries(storage.file_of(path), about, files)
    try:
        return known | _entries(_partial(path), about, files)
    except InputError as error:  # it is nobody's but ours, and will be written again
        print(f"{error}: what it held is embedded again", file=sys.stderr)
        return known


def _entries(
    path: pathlib.Path, about: dict[str, Any], files: Mapping[str, gallery.Stamp]
) -> dict[str, gallery.Entry]:
    if not path.exists():
        return {}
    try:
        index = RetrievalIndex.load(path)
    except InputError as error:
        raise InputError(f"{path} cannot be read as an index; remove it or name another") from error
    before = index.meta.get("gallery")
    if before is None:
        raise InputError(f"{path}: an index of other things than videos is there; name another")
    # The folder itself may have moved; with none of its files it is another one.
    if before["folder"] != about["folder"] and not set(before["files"]) & set(files):
        raise InputError(
            f"{path} holds {len(before['files'])} videos of {before['folder']}, none of which is "
            f"in {about['folder']}; name another INDEX, or remove it first"
        )
    same = all(before.get(key) == about[key] for key in ("model", "window", "frames"))
    return gallery.entries_of(index) if same else {}


def _embed(
    args: argparse.Namespace,
    model: Trained,
    todo: dict[str, gallery.Stamp],
    entries: dict[str, gallery.Entry],
    about: dict[str, Any],
) -> None:
    """Fills `entries`, saving now and then and when interrupted."""
    settings = model.config.data.settings
    reading = gallery.Reading(
        args.window, settings.fps, settings.short_side,
        settings.get("jpeg_quality", JPEG_QUALITY), args.timeout, args.give_up_after,
    )  # fmt: skip
    batch, saved = model.config.eval.batch_size, time.monotonic()
    progress = tqdm(total=len(todo), unit=" file", disable=not todo, dynamic_ncols=True)
    embedded = gallery.embed_files(args.videos, todo, model.encode_video, reading, batch)
    try:
        for name, entry in embedded:
            entries[name] = entry
            progress.update()
            if time.monotonic() > saved + SECONDS_BETWEEN_SAVES:
                _save_partial(args, entries, about)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _save_partial(args, entries, about)
        print(
            f"interrupted; {_readable(entries)} files are kept in {_partial(args.index)}, the same "
            "command goes on",
            file=sys.stderr,
        )
        sys.exit(130)
    finally:
        embedded.close()
        progress.close()


def _save_partial(
    args: argparse.Namespace, entries: dict[str, gallery.Entry], about: dict[str, Any]
) -> None:
    """Embeddings without biases: quick to write, and all that going on needs."""
    ids, rows = gallery.rows_of(entries)
    RetrievalIndex.build(ids, rows, meta=_meta(entries, about)).save(_partial(args.index))


def _finish(
    args: argparse.Namespace,
    bank: RetrievalIndex,
    entries: dict[str, gallery.Entry],
    about: dict[str, Any],
) -> RetrievalIndex:
    ids, rows = gallery.rows_of(entries)
    if not ids:
        raise InputError(f"{args.videos}: expected at least one video that can be read, found none")
    index = RetrievalIndex.build(
        ids, rows, bank.bank_text, scale=bank.scale, iterations=args.iterations,
        strength=args.strength,
        meta=_meta(entries, about) | {"bank_captions": bank.meta.get("bank_captions", [])},
    )  # fmt: skip
    index.save(args.index)
    _partial(args.index).unlink(missing_ok=True)
    return index


def _meta(entries: dict[str, gallery.Entry], about: dict[str, Any]) -> dict[str, Any]:
    return {"gallery": about | {"files": gallery.account(entries)}}


def _readable(entries: dict[str, gallery.Entry]) -> int:
    """Files that could be read."""
    return sum(not entry.error for entry in entries.values())
