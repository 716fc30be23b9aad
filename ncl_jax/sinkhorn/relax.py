"""Safeguarded over-relaxation: how far beyond the plain update to go.

Near the solution the error of plain Sinkhorn falls by `s` per pair, `s` the squared second
singular value of the plan, and moving `omega = 2 / (1 + sqrt(1 - s))` times as far falls by
`omega - 1` instead. Far from it the same omega may diverge. So: start plain, measure the fall over
a window, set omega from it, and return to plain whenever the error has not fallen.

Source: Thibault et al. 2021 and Lehmann et al. 2022 for over-relaxed Sinkhorn and the relation
between the observed rate and `s` at a given omega; the windows and the fallback are ours.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

_FIRST_WINDOW = 4
_SLOW = 0.6  # below this s plain Sinkhorn needs fewer than 14 pairs to 1e-3: leave it alone
_MAX_SPECTRUM = 0.9995  # omega 1.957


class Pace(NamedTuple):
    """The step length, the error at the window's start, pairs since then, and its length."""

    omega: Float[Array, ""]
    base: Float[Array, ""]
    since: Float[Array, ""]
    window: Float[Array, ""]


def start_pace(one: Float[Array, ""]) -> Pace:
    """Plain steps; the first window begins with the second pair."""
    return Pace(one, one * jnp.inf, one * (_FIRST_WINDOW - 1), one * _FIRST_WINDOW)


def accelerate(pace: Pace, error: Float[Array, ""]) -> Pace:
    """The pace after a pair that found `error`."""
    omega, base, since, window = pace
    since = since + 1
    ended = since >= window
    rate = (error / base) ** (1 / since)
    rising = (omega > 1) & ~(error < base * jnp.where(ended, 1.0, 4.0))
    spectrum = (rate + omega - 1) ** 2 / jnp.maximum(rate * omega**2, 1e-9)
    spectrum = jnp.clip(spectrum, 0.0, _MAX_SPECTRUM)
    useful = jnp.isfinite(base) & (rate < 1) & (spectrum > _SLOW)
    better = jnp.where(useful, 2 / (1 + jnp.sqrt(1 - spectrum)), 1.0)
    new_omega = jnp.where(rising, 1.0, jnp.where(ended, better, omega))
    restart = ended | rising
    return Pace(
        new_omega,
        jnp.where(restart, error, base),
        jnp.where(restart, 0.0, since),
        jnp.where(rising, 2 * window, window),
    )
