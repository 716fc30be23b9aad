"""Saves under way when the program ends: they are finished first, or it says that they are lost."""

import atexit
import concurrent.futures.thread  # noqa: F401  before ours: the last one registered comes first
import os
import sys
import threading
from typing import Protocol


class Unfinished(Protocol):
    """What may have something to write yet."""

    def wait(self) -> None: ...


_waiting: set[Unfinished] = set()
_lost: list[BaseException] = []


def add(saver: Unfinished) -> None:
    """`saver.wait` is called when the program ends; the saver lives until then, or `discard`."""
    _waiting.add(saver)


def discard(saver: Unfinished) -> None:
    """It has been waited for."""
    _waiting.discard(saver)


def _finish() -> None:
    for saver in list(_waiting):
        try:
            saver.wait()
        except Exception as error:
            _lost.append(error)
            print(f"at the end of the program: {_explained(error)}", file=sys.stderr)
    if _lost:
        # Python would wait for Orbax's threads first, and they for one that was never started.
        atexit._run_exitfuncs()  # `_fail` is the last of them


def _explained(error: Exception) -> str:
    # Python 3.12 starts no thread from here on, 3.11 and 3.13 do.
    if isinstance(error, RuntimeError) and "new thread at interpreter shutdown" in str(error):
        return (
            "a checkpoint could not be written, because this Python starts no threads any more; "
            "call `close()` of its Checkpointer before the script ends"
        )
    return str(error)


def _fail() -> None:
    """A lost checkpoint is no success."""
    if _lost:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


atexit.register(_fail)
# `atexit` itself comes when no thread can be started any more, which writing needs.
getattr(threading, "_register_atexit", atexit.register)(_finish)
