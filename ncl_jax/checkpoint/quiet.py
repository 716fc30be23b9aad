"""Keeps to itself what Orbax and TensorStore print about a checkpoint they cannot read or write.

What went wrong is raised, in one sentence; their many parallel parts each report the same again:
in logs, in tasks and coroutines that nobody awaits, and from threads that come back to an event
loop that is closed, some of them after the work has ended.
"""

import contextlib
import gc
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
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
        frames = traceback.extract_tb(unraisable.exc_traceback)
        code = getattr(unraisable.object, "cr_code", None)
        files = [*(frame.filename for frame in frames), getattr(code, "co_filename", "")]
        closed = "Event loop is closed" in str(unraisable.exc_value)
        if not (closed or any(part in file for file in files for part in _THEIRS)):
            self.before(unraisable)


def _not_theirs(record: logging.LogRecord) -> bool:
    """Whether a record is about other things; a task names the file of its coroutine."""
    where = record.pathname if record.name == "absl" else record.getMessage()
    return not any(part in where for part in _THEIRS)
