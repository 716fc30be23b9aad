"""The training step and the training loop."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ncl_jax.distributed.sharding import AXIS, MappedStep, Step
from ncl_jax.training.grad_cache import in_micro_batches
from ncl_jax.types import Batch, Towers, TrainState

Metrics = dict[str, Any]


Loss = Callable[..., tuple[Float[Array, " batch"], dict[str, Array]]]
"""(text, video, scale, video_id, valid) of the local pairs -> their losses and metrics to log.

A device's gradient of its losses is its share of the global gradient (see `ncl_jax.losses`).
"""


def init_state(params: Any, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Step 0 with fresh optimizer moments."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), jax.random.key(seed))


def make_step(
    towers: Towers, loss: Loss, optimizer: optax.GradientTransformation, micro: int = 0
) -> Step:
    """The training step; `parallel.map_step` makes it global.

    Each device computes the losses of its own pairs against everybody's and differentiates their
    sum over the global count: its share of the gradient. The towers see `micro` pairs at a time
    (0: all of the device), which changes memory and not the result. A loss or gradient that is not
    finite leaves weights and optimizer as they were and is told by the metric `skipped` (0 or 1).
    """
    encode_text = in_micro_batches(towers.encode_text, micro)
    encode_video = in_micro_batches(towers.encode_video, micro)

    def gradient(params: Any, batch: Batch) -> tuple[Any, dict[str, Array]]:
        count = jax.lax.psum(jnp.sum(batch.valid), AXIS)

        def share(params: Any) -> tuple[Array, dict[str, Array]]:
            text = encode_text(params, batch.tokens, batch.token_mask)
            video = encode_video(params, batch.video, batch.frame_mask)
            sides = comparable(towers, params, text, video)
            per_pair, extra = loss(*sides, batch.video_id, batch.valid)
            return jnp.sum(jnp.where(batch.valid, per_pair, 0.0)) / count, extra

        (local_loss, extra), grads = jax.value_and_grad(share, has_aux=True)(params)
        return grads, extra | {"loss": jax.lax.psum(local_loss, AXIS)}

    def update(
        state: TrainState, grads: Any, metrics: dict[str, Array]
    ) -> tuple[TrainState, dict[str, Array]]:
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (optax.apply_updates(state.params, updates), opt_state),
            (state.params, state.opt_state),
        )
        metrics = metrics | {
            "scale": towers.scale(params),
            "grad_norm": norm,
            "skipped": 1 - finite.astype(jnp.int32),
        }
        return TrainState(state.step + 1, params, opt_state, state.rng), metrics

    return Step(gradient, update)


def comparable(
    towers: Towers, params: Any, text: Array, video: Array
) -> tuple[Float[Array, "local dim"], Float[Array, "local dim"], Float[Array, ""]]:
    """Text, video and scale whose products are the scores of local texts and all videos.

    A joint head's scores become such products with the rows of an identity matrix, so that every
    loss serves it: `scores = 1 * scores @ identity.T`.
    """
    if towers.score is None:
        return text, video, towers.scale(params)
    scores = towers.score(params, text, jax.lax.all_gather(video, AXIS, tiled=True))
    local = len(video) * jax.lax.axis_index(AXIS) + jnp.arange(len(video))
    return scores, jax.nn.one_hot(local, scores.shape[1]), jnp.ones(())


class Log(Protocol):
    """Where the loop reports to."""

    def progress(self, step: int, metrics: Metrics | None) -> None: ...
    def write(self, step: int, metrics: Metrics, prefix: str) -> None: ...


def fit(
    state: TrainState,
    step: MappedStep,
    batches: Iterator[Batch],
    *,
    steps: int,
    validate: Callable[[TrainState], Metrics],
    validate_every: int,
    checkpoint: Callable[[TrainState, Metrics], None],
    checkpoint_every: int,
    preempted: Callable[[], bool],
    skipped: Callable[[TrainState, Batch, Metrics], None],
    log: Log,
    log_every: int,
) -> TrainState:
    """Train until `state.step == steps` or the notice to stop.

    Order, each step: validate the old state -> checkpoint it -> stop if told to -> step -> next
    batch, while the devices work -> look at the step -> log. The last state is checkpointed at
    the end.

    Args:
      state: where to start.
      step: from `parallel.map_step`.
      batches: standing at the position of `state`.
      steps: where to end.
      validate: state -> metrics, {} for none.
      validate_every: steps; a validated state is checkpointed too, so that the best one stays.
      checkpoint: gets a state and what was measured of it.
      checkpoint_every: steps.
      preempted: whether to stop now; asked once per step.
      skipped: gets state, batch and metrics of a step that was not finite; raises to end the run.
      log: where numbers go.
      log_every: steps.
    """
    first = int(state.step)
    if first >= steps:
        return state
    batch = step.place(next(batches))
    for number in range(first, steps):
        measured: Metrics = {}
        if number > first and number % validate_every == 0:
            measured = validate(state)
            log.write(number, measured, prefix="validation")
        stop = preempted()
        if stop or measured or (number > first and number % checkpoint_every == 0):
            checkpoint(state, measured)
        if stop:
            return state
        shown = batch
        state, metrics = step.run(state, shown)
        if number + 1 < steps:
            batch = step.place(next(batches))
        if int(metrics["skipped"]):
            skipped(state, shown, metrics)
        logged = (number + 1) % log_every == 0 or number + 1 == steps
        read = {name: float(value) for name, value in metrics.items()} if logged else None
        if read is not None:
            log.write(number + 1, read, prefix="train")
        log.progress(number + 1, read)
    checkpoint(state, {})
    return state
