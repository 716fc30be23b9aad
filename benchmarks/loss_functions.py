"""The losses that B1 compares, as functions of text, video and scale."""

from functools import partial

import jax.numpy as jnp
from jax.nn import logsumexp

from ncl_jax import losses


def both_axes(text, video, scale):
    """Plain InfoNCE, log-sum-exp over either axis."""
    s = scale * (text @ video.T)
    return jnp.mean(logsumexp(s, 0) + logsumexp(s, 1) - 2 * jnp.diagonal(s)) / 2


def two_passes(text, video, scale):
    """Plain InfoNCE, rows of s and rows of its transpose."""
    s = scale * (text @ video.T)
    return sum(jnp.mean(logsumexp(x, 1) - jnp.diagonal(x)) for x in (s, s.T)) / 2


def unrolled(text, video, scale, iterations):
    """NCL through the iterations by plain autodiff."""
    s = scale * (text @ video.T)
    a, b = 0.0, -logsumexp(s, 0)
    for _ in range(iterations):
        a = -logsumexp(s + b, 1)
        b = -logsumexp(s + a[:, None], 0)
    d = jnp.diagonal(s)
    rows, cols = logsumexp(s + b, 1), logsumexp(s + a[:, None], 0)
    return jnp.mean(rows + cols - 2 * d - a - b) / 2


def ours(text, video, scale, **kwargs):
    ids = jnp.arange(len(text))
    return losses.ncl(text, video, scale, ids, ids >= 0, **kwargs)[0].mean()


def ours_infonce(text, video, scale):
    ids = jnp.arange(len(text))
    return losses.infonce(text, video, scale, ids, ids >= 0).mean()


FUNCTIONS = {
    "InfoNCE, both axes": both_axes,
    "InfoNCE, two passes": two_passes,
    "InfoNCE, ours": ours_infonce,
    "NCL stop K=4": partial(ours, iterations=4),
    "NCL stop K=10": partial(ours, iterations=10),
    "NCL unroll K=10": partial(ours, iterations=10, gradient="unroll"),
    "NCL implicit": partial(ours, iterations=100, gradient="implicit", tolerance=1e-3),
    "NCL unroll K=10, autodiff": partial(unrolled, iterations=10),
}
