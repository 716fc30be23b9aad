"""The folder of a run: it can be written, every process sees it, and one job at a time owns it."""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator

from etils import epath

from ncl_jax.distributed import sync
from ncl_jax.errors import InputError

SECONDS_TO_APPEAR = 10.0
"""Until a network file system shows a new file everywhere."""


@contextlib.contextmanager
def owned(workdir: epath.Path) -> Iterator[None]:
    """Create the folder and keep other jobs out of it. The lock dies with the process.

    Raises:
      ValueError: it cannot be written, a process does not see it, or another job uses it.
    """
    mark = sync.run_on_primary("workdir", lambda: _mark(workdir))
    mark = sync.gather_texts("mark", mark or "")[0]
    sync.run_on_all("shared", lambda: _see(workdir / mark), InputError)
    handle = sync.run_on_primary("lock", lambda: _lock(workdir, mark))
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def prepare(workdir: epath.Path) -> None:
    """Create the folder and make sure that files can be written there.

    Raises:
      ValueError: they cannot.
    """
    if "://" in os.fspath(workdir):
        raise InputError(
            f"--workdir={workdir}: expected a folder of a file system, got an address; mount a "
            "bucket (gcsfuse, s3fs) and name the folder"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".writable-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"--workdir={workdir}: expected a folder that can be written, got: {error}"
        ) from error


def _mark(workdir: epath.Path) -> str:
    """Name of a new file in the folder, by which the others know it."""
    prepare(workdir)
    mark = f".shared-{secrets.token_hex(8)}"
    (workdir / mark).write_text("")
    return mark


def _see(mark: epath.Path) -> None:
    end = time.monotonic() + SECONDS_TO_APPEAR
    while not mark.exists():
        if time.monotonic() > end:
            raise InputError(
                f"--workdir={mark.parent}: expected one folder that all processes share; on "
                f"{os.uname().nodename} it is not the folder of process 0"
            )
        time.sleep(0.1)


def _lock(workdir: epath.Path, mark: str) -> int | None:
    (workdir / mark).unlink()
    handle = os.open(workdir / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 200).decode()
        os.close(handle)
        raise InputError(
            f"{workdir}: another run (process {owner}) uses this folder; wait for it, stop it, or "
            "give another --workdir"
        ) from None
    except OSError:
        return handle  # some network file systems have none either
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()} on {os.uname().nodename}".encode())
    return handle
