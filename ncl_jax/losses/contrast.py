"""InfoNCE with a custom backward pass, for which autodiff stores no softmax matrices."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ncl_jax.losses import inputs as common
from ncl_jax.losses.groups import gather, local
from ncl_jax.losses.inputs import Options
from ncl_jax.losses.weighted import accumulate
from ncl_jax.sinkhorn import kernel as kernels


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def contrast(
    text: Array, video: Array, scale: Array, video_id: Array, valid: Array, options: Options
) -> Array:
    """Symmetric InfoNCE of each local pair; see `ncl_jax.losses.infonce`."""
    return _forward(text, video, scale, video_id, valid, options)[0]


def _forward(
    text: Array, video: Array, scale: Array, video_id: Array, valid: Array, options: Options
) -> Any:
    inputs = common.make_inputs(text, video, scale, video_id, valid, options)
    scores = common.scores_of(inputs, options)
    dtype = inputs.text.dtype
    everyone = jnp.where(inputs.pairs.valid, 0.0, -jnp.inf).astype(dtype)
    own = jnp.where(valid, 0.0, -jnp.inf).astype(dtype)

    def step(running: Any, s: Array, a: Array) -> Any:
        return kernels.add_to_col_lse(running, s, a), kernels.exact_row_lse(s, everyone)

    running, row_lse = scores.fold(step, kernels.start_col_lse(everyone), own)
    col_lse = kernels.finish_col_lse(running, options.axis_name)
    as_text, as_video = common.positive_logits(inputs, None, None, options)
    loss = (row_lse - as_text + local(col_lse, inputs.pairs, text.shape[0]) - as_video) / 2
    return jnp.where(valid, loss, 0.0), (inputs, scores, row_lse, col_lse, text, video, scale)


def _backward(options: Options, residuals: Any, g: Array) -> Any:
    inputs, scores, row_lse, col_lse, *primal = residuals
    g = jnp.where(inputs.valid, g, 0.0)
    g_all = gather(g, options.axis_name)
    # An infinite log-sum-exp gives padded rows and columns weight 0.
    row_lse = jnp.where(inputs.valid, row_lse, jnp.inf)
    col_lse = jnp.where(inputs.pairs.valid, col_lse, jnp.inf)

    def gradient(s: Array, g: Array, lse: Array) -> Array:
        by_row = (g / 2)[:, None] * jnp.exp(s - lse[:, None])
        return by_row + (g_all / 2) * jnp.exp(s - col_lse)

    dx, dy = accumulate(scores, gradient, inputs, g, row_lse)
    px, py = common.positive_gradient(inputs, g_all)
    grads = common.embedding_gradients(inputs, dx - px, dy - py, options)
    return *(d.astype(p.dtype) for d, p in zip(grads, primal, strict=True)), None, None


contrast.defvjp(_forward, _backward)
