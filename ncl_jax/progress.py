"""What a command is doing while nothing else of it can be seen."""

import collections
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    begin = time.monotonic()

    def show(ending: str = "\r") -> None:
        print(f"{_CLEAR}{what} ... {time.monotonic() - begin:.0f} s", end=ending, file=stream,
              flush=True)  # fmt: skip

    show()
    try:
        with ticking(show):
            yield
    finally:
        show("\n")


@contextlib.contextmanager
def ticking(show: Callable[[], object]) -> Iterator[None]:
    """Calls `show` every second, from another thread, until what is inside ends.

    Example:
      >>> with ticking(lambda: print("still at it")):
      ...     pass
    """
    over = threading.Event()

    def tick() -> None:
        while not over.wait(SECOND):
            show()

    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()


class Steps:
    """Named steps of known number, with the time that is left: a line of its own on `stream`.

    In a terminal the line changes every second, in a file a new one comes every `EVERY` seconds.
    """

    EVERY = 10.0

    def __init__(self, estimate: "Estimate", stream: TextIO):
        self._estimate, self._stream = estimate, stream
        self._text, self._told = "", -self.EVERY

    @contextlib.contextmanager
    def step(self, text: str, name: str) -> Iterator[None]:
        """Says `text` and times what is inside as work of this name."""
        begin = time.monotonic()
        left = self._estimate.left()
        self._text = text + (f"; about {duration(left)} left" if left is not None else "")
        if not self._stream.isatty():
            if begin - self._told >= self.EVERY:
                self._told = begin
                print(self._text, file=self._stream, flush=True)
            yield
        else:
            with ticking(lambda: self._show(begin)):
                self._show(begin)
                yield
            print(_CLEAR, end="", file=self._stream, flush=True)
        self._estimate.done(name, time.monotonic() - begin)

    def _show(self, begin: float) -> None:
        seconds = f" ({time.monotonic() - begin:.0f} s)"
        print(f"{_CLEAR}{self._text}{seconds}", end="\r", file=self._stream, flush=True)


class Estimate:
    """The seconds that planned work will take, from those of what is done.

    Work with the same name takes about as long each time; of a name not seen yet the weight tells.

    Args:
      weights: of each name, in any unit.
      planned: the names, in any order, as often as they will be done.
      at_a_time: how many are worked on side by side.

    Example:
      >>> estimate = Estimate({"a": 1.0, "b": 3.0}, ["a", "b", "a", "b"])
      >>> estimate.left() is None
      True
      >>> estimate.done("a", 10.0)
      >>> estimate.left()
      70.0
    """

    def __init__(
        self, weights: Mapping[str, float], planned: Sequence[str], at_a_time: int = 1
    ):
        self._weights, self._at_a_time = weights, at_a_time
        self._left = collections.Counter(planned)
        self._seen: dict[str, list[float]] = {}

    def done(self, name: str, seconds: float | None) -> None:
        """One of this name took so long; None where others did it, so that nobody knows."""
        self._left[name] -= 1
        if seconds is not None:
            self._seen.setdefault(name, []).append(seconds)

    @property
    def spent(self) -> float:
        """Seconds that everything done took."""
        return sum(map(sum, self._seen.values()))

    def left(self, begun: Iterable[tuple[str, float]] = ()) -> float | None:
        """Seconds to go; None before anything is known.

        Args:
          begun: what is under way now, and for how many seconds.
        """
        if not self._seen:
            return None
        mean = {name: sum(took) / len(took) for name, took in self._seen.items()}
        pace = sum(mean.values()) / sum(self._weights[name] for name in mean)
        each = {name: mean.get(name, pace * self._weights[name]) for name in self._left}
        work = sum(count * each[name] for name, count in self._left.items())
        work -= sum(min(seconds, each[name]) for name, seconds in begun)
        return work / min(self._at_a_time, max(1, self._left.total()))


def duration(seconds: float) -> str:
    """
    Example:
      >>> duration(41.3), duration(200), duration(8000)
      ('41 s', '3 min', '2.2 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
