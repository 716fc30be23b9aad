"""What is saved of a step whose loss or gradient is not finite: the batch and its clips."""

from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from ncl_jax.distributed import runtime
from ncl_jax.types import Batch


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
