"""Many video files on several decoding processes at a time."""

import concurrent.futures
import itertools
import os
import threading
from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

from ncl_jax.errors import InputError
from ncl_jax.video.decode import VideoError
from ncl_jax.video.worker import VideoWorker

GIVE_UP_AFTER = 20
"""So many files that all fail for one reason, before any was read, are no coincidence."""

Path = TypeVar("Path", bound="str | os.PathLike[str]")
Result = TypeVar("Result")


def read_files(
    read: Callable[[VideoWorker, str, Path], Result],
    files: Mapping[str, Path],
    *,
    jobs: int = 0,
    seconds: float,
    in_order: bool = False,
    give_up_after: int = GIVE_UP_AFTER,
) -> Generator[tuple[str, Result | VideoError], None, None]:
    """Calls `read(worker, name, path)` for every file and yields (name, result or `VideoError`).

    At most `2 * jobs` results are in memory. Close it when leaving early: the processes live as
    long as it does.

    Args:
      read: what to do with a file; runs in a thread, beside a process of its own.
      files: path by name.
      jobs: processes at a time; 0 for one per core.
      seconds: time limit per file.
      in_order: whether to yield in the order of `files` rather than as they come.
      give_up_after: see `GiveUp`.

    Raises:
      ReaderFault: the reader is broken; the first file that shows it ends the work.
      InputError: the first `give_up_after` files all fail for one reason.
    """
    jobs = min(jobs or os.cpu_count() or 1, max(1, len(files)))
    local, workers, give_up = threading.local(), list[VideoWorker](), GiveUp(give_up_after)

    def start() -> None:
        local.worker = VideoWorker(seconds)
        workers.append(local.worker)

    with concurrent.futures.ThreadPoolExecutor(jobs, initializer=start) as pool:
        todo = iter(files.items())
        pending: dict[concurrent.futures.Future[Result], str] = {}

        def submit(count: int) -> None:
            for name, path in itertools.islice(todo, count):
                pending[pool.submit(lambda n=name, p=path: read(local.worker, n, p))] = name  # type: ignore[misc]

        submit(2 * jobs)
        try:
            while pending:
                first = concurrent.futures.FIRST_COMPLETED
                ready = [next(iter(pending))] if in_order else concurrent.futures.wait(
                    pending, return_when=first
                ).done
                for future in ready:
                    name = pending.pop(future)
                    result = _result(future)
                    give_up.see(result)
                    submit(1)
                    yield name, result
        finally:  # after an interrupt nobody waits for what is being decoded
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()


def _result(future: concurrent.futures.Future[Result]) -> Result | VideoError:
    try:
        return future.result()
    except VideoError as error:
        return error


class GiveUp:
    """Ends the reading of files of which the first ones all fail for one and the same reason.

    A corpus may hold bad files; one that begins with `after` of them and not one good file is
    another folder, a failed download, or files of a kind that cannot be read here.
    """

    def __init__(self, after: int = GIVE_UP_AFTER):
        """`after`: files; 0 never gives up."""
        self._after, self._failed, self._reason = after, 0, ""

    def see(self, result: object) -> None:
        """Takes note of a file's result.

        Raises:
          InputError: this was the last of the first files, and all have failed for one reason.
        """
        if not self._after:
            return
        if not isinstance(result, VideoError) or (self._failed and result.reason != self._reason):
            self._after = 0  # from now on, bad files are just bad files
            return
        self._failed, self._reason = self._failed + 1, result.reason
        if self._failed == self._after:
            raise InputError(
                f"the first {self._failed} video files all fail in the same way ({result}); play "
                "some of them and replace the bad ones, or leave them out by --give-up-after=0"
            )
