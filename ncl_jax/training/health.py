"""What can end a run in good order: a notice to stop, a batch gone wrong."""

import os
import signal
import threading
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from ncl_jax.distributed import runtime, sync
from ncl_jax.types import Batch

STOPPING = (signal.SIGTERM, signal.SIGINT)
STOPS = b"\ninterrupted: stops after this step and its checkpoint (once more: at once)\n"


class Notice:
    """Whether to stop: a SIGTERM has come, the usual notice of preemption, or Ctrl-C.

    A notice to one process of a job stops all of them at the same step. A second Ctrl-C interrupts
    at once, as either signal does outside of the context.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Notice":
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in STOPPING if signal.getsignal(n) != signal.SIG_IGN]  # as `&` sets it
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """To be asked once per step, by all processes alike."""
        return sync.any_of(self._came)

    def _note(self, number: int, _: Any) -> None:
        self._came = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            os.write(2, STOPS)  # a print may be what was interrupted


def keep_batch(batch: Batch, folder: epath.Path, step: int) -> None:
    """Write this process's rows of a batch for inspection.

    Args:
      batch: as the step took it.
      folder: gets `batch-step-<step>-process-<index>.npz` with the fields of `Batch`.
      step: the number of the step.
    """
    rows = {name: _local(field) for name, field in batch._asdict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"batch-step-{step}-process-{jax.process_index()}.npz").open("wb") as file:
        np.savez(file, **rows)  # type: ignore[arg-type]


def clips_of(batch: Batch) -> list[int]:
    """The video ids of all rows of all processes, to be asked by all of them."""
    ids = _local(batch.video_id)
    return np.ravel(ids if runtime.alone() else multihost_utils.process_allgather(ids)).tolist()


def _local(field: Any) -> np.ndarray:
    """A process's rows of a global (or pmap-shaped) array."""
    if not isinstance(field, jax.Array):
        return np.asarray(field)
    shards = sorted(field.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
