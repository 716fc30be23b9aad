"""The index file: arrays and a JSON header in one `.npz`, with a version and a checksum."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ncl_jax.errors import InputError, blame_input
from ncl_jax.files import replaced
from ncl_jax.locks import locked
from ncl_jax.readers.npy import read_npz
from ncl_jax.readers.text import parse_json

VERSION = 1
NAME = "index.npz"


def file_of(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file itself: `path` where it ends in `.npz`, else `path/index.npz`."""
    path = pathlib.Path(path)
    return path if path.suffix == ".npz" else path / NAME


def write(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], header: Any) -> None:
    """Writes all or nothing: a crash leaves the old file, never half of a new one.

    A file that holds the same already stays as it is, so that its readers need not look again.

    Raises:
      InputError: another process is changing it, see `changed`.
      OSError: it cannot be written.
    """
    file, digest = file_of(path), _digest(arrays, header)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": VERSION, "sha256": digest, "data": header})
    with changed(path):
        if _holds(file, digest):
            return
        with replaced(file) as stream:
            np.savez(stream, header=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


@contextlib.contextmanager
def changed(path: str | os.PathLike[str]) -> Iterator[None]:
    """Held from reading an index to writing it, so that nobody's change in between is lost.

    Raises:
      InputError: another process has held it for `locks.SECONDS`.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, changed(folder):
      ...     write(folder, {"a": np.zeros(2)}, {})
    """
    with locked(file_of(path)):
        yield


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """(arrays, header) of a file that `write` made.

    Raises:
      ValueError: no such file, not an index, damaged, or written by a newer version.
    """
    file = file_of(path)
    if not file.is_file():
        raise InputError(f"no index at {file}; build one with `python -m ncl_jax.cli.index build`")
    problem, advice = f"{file} is damaged or not an index", "rebuild it"
    arrays = read_npz(file, problem, advice, stored=True)
    with blame_input(problem, advice):
        # Names of files may be no text.
        header = parse_json(arrays.pop("header").tobytes().decode(), str(file), is_text=False)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        if any(array.dtype.kind not in "biufcSU" for array in arrays.values()):
            raise ValueError("its arrays have other types")
        version, digest, data = int(str(header["version"])), header["sha256"], header["data"]
    if version > VERSION:
        raise InputError(
            f"{file} has format {version}, this release reads up to {VERSION}; upgrade ncl_jax"
        )
    if digest != _digest(arrays, data):
        raise InputError(f"{file} is damaged (its checksum does not match); rebuild it")
    return arrays, data


def _holds(file: pathlib.Path, digest: str) -> bool:
    try:
        return _digest(*read(file)) == digest
    except InputError:
        return False


def _digest(arrays: dict[str, np.ndarray], header: Any) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
