"""The optimizer: AdamW with warm-up and cosine decay, and CLIP's limit on the logit scale."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ncl_jax.types import MAX_SCALE

MAX_LOGIT_SCALE = math.log(MAX_SCALE)


def schedule(learning_rate: float, steps: int, warmup_fraction: float) -> optax.Schedule:
    """Linear warm-up to `learning_rate` over the first part of `steps`, then cosine to 0."""
    warmup = round(steps * warmup_fraction)
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))


def adamw(
    learning_rate: optax.Schedule | float,
    *,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    clip_norm: float,
) -> optax.GradientTransformation:
    """Clip the global gradient norm, AdamW, then hold the scale at or below 100.

    Weight decay applies to matrices only: biases, norms and the logit scale are exempt.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(
            learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=is_matrix
        ),
        limit_logit_scale(),
    )


def is_matrix(params: Any) -> Any:
    """True for the parameters that weight decay applies to."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def limit_logit_scale() -> optax.GradientTransformation:
    """Cut the update of `params["logit_scale"]` so that its exponential stays at most 100.

    CLIP clamps the parameter, not the forward pass: its gradient stays alive at the limit.
    """

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        room = MAX_LOGIT_SCALE - params["logit_scale"]
        return updates | {"logit_scale": jnp.minimum(updates["logit_scale"], room)}, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
