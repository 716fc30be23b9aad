"""One process at a time for a file that is read, changed and written again."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator

import filelock

from ncl_jax.errors import InputError
from ncl_jax.files import one_line

SECONDS = 60.0
"""How long another process is waited for where nothing else is said."""


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], seconds: float | None = None) -> Iterator[None]:
    """Keeps others that lock the same path out, until the block ends or the process does.

    Hold it from reading to writing: `files.replaced` keeps a file whole, but of two processes that
    read the same and write in turn only the second's change would stay. Within a thread a lock may
    be taken again. Readers need none.

    Args:
      path: a file or folder, there or not; `.NAME.lock` beside it is what is locked, and is removed
        again. Where nothing can be locked (a folder that cannot be written or is not there, an
        object store), nothing is: writing will say why.
      seconds: how long to wait for another process; `SECONDS` for None, `math.inf` for ever.

    Raises:
      InputError: another process has held it for so long.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, locked(f"{folder}/a.txt"):
      ...     pass  # read a.txt, change it, write it
    """
    seconds = SECONDS if seconds is None else seconds
    folder, name = os.path.split(os.path.realpath(path))
    # One object per path, so that a thread that holds it may take it again.
    lock = filelock.FileLock(os.path.join(folder, f".{name}.lock"), is_singleton=True)
    there = "://" not in os.fspath(path) and os.path.isdir(folder)  # filelock would make it
    held = there and _acquire(lock, one_line(os.fspath(path)), seconds)
    try:
        yield
    finally:
        if held:
            if lock.lock_counter == 1:  # who waits sees that it is gone, and makes a new one
                with contextlib.suppress(OSError):
                    os.unlink(lock.lock_file)
            lock.release()


def _acquire(lock: filelock.BaseFileLock, name: str, seconds: float) -> bool:
    """Whether it is held now; not where nothing can be locked."""
    try:
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=0)
            return True
        limit = "" if seconds == math.inf else f", {seconds:g} seconds at most"
        print(f"{name}: another process is at work on it; waiting{limit}", file=sys.stderr)
        lock.acquire(timeout=-1 if seconds == math.inf else seconds)
        return True
    except filelock.Timeout:
        raise InputError(
            f"{name}: another process is still at work on it after {seconds:g} seconds; run this "
            "command again when that one has ended"
        ) from None
    except (OSError, NotImplementedError):
        return False
