"""`.npy` and `.npz` of plain types, whose headers are believed as far as there are bytes."""

import io
import math
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from ncl_jax.errors import InputError, blame_input
from ncl_jax.readers import limits

_CHUNK = 1 << 24
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(
    path: str | os.PathLike[str], problem: str, advice: str
) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a `.npy`, or the arrays of a `.npz` by their names.

    Args:
      path: what is in the file decides, not its name.
      problem: start of the sentence if it cannot be read, see `errors.blame_input`.
      advice: end of it.

    Returns:
      Arrays of numbers, booleans, text, bytes or dates; text is valid Unicode.

    Raises:
      ValueError: neither, damaged, or arrays of objects or records.
    """
    with blame_input(problem, advice, _control), open(path, "rb") as stream:
        start = stream.read(4)
        stream.seek(0)
        if start == b"PK\x03\x04":
            return _members(stream, limits.RATIO)
        return _array(stream, os.fstat(stream.fileno()).st_size)


def read_npz(
    path: str | os.PathLike[str], problem: str, advice: str, *, stored: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` by their names.

    Args:
      path: an `etils.epath.Path` may lie anywhere.
      problem: as in `read`.
      advice: as there.
      stored: whether compressed arrays are refused.

    Raises:
      ValueError: as `read`.
    """
    place: Any = path if isinstance(path, pathlib.PurePath) else pathlib.Path(path)
    with blame_input(problem, advice, _control), place.open("rb") as stream:
        return _members(stream, 1 if stored else limits.RATIO)


def mapped(stream: IO[bytes], problem: str, advice: str) -> np.ndarray:
    """The array of a `.npy` as a read-only memory map: no more is read than is used.

    Args:
      stream: a local file, at its start, whose array is stored by rows; it may be closed then.
      problem: as in `read`.
      advice: as there.

    Raises:
      ValueError: as `read`; also an array that is stored by columns.
    """
    with blame_input(problem, advice, _control):
        shape, fortran, dtype = _header(stream, os.fstat(stream.fileno()).st_size)
        if fortran:
            raise ValueError("it is stored by columns")
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        return np.asarray(np.memmap(stream, dtype, "r", stream.tell(), shape))


def split_name(path: str) -> tuple[str, str]:
    """("file.npz", "text") of "file.npz:text"; the name is "" where there is none.

    Example:
      >>> split_name("embeddings.npz:bank_text")
      ('embeddings.npz', 'bank_text')
    """
    file, colon, name = path.rpartition(":")
    known = file.endswith((".npz", ".npy")) or os.path.exists(file)
    return (file, name) if colon and known and not os.path.exists(path) else (path, "")


def pick(
    stored: np.ndarray | dict[str, np.ndarray], file: str, name: str, usual: Sequence[str]
) -> np.ndarray:
    """The one array of a file that is meant.

    Args:
      stored: from `read`.
      file: for messages.
      name: of the array, from `split_name`; "" for the first of `usual`, or the only array.
      usual: names that are looked for.

    Raises:
      ValueError: no such array, or several and none of the usual names.

    Example:
      >>> pick({"text": np.ones(2), "video": np.zeros(3)}, "e.npz", "", ("text",)).tolist()
      [1.0, 1.0]
    """
    if isinstance(stored, np.ndarray):
        if name:
            raise InputError(f"{file}: expected a .npz with {name!r}, got a .npy of one array "
                             "without a name; give the file alone")  # fmt: skip
        return stored
    wanted = [name] if name else [*usual, *stored][: len(usual) + (len(stored) == 1)]
    for each in wanted:
        if each in stored:
            return stored[each]
    listed = ", ".join(stored) or "none"
    example = f"; name one, as {file}:{next(iter(stored))}" if stored else ""
    raise InputError(f"{file}: expected {'the array ' + repr(name) if name else 'one array'}, got "
                     f"{listed}{example}")  # fmt: skip


def _control() -> None:
    """Reads what is sound; an error here is a fault of the program."""
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(2), b=np.asarray(["é"]))
    assert _members(stream, 1)["a"].sum() == 2


def _members(stream: IO[bytes], ratio: int) -> dict[str, np.ndarray]:
    length = stream.seek(0, os.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if len(members) > limits.ARRAYS:
            raise ValueError(f"it has more than {limits.ARRAYS} arrays")
        if sum(member.compress_size for member in members) > length:
            raise ValueError("its arrays share their bytes")
        arrays = {}
        for member in members:
            small = limits.SMALL if ratio > 1 else 0
            if member.file_size > max(ratio * member.compress_size, small):
                raise ValueError(f"an array unfolds to more than {ratio} times its bytes")
            with archive.open(member) as part:
                arrays[member.filename.removesuffix(".npy")] = _array(part, member.file_size)
        return arrays


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether by columns, type) of the array in a stream of `size` bytes."""
    if (magic := stream.read(6)) != b"\x93NUMPY":
        raise ValueError(f"it begins with {magic!r} and is no NumPy array")
    version: Any = tuple(stream.read(2))
    if version not in _HEADERS:
        raise ValueError(f"it is an array of format {version}, expected 1 or 2")
    shape, fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject or dtype.kind not in "biufcSUmM" or dtype.subdtype:
        raise ValueError(f"expected numbers or text, got the type {str(dtype)[:40]}")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or max(count * dtype.itemsize, count) > size or len(shape) > 32:
        raise ValueError(f"it says shape {str(shape)[:60]} and has {size:,} bytes")
    return shape, fortran, dtype


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array of a stream of `size` bytes."""
    shape, fortran, dtype = _header(stream, size)
    flat = np.empty(math.prod(shape), dtype)
    if flat.nbytes:
        _fill(memoryview(flat.view(np.uint8)), stream)
    if dtype.kind == "U":
        _check_unicode(flat)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _fill(target: memoryview, stream: IO[bytes]) -> None:
    done = 0
    while done < len(target):
        part = stream.read(min(_CHUNK, len(target) - done))
        if not part:
            raise ValueError("it ends before its last number")
        target[done : done + len(part)] = part
        done += len(part)
    stream.read(1)  # at the end of a zip's member its checksum is compared


def _check_unicode(flat: np.ndarray) -> None:
    if not flat.nbytes:
        return
    points = (flat if flat.dtype.isnative else flat.byteswap()).view(np.uint32)
    if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
        raise ValueError("its text has numbers that are no characters")
