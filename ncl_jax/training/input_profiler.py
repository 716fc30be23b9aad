"""How much of the training time goes by waiting for input."""

import time
from typing import Any

import jax

from ncl_jax.data.prefetch import Ahead
from ncl_jax.distributed.sharding import MappedStep
from ncl_jax.types import Batch, TrainState


class InputProfile:
    """Share of step time spent waiting for a batch.

    Every step is waited for before the next batch is asked for, so that a wait for input is time
    in which the devices have nothing to do; this costs the little overlap of dispatch and
    computation. Validation and checkpoints do not count, nor does the first step, which compiles.

    Attributes:
      share: waiting / (waiting + placing + computing) of all steps so far, in [0, 1].
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._busy = 0.0
        self._before: float | None = None  # waited until the end of the first step

    def wrap(self, step: MappedStep, batches: Ahead[Batch]) -> MappedStep:
        """The same step, timed; its metrics gain `input_wait_share`."""

        def place(batch: Batch) -> Batch:
            start = time.perf_counter()
            placed = jax.block_until_ready(step.place(batch))
            self._busy += time.perf_counter() - start
            return placed

        def run(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
            start = time.perf_counter()
            state, metrics = jax.block_until_ready(step.run(state, batch))
            self._busy += time.perf_counter() - start
            self._count(batches.waited)
            return state, metrics | {"input_wait_share": self.share}

        return step._replace(place=place, run=run)

    def report(self) -> dict[str, float]:
        """For the results of a run; empty where no step was timed."""
        if not self._busy:
            return {}
        print(f"input: {self.share:.1%} of the step time was spent waiting for it")
        return {"input_wait_share": self.share}

    def _count(self, waited: float) -> None:
        if self._before is None:
            self._before, self._busy = waited, 0.0
        else:
            waiting = waited - self._before
            self.share = waiting / (waiting + self._busy)
