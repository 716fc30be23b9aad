"""Safeguarded over-relaxation: chooses how far to move beyond the plain update.

Near the solution, a plain pair of updates multiplies the error of the column biases by `s`, the
squared second singular value of the transport plan; moving `omega = 2 / (1 + sqrt(1 - s))` times as
far multiplies it by `omega - 1` instead. Far from the solution, the same omega may diverge. The
algorithm therefore starts with plain pairs, measures over a window how fast the moves shrink, sets
omega from that rate, measures again, and returns to plain pairs when the moves do not shrink.

A move is measured in the norm weighted by the column masses, in which one plain pair is a
symmetric operator near the solution: the observed rate then never exceeds `s`, and it settles
after a few pairs. The largest row error, by which the solver stops, has neither property.

Source: Thibault et al. 2021 and Lehmann et al. 2022 for over-relaxed Sinkhorn and the relation
between the observed rate and `s` at a given omega; the windows and the fallback are ours.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

_WINDOW = 3  # pairs per estimate, after one pair that is not measured
_SLOW = 0.5  # below this s, plain pairs reach 1e-3 in fewer than ten: keep omega at 1
_MAX_SPECTRUM = 0.9995  # omega 1.957
_DIVERGED = 4.0  # a move this many times the window's first one


class Pace(NamedTuple):
    """Step length, first move of the window, pairs since that move, and length of the window."""

    omega: Float[Array, ""]
    base: Float[Array, ""]
    since: Float[Array, ""]
    window: Float[Array, ""]


def start_pace(one: Float[Array, ""]) -> Pace:
    """The initial pace: plain steps, and a window that begins with the first pair."""
    return Pace(one, one * jnp.inf, -one, one * _WINDOW)


def accelerate(pace: Pace, move: Float[Array, ""]) -> Pace:
    """The pace after a pair whose plain update would have moved the columns by `move`."""
    omega, base, since, window = pace
    since = since + 1
    base = jnp.where(since == 0, move, base)
    ended = since >= window
    rate = (move / base) ** (1 / jnp.maximum(since, 1))
    shrinking = rate < 1
    spectrum = (rate + omega - 1) ** 2 / jnp.maximum(rate * omega**2, 1e-9)
    spectrum = jnp.clip(spectrum, 0.0, _MAX_SPECTRUM)
    better = jnp.where(shrinking & (spectrum > _SLOW), 2 / (1 + jnp.sqrt(1 - spectrum)), 1.0)
    diverged = (omega > 1) & ~(move < _DIVERGED * base)
    failed = diverged | (ended & (omega > 1) & ~shrinking)
    new_omega = jnp.where(diverged, 1.0, jnp.where(ended, better, omega))
    # The first pair after a change of omega still reflects the old omega, so it is not measured.
    settled = jnp.where(jnp.abs(new_omega - omega) > 0.02, -1.0, 0.0)
    restart = ended | diverged
    return Pace(
        new_omega,
        jnp.where(restart, move, base),
        jnp.where(restart, settled, since),
        jnp.where(failed, 2 * window, window),
    )
