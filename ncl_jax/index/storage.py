"""An index on disk: a folder of plain arrays, and a header that names them.

`index.json` has the version, a checksum of itself, the numbers and `meta` of the index, and of each
array its file, size and checksum. The items lie in one or more parts: `video-*.npy` [item, dim],
`bias-*.npy` [item], and their ids as one UTF-8 text, `text-*.npy`, with the end of each in it,
`ends-*.npy`.

A save writes the files that are not there yet, then replaces the header, then removes files that it
no longer names. So a crash leaves the old index, readers see the old one or the new one, and adding
an item costs the same whatever the size.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.errors import InputError, blame_input
from ncl_jax.files import remove_drafts, write_text
from ncl_jax.index import single_file
from ncl_jax.index.array_files import ArrayFile, Stored, remove_others
from ncl_jax.index.items import Ids
from ncl_jax.locks import locked
from ncl_jax.readers.text import parse_json

VERSION = 2
NAME = "index.json"
PART = ("video", "bias", "text", "ends")
"""Arrays of each part of the items."""
BANK = ("bank_text", "bank_bias")
"""Arrays of the bank."""
SUMS = ("row_sum",)
"""Arrays that change with every item."""
LARGE = {"video", "bank_text"}
"""Arrays that are mapped, and checked where asked for."""
_TRIES = 5


class Content(NamedTuple):
    """What an index is made of.

    Attributes:
      parts: the items, arrays by the names of `PART`.
      bank: arrays by the names of `BANK`.
      sums: arrays by the names of `SUMS`.
      fields: what JSON holds.
    """

    parts: Sequence[Stored]
    bank: Stored
    sums: Stored
    fields: dict[str, Any]


def file_of(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file that changes with the index: `path/index.json`; of format 1 the index itself."""
    path = pathlib.Path(path)
    if path.suffix == ".npz":
        return path
    file, single = path / NAME, path / single_file.NAME
    # Not by pathlib, which raises for texts that no file can be called.
    return single if os.path.isfile(single) and not os.path.exists(file) else file


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is an index."""
    return os.path.isfile(file_of(path))  # also of texts that no file can be called


def folder_of(path: str | os.PathLike[str]) -> pathlib.Path:
    """The folder to save to.

    Raises:
      InputError: `path` is the name of a `.npz`, as indexes of format 1 have.
    """
    path = pathlib.Path(path)
    if path.suffix == ".npz":
        raise InputError(
            f"{path}: expected a folder to save the index to; a .npz is read, but since format 2 "
            "no index is written to one"
        )
    return path


def write(path: str | os.PathLike[str], content: Content) -> None:
    """Writes all or nothing. A folder that holds the same already stays as it is.

    Raises:
      InputError: another process is changing it, see `changed`; or as `folder_of`.
      OSError: it cannot be written.
    """
    folder = folder_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    pieces = (*content.parts, content.bank, content.sums)
    with changed(path):
        for piece in pieces:
            piece.write(folder)
        *parts, bank, sums = ({n: asdict(f) for n, f in piece.files.items()} for piece in pieces)
        data = {**content.fields, "parts": parts, "bank": bank, "sums": sums}
        text = json.dumps({"version": VERSION, "sha256": digest(data), "data": data})
        file = folder / NAME
        if not file.is_file() or file.read_text("utf-8") != text:
            write_text(file, text)
        kept = [file for piece in pieces for file in piece.files.values()]
        remove_others(folder, (*PART, *BANK, *SUMS), kept)
        remove_drafts(folder)
        (folder / single_file.NAME).unlink(missing_ok=True)


@contextlib.contextmanager
def changed(path: str | os.PathLike[str]) -> Iterator[None]:
    """Held from reading an index to writing it, so that nobody's change in between is lost.

    Raises:
      InputError: another process has held it for `locks.SECONDS`.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, changed(folder):
      ...     pass  # read the index, change it, write it
    """
    path = pathlib.Path(path)
    with locked(path if path.suffix == ".npz" else path / NAME):
        yield


def read(path: str | os.PathLike[str], *, check: bool) -> Content:
    """What `write` has written, or an index of format 1.

    Args:
      path: the folder; or the `.npz` of format 1.
      check: whether the large arrays are read and compared with their checksums; the others are
        in any case.

    Raises:
      ValueError: no such file, not an index, damaged, or written by a newer version.
    """
    file = file_of(path)
    if not file.is_file():
        raise InputError(f"no index at {file}; build one with `python -m ncl_jax.cli.index build`")
    if file.suffix == ".npz":
        return _converted(*single_file.read(file), str(file))
    for attempt in range(_TRIES):
        header = _header(file)
        try:
            return _read(file.parent, header, check)
        except FileNotFoundError as error:  # somebody may have saved since the header was read
            if attempt == _TRIES - 1 or header == _header(file):
                raise InputError(f"{file} is damaged: there is no {error.filename}; "
                                 "build it again") from error  # fmt: skip
    raise AssertionError


class _Header(NamedTuple):
    parts: list[dict[str, ArrayFile]]
    bank: dict[str, ArrayFile]
    sums: dict[str, ArrayFile]
    fields: dict[str, Any]


def _header(file: pathlib.Path) -> _Header:
    problem = f"{file} is damaged or not an index"
    with blame_input(problem, "build it again"):
        content = parse_json(file.read_text("utf-8"), str(file), is_text=False)
        if not isinstance(content, dict) or not {"version", "sha256", "data"} <= content.keys():
            raise ValueError("it has other fields")
        version, data = int(str(content["version"])), content["data"]
    if version > VERSION:
        raise InputError(
            f"{file} has format {version}, this release reads up to {VERSION}; upgrade ncl_jax"
        )
    with blame_input(problem, "build it again"):
        if content["sha256"] != digest(data):
            raise ValueError("its checksum does not match")
        if not isinstance(data, dict) or not isinstance(data.get("parts"), list):
            raise ValueError("it names no parts")
        return _Header(
            [_files(part, PART) for part in data.pop("parts")],
            _files(data.pop("bank", None), BANK), _files(data.pop("sums", None), SUMS), data,
        )  # fmt: skip


def _files(content: Any, names: Sequence[str]) -> dict[str, ArrayFile]:
    if not isinstance(content, dict) or content.keys() != set(names):
        raise ValueError("it names other arrays")
    return {name: ArrayFile.from_json(name, content[name]) for name in names}


def _read(folder: pathlib.Path, header: _Header, check: bool) -> Content:
    *parts, bank, sums = (
        Stored.read(folder, files, large=LARGE, check=check)
        for files in (*header.parts, header.bank, header.sums)
    )
    return Content(parts, bank, sums, header.fields)


def _converted(arrays: dict[str, np.ndarray], fields: Any, file: str) -> Content:
    """Format 1 as format 2 has it."""
    problem, ids = f"{file} is not an index", fields.pop("ids", None)
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise InputError(f"{problem}: its ids are not strings; build it again")
    names = Ids.of(ids)
    arrays |= {"text": names.text, "ends": names.ends}
    if arrays.keys() != {*PART, *BANK, *SUMS}:
        raise InputError(f"{problem}: it has other arrays; build it again")
    part, bank, sums = (Stored({n: arrays[n] for n in names}) for names in (PART, BANK, SUMS))
    return Content([part], bank, sums, fields)


def digest(data: Any) -> str:
    """Of the header's content."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
