"""Keeps to itself what Orbax and TensorStore print about a checkpoint they cannot read or write.

What went wrong is raised, in one sentence; their many parallel parts each report the same again:
in logs, in tasks and coroutines that nobody awaits, and from threads that come back to an event
loop that is closed, some of them after the work has ended.
"""

import contextlib
import gc
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

_THEIRS = ("orbax/checkpoint/", "tensorstore/", "etils/epath/")
_LOGGERS = ("absl", "asyncio")
_changing, _work = threading.Lock(), 0


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Nothing of work that fails reaches stderr but what is raised, now or later.

    Example:
      >>> with quietly():
      ...     pass  # read
    """
    begin()
    try:
        yield
    except Exception:
        gc.collect()  # what nobody awaits is complained of here, and not in the midst of a line
        raise
    end()


def begin() -> None:
    """From here to `end` the filters are in place.

    Work that fails does not call it, and they stay for the rest of the process, as its echoes do.
    """
    global _work
    with _changing:
        _work += 1
        if not isinstance(sys.unraisablehook, _Hook):
            sys.unraisablehook = _Hook(sys.unraisablehook)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_not_theirs)  # once, however often


def end() -> None:
    """The work of one `begin` went well."""
    global _work
    with _changing:
        _work -= 1
        if _work:
            return
        if isinstance(sys.unraisablehook, _Hook):
            sys.unraisablehook = sys.unraisablehook.before
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(_not_theirs)


class _Hook:
    """Passes on to the hook there was what is not theirs."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        files = [*_files(unraisable.exc_traceback), getattr(code, "co_filename", "")]
        closed = "Event loop is closed" in str(unraisable.exc_value)
        if not (closed or _of_theirs(files)):
            self.before(unraisable)


def _not_theirs(record: logging.LogRecord) -> bool:
    """Whether a record is about other things.

    What asyncio says of a task names the file of its coroutine; what it says of a gathered future
    has its traceback; a future of TensorStore has neither, but begins with the code of its status.
    """
    if record.name == "absl":
        return not _of_theirs([record.pathname])
    _, error, trace = record.exc_info or (None, None, None)
    status = trace is None and re.match(r"[A-Z_]+: ", str(error)) is not None
    return not (status or _of_theirs([record.getMessage(), *_files(trace)]))


def _files(trace: TracebackType | None) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(trace)]


def _of_theirs(files: list[str]) -> bool:
    return any(part in file for file in files for part in _THEIRS)
