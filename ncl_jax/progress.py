"""What a command is doing while nothing else of it can be seen."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

SECOND = 1.0
_CLEAR = "\x1b[2K\r"


@contextlib.contextmanager
def announced(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """Says at once what begins; in a terminal a clock runs until it ends.

    Whatever writes to the terminal meanwhile may stand in the line of the clock.

    Args:
      what: as "compiling the training step".
      stream: default `sys.stdout` of this moment.

    Example:
      >>> with announced("importing JAX"):
      ...     import jax
      importing JAX ...
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        print(f"{what} ...", file=stream, flush=True)
        yield
        return
    begin, over = time.monotonic(), threading.Event()

    def show(ending: str) -> None:
        print(f"{_CLEAR}{what} ... {time.monotonic() - begin:.0f} s", end=ending, file=stream,
              flush=True)  # fmt: skip

    def tick() -> None:
        while not over.wait(SECOND):
            show("\r")

    show("\r")
    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()
        show("\n")
