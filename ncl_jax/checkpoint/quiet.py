"""Suppresses what Orbax and TensorStore print about a checkpoint they cannot read or write.

The package raises one sentence about the failure. The parallel parts of these libraries report the
same failure again: in logs, in tasks and coroutines that were never awaited, and from threads that
return to a closed event loop, some of them after the work has ended.
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

_LIBRARIES = ("orbax/checkpoint/", "tensorstore/", "etils/epath/")
_LOGGERS = ("absl", "asyncio")
_changing, _work = threading.Lock(), 0


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Work that fails raises its exception and prints nothing to stderr, now or later.

    Example:
      >>> with quietly():
      ...     pass  # read
    """
    begin()
    try:
        yield
    except Exception:
        gc.collect()  # reports never-awaited coroutines here, where the filters drop them
        raise
    end()


def begin() -> None:
    """Install the filters; `end` removes them.

    After a failure, `end` is not called: late reports may follow for the rest of the process, and
    the filters stay for them.
    """
    global _work
    with _changing:
        _work += 1
        if not isinstance(sys.unraisablehook, _Hook):
            sys.unraisablehook = _Hook(sys.unraisablehook)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_is_foreign)  # adding it again has no effect


def end() -> None:
    """Report that the work of one `begin` succeeded; the last one removes the filters."""
    global _work
    with _changing:
        _work -= 1
        if _work:
            return
        if isinstance(sys.unraisablehook, _Hook):
            sys.unraisablehook = sys.unraisablehook.before
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(_is_foreign)


class _Hook:
    """Passes on to the previous hook what Orbax and TensorStore did not cause."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        files = [*_files(unraisable.exc_traceback), getattr(code, "co_filename", "")]
        closed = "Event loop is closed" in str(unraisable.exc_value)
        if not (closed or _from_libraries(files)):
            self.before(unraisable)


def _is_foreign(record: logging.LogRecord) -> bool:
    """Whether a log record comes from anything but Orbax and TensorStore.

    asyncio's record of a task names the file of its coroutine, and that of a gathered future has a
    traceback. That of a TensorStore future has neither, but its error starts with a status code.
    """
    if record.name == "absl":
        return not _from_libraries([record.pathname])
    _, error, trace = record.exc_info or (None, None, None)
    status = trace is None and re.match(r"[A-Z_]+: ", str(error)) is not None
    return not (status or _from_libraries([record.getMessage(), *_files(trace)]))


def _files(trace: TracebackType | None) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(trace)]


def _from_libraries(files: list[str]) -> bool:
    return any(part in file for file in files for part in _LIBRARIES)
