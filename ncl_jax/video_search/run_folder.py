"""Which paths mean a training run; imports nothing that takes long."""

import os
import pathlib

from ncl_jax.index import storage

CHECKPOINTS, INDEX = "checkpoints", "index"
"""As in `ncl_jax.pretrained.checkpoint`, which imports JAX."""


def run_of(path: str | os.PathLike[str]) -> pathlib.Path | None:
    """The workdir of a run, where `path` is that or the index in it; else None."""
    file = storage.file_of(path)
    for workdir in (pathlib.Path(path), file.parent.parent):
        own = workdir == pathlib.Path(path) or file == storage.file_of(workdir / INDEX)
        # Not by pathlib, which raises for texts that no file can be called.
        if own and os.path.isdir(workdir / CHECKPOINTS):
            return workdir
    return None


def index_of(path: str | os.PathLike[str]) -> str:
    """The index that a path means: itself, or that of the run it is the workdir of."""
    workdir = run_of(path)
    return os.fspath(path) if workdir is None else os.fspath(workdir / INDEX)
