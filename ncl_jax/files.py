"""Files that others see whole or not at all, and names that fit on one line."""

import contextlib
import errno
import os
import pathlib
import re
import secrets
from collections.abc import Iterator
from typing import IO, Any

from ncl_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: what a killed save leaves stays there
    fcntl = None  # type: ignore[assignment]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_new_folder(folder: str | os.PathLike[str]) -> None:
    """Refuses a file, and a folder that holds something, so that nothing is overwritten.

    Raises:
      InputError: as said.

    Example:
      >>> check_new_folder("no/such/folder")
    """
    path = pathlib.Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: expected a new or empty folder to write to")


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], tidy: bool = True) -> Iterator[IO[bytes]]:
    """A new file in the place of `path`: whoever reads sees the old one or all of the new one.

    Where the writing fails, the old file stays and nothing is left beside it; what a killed process
    left is removed by the next call for the same path. A link stays a link to the file it names.
    What is no regular file (`/dev/stdout`, a pipe) is written to as it is.

    Args:
      path: of a file in a folder that exists; an `etils.epath.Path` may lie anywhere.
      tidy: whether to look for what a killed process left. Of many files in one folder say False,
        and call `remove_drafts` once.

    Yields:
      A binary stream to write to.

    Raises:
      OSError: the file cannot be written; of a full disk, in a sentence.

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
        if tidy:
            remove_drafts(place.parent, place.name)
    draft: Any = None
    try:
        with _new_draft(place) as (draft, stream):
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl:  # while it is locked: nobody takes it for one that was left
                draft.replace(place)
        if not fcntl:
            draft.replace(place)
    except BaseException as error:
        if draft is not None:
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _full(place, error) from error
        raise


@contextlib.contextmanager
def _new_draft(place: Any) -> Iterator[tuple[Any, IO[bytes]]]:
    """A file of a new name beside it; locked as long as its writer lives, so that it is known."""
    while True:
        draft = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        with draft.open("wb") as stream:  # with the usual permissions, unlike `tempfile`
            # Somebody else may take it for one that was left, before it is locked; they lock it
            # while they remove it.
            if not _lock(stream, wait=True) or os.fstat(stream.fileno()).st_nlink:
                yield draft, stream
                return


def remove_drafts(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """Removes what killed calls of `replaced` left in a folder, of one file or (None) of all."""
    form = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.\d+-[0-9a-f]{{8}}\.partial")
    with contextlib.suppress(OSError):
        for left in filter(form.fullmatch, os.listdir(folder)):
            draft = os.path.join(folder, left)
            with contextlib.suppress(OSError), open(draft, "rb") as stream:
                if _lock(stream):  # which a process that lives would hold
                    os.unlink(draft)


def _lock(stream: IO[bytes], wait: bool = False) -> bool:
    """Whether it could be locked; where not, there are no locks or, without `wait`, it is held."""
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (AttributeError, OSError):  # no such module, no such file system; not of epath's streams
        return False
    return True


def _full(place: Any, error: OSError) -> OSError:
    return OSError(
        f"{one_line(os.fspath(place))} could not be written: {os.strerror(error.errno or 0)}; what "
        "was there is as it was. Free space there, or choose another place, and run the same "
        "command again"
    )


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
