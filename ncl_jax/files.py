"""Files that others see whole or not at all, and names that fit on one line."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file in the place of `path`: whoever reads sees the old one or all of the new one.

    Where the writing fails, the old file stays and nothing is left beside it. A link stays a link
    to the file it names. What is no regular file (`/dev/stdout`, a pipe) is written to as it is.

    Args:
      path: of a file in a folder that exists; an `etils.epath.Path` may lie anywhere.

    Yields:
      A binary stream to write to.

    Raises:
      OSError: the file cannot be written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with replaced(f"{folder}/a.txt") as stream:
      ...         _ = stream.write(b"new")
      ...     pathlib.Path(f"{folder}/a.txt").read_text()
      'new'
    """
    # An epath.Path is a PurePath with the methods of a Path.
    place: Any = path if isinstance(path, pathlib.PurePath) else pathlib.Path(path)
    if "://" not in os.fspath(place):
        if _is_stream(place):
            with open(place, "wb") as stream:
                yield stream
            return
        place = pathlib.Path(os.path.realpath(place))
    draft = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with draft.open("wb") as stream:  # with the usual permissions, unlike `tempfile`
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _is_stream(path: pathlib.Path) -> bool:
    """Whether replacing it would not reach its reader."""
    kept = os.path.abspath(path).startswith(("/dev/", "/proc/"))
    return os.path.exists(path) and (kept or not (os.path.isfile(path) or os.path.isdir(path)))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text in one step, see `replaced`; what UTF-8 cannot hold becomes "?"."""
    with replaced(path) as stream:
        stream.write(text.encode("utf-8", "replace"))


def one_line(text: str) -> str:
    """Names of files may hold anything but / and NUL; a line of output must stay one line.

    Example:
      >>> one_line("a\\nb")
      'a\\\\nb'
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
