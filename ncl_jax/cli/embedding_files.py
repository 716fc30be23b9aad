"""Embeddings from `.npy` and `.npz`, and the ids of their rows."""

from collections.abc import Sequence

import numpy as np

from ncl_jax import arrays
from ncl_jax.errors import InputError, blame_input
from ncl_jax.readers import npy, text

ARRAYS = ("video", "text", "embedding")
QUERIES = ("query", "text", "embedding", "video")
BANK = ("bank_text", "text", "embedding")


def read_embeddings(
    path: str, ids: str | None = None, first: int = 0, usual: Sequence[str] = ARRAYS
) -> tuple[np.ndarray, list[str]]:
    """Rows and their names, from `.npy`, or `.npz` with its own ids.

    Without ids they are numbered from `first`.
    """
    file, name = npy.split_name(path)
    stored = npy.read(file, f"cannot read embeddings from {file}", "name another file")
    names = None
    if isinstance(stored, dict) and "ids" in stored:
        names = _names(stored.pop("ids"), path)
    rows = npy.pick(stored, file, name, usual)
    rows = arrays.single(rows, path)
    if rows.ndim != 2:
        raise InputError(f"{path} must hold numbers [row, dim], got shape {rows.shape}")
    if ids is not None:
        names = text.read_text(ids).split("\n")
        names = names[:-1] if names[-1] == "" else names
    if names is not None and len(names) != len(rows):
        raise InputError(f"{len(names)} ids for {len(rows)} rows of {path}; give one per row")
    return rows, names or [str(first + number) for number in range(len(rows))]


def _names(ids: np.ndarray, path: str) -> list[str]:
    """As text; bytes, as HDF5 keeps them, are UTF-8."""
    if ids.ndim != 1 or ids.dtype.kind not in "USiu":
        raise InputError(f"{path}: expected ids [row], texts or integers, got {ids.dtype}")
    with blame_input(f"{path}: expected ids in UTF-8", "save them as text"):
        names = np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids
    return [str(name) for name in names]
