"""The videos of a folder into an index; see `gallery` for what is kept."""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from ncl_jax import gallery, trained
from ncl_jax.cli.index import build_index
from ncl_jax.index import RetrievalIndex, storage

SECONDS_BETWEEN_SAVES = 60.0
JPEG_QUALITY = 90


def build(args: argparse.Namespace) -> Iterator[str]:
    """Embeds what is new or changed, drops what is gone, and fits the biases of all windows.

    The result is the one a build from nothing would give. What was embedded is saved on the way:
    a build that was interrupted goes on where it was.

    Raises:
      ValueError: no video to embed, or a run or index that does not serve.
    """
    if args.window < 1:
        raise ValueError(f"--window: expected at least 1 second, got {args.window:g}")
    files = gallery.find_files(args.videos)
    model = trained.load(args.checkpoint)
    about = {
        "folder": os.path.abspath(args.videos),
        "run": os.path.abspath(args.checkpoint),
        "model": model.fingerprint,
        "window": args.window,
    }
    old = _known(args.index, about)
    entries = {name: entry for name, entry in old.items() if files.get(name) == entry.stamp}
    todo = {name: stamp for name, stamp in files.items() if name not in entries}
    yield f"{len(files)} files: {len(todo)} to embed, {len(entries)} known, " \
          f"{len(set(old) - set(files))} gone"
    _embed(args, model, todo, entries, about)
    for name in todo:
        if entries[name].error:
            yield f"skipped: {entries[name].error}"
    index = _finish(args, model, entries, about)
    yield f"{len(index)} windows of {sum(not e.error for e in entries.values())} files, bank of " \
          f"{len(index.bank_text)} texts -> {args.index}"


def _known(path: str, about: dict[str, Any]) -> dict[str, gallery.Entry]:
    """What the index already knows of the same files through the same model."""
    if not storage.file_of(path).exists():
        return {}
    index = RetrievalIndex.load(path)
    before = index.meta.get("gallery")
    if before is None:
        raise ValueError(f"{path}: an index of other things than videos is there; name another")
    same = all(before[key] == value for key, value in about.items() if key != "run")
    return gallery.entries_of(index) if same else {}


def _embed(
    args: argparse.Namespace,
    model: trained.Trained,
    todo: dict[str, gallery.Stamp],
    entries: dict[str, gallery.Entry],
    about: dict[str, Any],
) -> None:
    """Fills `entries`, saving now and then and when interrupted."""
    settings = model.config.data.settings
    reading = gallery.Reading(
        args.window, settings.fps, settings.short_side, settings.get("jpeg_quality", JPEG_QUALITY)
    )
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
            f"interrupted; {len(entries)} files are kept in {args.index}, the same command goes on",
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
    RetrievalIndex.build(ids, rows, meta=_meta(entries, about, complete=False)).save(args.index)


def _finish(
    args: argparse.Namespace,
    model: trained.Trained,
    entries: dict[str, gallery.Entry],
    about: dict[str, Any],
) -> RetrievalIndex:
    bank = RetrievalIndex.load(pathlib.Path(args.checkpoint) / "index")
    ids, rows = gallery.rows_of(entries)
    if not ids:
        raise ValueError(f"{args.videos}: expected at least one video that can be read, found none")
    index = build_index(
        ids, rows, bank.bank_text, bank.scale, args.iterations, args.strength,
        _meta(entries, about, complete=True)
        | {"bank_captions": bank.meta.get("bank_captions", [])},
    )  # fmt: skip
    index.save(args.index)
    return index


def _meta(
    entries: dict[str, gallery.Entry], about: dict[str, Any], *, complete: bool
) -> dict[str, Any]:
    return {"gallery": about | {"complete": complete, "files": gallery.account(entries)}}
