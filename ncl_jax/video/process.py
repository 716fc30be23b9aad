"""A helper process with a time limit: one request, one answer, over its pipes."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any, NamedTuple

_ROOT = pathlib.Path(__file__).parents[2]
# So much of what a process wrote before it ended is kept for the message.
_LAST_WORDS = 4000


class Answer(NamedTuple):
    """What a process has answered, or how it ended instead.

    Attributes:
      kind: a word of the process's own; or "late" (killed at the time limit), "killed" (by a
        signal, whose name is the data) or "ended" (with an exit code; the data says which, and
        what the process wrote to stderr).
      data: bytes.
    """

    kind: str
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace").strip()

    @property
    def account(self) -> str:
        """What a message says of a failure."""
        return f"it ended with {self.text}" if self.kind == "killed" else self.text


class Process:
    """`python -m module`, which reads lines of JSON and answers `<kind> <size>\\n<bytes>` to each.

    It says something of its own first, so that the caller knows when it has started.
    """

    def __init__(self, module: str):
        """Starts it by a list of arguments, so no shell ever sees a name."""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by `kill`
        path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def first_answer(self, seconds: float) -> Answer:
        """What it says when it has started."""
        return self._within(seconds, lambda: None)

    def ask(self, request: dict[str, Any], seconds: float) -> Answer:
        """Its answer to a request, or how it ended; after `seconds` it is killed."""

        def send() -> None:
            assert self._popen.stdin is not None
            self._popen.stdin.write(json.dumps(request).encode() + b"\n")
            self._popen.stdin.flush()

        return self._within(seconds, send)

    def kill(self) -> None:
        """Ends it and closes its pipes, from any thread; a call under way gets "killed"."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _within(self, seconds: float, send: Callable[[], None]) -> Answer:
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._popen.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            send()
            answer = self._read()
        except (BrokenPipeError, ValueError):  # it ended, or another thread has closed the pipes
            answer = None
        finally:
            timer.cancel()
        if late.is_set():
            return Answer("late", b"")
        return answer or self._ending()

    def _read(self) -> Answer | None:
        assert self._popen.stdout is not None
        header = self._popen.stdout.readline().split()
        if len(header) != 2:
            return None
        size = int(header[1])
        data = self._popen.stdout.read(size)
        return Answer(header[0].decode(), data) if len(data) == size else None

    def _ending(self) -> Answer:
        code = self._popen.wait()
        if code < 0:
            return Answer("killed", signal.Signals(-code).name.encode())
        written = b""
        with contextlib.suppress(ValueError, OSError):  # closed by another thread
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST_WORDS))
            written = self._errors.read()
        return Answer("ended", f"exit code {code}\n".encode() + written)
