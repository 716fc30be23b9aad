"""An index on disk, and what a search of it needs: its model, its clips, how examples are read."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.pretrained import Model, load
from ncl_jax.pretrained.preprocessing import StoredFrames
from ncl_jax.video_search.library import Library
from ncl_jax.video_search.manifest import KEY, manifest_of
from ncl_jax.video_search.run_clips import RunClips, clips_of
from ncl_jax.video_search.run_folder import index_of, run_of
from ncl_jax.video_search.snapshot import IndexSnapshot


class OpenedIndex(NamedTuple):
    """What the page is made of.

    Attributes:
      path: of the index.
      library: what is searched.
      model: what embeds queries.
      frames: how pictures and clips that are queries are read.
      run: the clips, where it is the index of a training run.
    """

    path: str
    library: Library
    model: Model
    frames: StoredFrames
    run: RunClips | None


def open_index(path: str | os.PathLike[str], roots: Iterable[Path] = ()) -> OpenedIndex:
    """The index of own videos, or of a finished run, for the page.

    Args:
      path: folder of the index, or workdir of the run.
      roots: see `Library`.

    Raises:
      ValueError: there is no such index, it was made from embeddings, or its model is another now.
    """
    file, workdir = index_of(path), run_of(path)
    if workdir is not None and not storage.exists(file):
        raise InputError(
            f"{workdir}: expected a finished run that has left an index, found none; run its "
            "command again, or choose a run whose head does not score pairs"
        )
    index = RetrievalIndex.load(file)
    if workdir is None:
        manifest_of(index)
    model = model_of(index, file)
    run = run_clips(index, file, model)
    library = Library(file, model.encode_text, model.fingerprint, roots, run)
    return OpenedIndex(file, library, model, frames_of(index, model), run)


def model_of(index: RetrievalIndex, path: str) -> Model:
    """The model that embedded the items of an index.

    Raises:
      ValueError: the index was made from embeddings, or the model was trained on since.
    """
    if KEY not in index.meta and "bank_captions" not in index.meta:
        raise InputError(
            f"{path} was built from embeddings and has no model; embed the query with the "
            "model that made them, and give it by --query Q.npy"
        )
    if KEY not in index.meta:
        return load(storage.file_of(path).parent.parent)
    manifest = manifest_of(index)
    model = load(manifest.run)
    if model.fingerprint != manifest.model:
        raise InputError(
            f"{manifest.run} was trained on after {path} was built; build the index again"
        )
    return model


def frames_of(index: RetrievalIndex, model: Model) -> StoredFrames:
    """How the items were read from files; own videos are seen as players show them."""
    frames = model.preprocessing.frames
    return dataclasses.replace(frames, look="shown") if KEY in index.meta else frames


def run_clips(index: RetrievalIndex, path: str, model: Model | None = None) -> RunClips | None:
    """The clips of a run whose index this is; None for an index that names its own files."""
    workdir = run_of(path)
    return None if workdir is None else clips_of(workdir, index, model.fingerprint if model else "")


def snapshot_of(index: RetrievalIndex, path: str) -> IndexSnapshot:
    """The items with their files.

    Raises:
      ValueError: the index was made from embeddings.
    """
    return IndexSnapshot.of(index, "", run=run_clips(index, path))
