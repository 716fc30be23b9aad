"""The training loop: validate, checkpoint, step, log, in a fixed order."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from ncl_jax.distributed.sharding import MappedStep
from ncl_jax.types import Batch, TrainState

Metrics = dict[str, Any]


class Log(Protocol):
    """Where the loop reports to."""

    def progress(self, step: int, metrics: Metrics | None) -> None: ...
    def write(self, step: int, metrics: Metrics, prefix: str) -> None: ...


class Schedule(NamedTuple):
    """When things are done, in steps.

    Attributes:
      steps: where training ends.
      validate_every: a validated state is checkpointed too, so that the best one stays.
      checkpoint_every: beside the last state, which always is.
      log_every: beside the last step, which always is.
    """

    steps: int
    validate_every: int
    checkpoint_every: int
    log_every: int


class Hooks(NamedTuple):
    """What the loop calls.

    Attributes:
      validate: state -> metrics, {} for none.
      checkpoint: gets a state and what was measured of it.
      preempted: whether to stop now; asked once per step.
      skipped: gets state, batch and metrics of a step that was not finite; raises to end the run.
      log: where numbers go.
    """

    validate: Callable[[TrainState], Metrics]
    checkpoint: Callable[[TrainState, Metrics], None]
    preempted: Callable[[], bool]
    skipped: Callable[[TrainState, Batch, Metrics], None]
    log: Log


def fit(
    state: TrainState,
    step: MappedStep,
    batches: Iterator[Batch],
    schedule: Schedule,
    hooks: Hooks,
) -> TrainState:
    """Train until `state.step == schedule.steps` or the notice to stop.

    Order, each step: validate the old state -> checkpoint it -> stop if asked to -> step -> next
    batch, while the devices work -> look at the step -> log. The last state is checkpointed at
    the end.

    Args:
      state: where to start.
      step: from `sharding.map_step`.
      batches: standing at the position of `state`.
      schedule: when to do what.
      hooks: what to call.
    """
    first = int(state.step)
    if first >= schedule.steps:
        return state
    batch = step.place(next(batches))
    for number in range(first, schedule.steps):
        measured: Metrics = {}
        if number > first and number % schedule.validate_every == 0:
            measured = hooks.validate(state)
            hooks.log.write(number, measured, prefix="validation")
        stop = hooks.preempted()
        if stop or measured or (number > first and number % schedule.checkpoint_every == 0):
            hooks.checkpoint(state, measured)
        if stop:
            return state
        shown = batch
        state, metrics = step.run(state, shown)
        if number + 1 < schedule.steps:
            batch = step.place(next(batches))
        if int(metrics["skipped"]):
            hooks.skipped(state, shown, metrics)
        logged = (number + 1) % schedule.log_every == 0 or number + 1 == schedule.steps
        read = {name: float(value) for name, value in metrics.items()} if logged else None
        if read is not None:
            hooks.log.write(number + 1, read, prefix="train")
        hooks.log.progress(number + 1, read)
    hooks.checkpoint(state, {})
    return state
