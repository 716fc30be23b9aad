"""Arrays in `.npy` files that are named by their content, written once and never changed."""

import contextlib
import hashlib
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import numpy as np

from ncl_jax.errors import InputError
from ncl_jax.files import replaced
from ncl_jax.readers import npy

_CHUNK = 1 << 24


@dataclass(frozen=True)
class ArrayFile:
    """What a header says of a file.

    Attributes:
      file: its name.
      size: its bytes.
      sha256: of all of it.
    """

    file: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> "ArrayFile":
        """The file that an array is written to."""
        sha256, size = hashlib.sha256(), 0
        for part in _serialized(array):
            sha256.update(part)
            size += len(part)
        return cls(f"{name}-{sha256.hexdigest()[:16]}.npy", size, sha256.hexdigest())

    @classmethod
    def from_json(cls, name: str, content: Any) -> "ArrayFile":
        """What `dataclasses.asdict` gave, of an array of this name.

        Raises:
          ValueError: something else.
        """
        if not isinstance(content, dict) or content.keys() != {"file", "size", "sha256"}:
            raise ValueError(f"it does not say which file holds {name}")
        file, size, sha256 = (content[key] for key in ("file", "size", "sha256"))
        if type(size) is not int or not re.fullmatch("[0-9a-f]{64}", str(sha256)):
            raise ValueError(f"it has no size or checksum of {name}")
        if file != f"{name}-{sha256[:16]}.npy":
            raise ValueError(f"it names another file for {name}")
        return cls(file, size, sha256)

    def wrong(self, stream: IO[bytes], *, whole: bool) -> str:
        """What is wrong with a file: its size or, where the `whole` of it is read, its content."""
        size = os.fstat(stream.fileno()).st_size
        if size != self.size:
            return f"{self.file} has {size:,} bytes in place of {self.size:,}"
        if whole and hashlib.file_digest(stream, "sha256").hexdigest() != self.sha256:  # type: ignore[arg-type]
            return f"the checksum of {self.file} does not match"
        stream.seek(0)
        return ""


class Stored:
    """Arrays that are written together, and what is known of their files.

    Nobody changes the arrays, so what was read or written once is neither hashed nor written again.

    Example:
      >>> import tempfile
      >>> sums = Stored({"row_sum": np.ones(2)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     sums.write(pathlib.Path(folder))
      ...     again = Stored.read(pathlib.Path(folder), sums.files, large=set(), check=True)
      >>> again.arrays["row_sum"].tolist()
      [1.0, 1.0]
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = arrays
        self._seen: set[tuple[int, ...]] = set()

    @cached_property
    def files(self) -> dict[str, ArrayFile]:
        """The files by the names of the arrays."""
        return {name: ArrayFile.of(name, array) for name, array in self.arrays.items()}

    def write(self, folder: pathlib.Path) -> None:
        """Writes the files that are not there, or not as they were written.

        Raises:
          OSError: one cannot be written.
        """
        for name, file in self.files.items():
            path = folder / file.file
            if not path.is_file() or not self._is_sound(path, file):
                with replaced(path, tidy=False) as stream:
                    for part in _serialized(self.arrays[name]):
                        stream.write(part)
                self._seen.add(_identity(path.stat()))

    def _is_sound(self, path: pathlib.Path, file: ArrayFile) -> bool:
        with path.open("rb") as stream:
            known = _identity(os.fstat(stream.fileno())) in self._seen
            return known or not file.wrong(stream, whole=True)

    @classmethod
    def read(
        cls, folder: pathlib.Path, files: dict[str, ArrayFile], *, large: set[str], check: bool
    ) -> "Stored":
        """The arrays of a folder.

        Args:
          folder: where they are.
          files: from the header.
          large: names of arrays to map into memory; the others are read and checked.
          check: whether the large ones are read and checked too.

        Raises:
          FileNotFoundError: a file is not there, or no more.
          InputError: a file is not the one that was written.
        """
        problem, advice = f"{folder} is damaged or not an index", "build it again"
        arrays: dict[str, np.ndarray] = {}
        stored = cls(arrays)
        for name, file in files.items():
            with (folder / file.file).open("rb") as stream:
                if wrong := file.wrong(stream, whole=check or name not in large):
                    raise InputError(f"{problem} ({wrong}); {advice}")
                array = npy.mapped(stream, problem, advice)
                stored._seen.add(_identity(os.fstat(stream.fileno())))
            arrays[name] = array if name in large else np.array(array)
        stored.files = files
        return stored


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Changes when the file does."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def remove_others(
    folder: pathlib.Path, names: Iterable[str], kept: Iterable[ArrayFile]
) -> None:
    """Removes files of arrays of these names that are not among those kept.

    What cannot be removed stays: on Windows a file that somebody searches.
    """
    ours = re.compile(rf"({'|'.join(names)})-[0-9a-f]{{16}}\.npy")
    for name in set(os.listdir(folder)) - {file.file for file in kept}:
        if ours.fullmatch(name):
            with contextlib.suppress(OSError):
                os.unlink(folder / name)


def _serialized(array: np.ndarray) -> Iterator[bytes | memoryview]:
    """What a `.npy` of the array holds, a part at a time."""
    yield _header(array)
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _CHUNK):
        yield flat[start : start + _CHUNK].data


def _header(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    fields = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()
