"""The training step: from a batch to the next state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ncl_jax.distributed.sharding import AXIS, Step
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
    finite leaves weights and optimizer unchanged; the metric `skipped` (0 or 1) reports it.
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




