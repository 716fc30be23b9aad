"""Finishes saves in progress when the program ends, or reports that they failed."""

import atexit
import concurrent.futures.thread  # noqa: F401  before ours: exit hooks run last to first
import os
import sys
import threading
from typing import Protocol


class Unfinished(Protocol):
    """An object that may still have something to write."""

    def wait(self) -> None: ...


_waiting: set[Unfinished] = set()
_failures: list[BaseException] = []


def add(saver: Unfinished) -> None:
    """Call `saver.wait` when the program ends; keeps the saver alive until then or `discard`."""
    _waiting.add(saver)


def discard(saver: Unfinished) -> None:
    """Undo `add`, because the saver has been waited for."""
    _waiting.discard(saver)


def _finish() -> None:
    for saver in list(_waiting):
        try:
            saver.wait()
        except Exception as error:
            _failures.append(error)
            print(f"at the end of the program: {_message(error)}", file=sys.stderr)
    if _failures:
        # Python would first wait for Orbax's threads, which wait for a thread that never started.
        atexit._run_exitfuncs()  # ends in `_exit_on_failure`


def _message(error: Exception) -> str:
    # At this point Python 3.12 starts no threads; 3.11 and 3.13 do.
    if isinstance(error, RuntimeError) and "new thread at interpreter shutdown" in str(error):
        return (
            "a checkpoint could not be written, because this Python starts no threads during its "
            "exit; call `close()` of its Checkpointer before the script ends"
        )
    return str(error)


def _exit_on_failure() -> None:
    """Exit with code 1 if a checkpoint could not be written."""
    if _failures:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


atexit.register(_exit_on_failure)
# Writing needs new threads, and `atexit` callbacks run too late to start any.
getattr(threading, "_register_atexit", atexit.register)(_finish)
