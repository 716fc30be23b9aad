"""Input ahead of its use, or a call that may hang, in a thread that cannot hold up the process."""

import queue
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Ahead(Iterator[T], Generic[T]):
    """Iterates `items` in a daemon thread, `count` of them ahead.

    An error of `items` is raised by `next` at its place, again and again. The source is used and,
    where it has a `close`, closed in the thread alone, so an input that hangs hangs nobody else:
    `take(timeout)` gives up, `close` does not wait for it, and the process can end.

    Attributes:
      waited: seconds spent waiting in `next` and `take` so far.

    Example:
      >>> import contextlib
      >>> with contextlib.closing(Ahead(["first batch", "second batch"])) as batches:
      ...     batches.take(timeout=60)
      'first batch'
    """

    def __init__(self, items: Iterable[T], count: int = 1):
        self.waited = 0.0
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(count)
        self._stop = threading.Event()
        self._end: BaseException | None = None
        threading.Thread(
            target=_fill, args=(items, self._ready, self._stop), daemon=True, name="input"
        ).start()
        weakref.finalize(self, self._stop.set)

    def take(self, timeout: float | None = None) -> T:
        """The next item; TimeoutError if it is not there after `timeout` seconds."""
        if self._end is not None:
            raise self._end
        start = time.perf_counter()
        try:
            item, self._end = self._ready.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no input for {timeout:g} seconds") from None
        finally:
            self.waited += time.perf_counter() - start
        if self._end is not None:
            raise self._end
        return item

    def __next__(self) -> T:
        return self.take()

    def close(self) -> None:
        """Ask the thread to stop after the item it is at, and iterate no more."""
        self._stop.set()
        self._end = self._end or StopIteration()


def watched(items: Ahead[T], seconds: float | None, what: str) -> Iterator[T]:
    """The same items, or an end where none comes.

    Args:
      items: to wait for.
      seconds: to wait for each; None waits for ever.
      what: they are, for the message.

    Raises:
      TimeoutError: one took longer.
    """
    while True:
        try:
            item = items.take(seconds)
        except StopIteration:
            return
        except TimeoutError as error:
            raise TimeoutError(
                f"{what}: {error}; check the disk or network that holds the records, then run the "
                "same command again to resume from the last checkpoint"
            ) from error
        yield item


def _fill(items: Iterable[T], ready: queue.Queue[Any], stop: threading.Event) -> None:
    def put(item: T | None, end: BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put((item, end), timeout=0.1)
            except queue.Full:
                continue

    source: Any = None
    try:
        source = iter(items)
        for item in source:
            put(item, None)
            if stop.is_set():
                break
        put(None, StopIteration())
    except BaseException as error:  # handed to whoever waits
        put(None, error)
    finally:
        if hasattr(source, "close"):
            source.close()
