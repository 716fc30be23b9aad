"""Safeguarded over-relaxation: how far beyond the plain update to go.

Near the solution the column biases close in on it by `s` per plain pair of updates, `s` the
squared second singular value of the plan, and moving `omega = 2 / (1 + sqrt(1 - s))` times as far
closes in by `omega - 1` instead. Far from it the same omega may diverge. So: start plain, measure
over a window how fast the moves shrink, set omega from it, measure on, and return to plain whenever
they do not shrink.

A move is measured in the norm weighted by the column masses, in which one plain pair is a
symmetric operator near the solution: the observed rate then never overstates `s`, and it is
settled after a few pairs. The largest row error, by which the solver stops, is neither.

Source: Thibault et al. 2021 and Lehmann et al. 2022 for over-relaxed Sinkhorn and the relation
between the observed rate and `s` at a given omega; the windows and the fallback are ours.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

_WINDOW = 3  # pairs between two estimates, after one pair to settle
_SLOW = 0.5  # below this s plain Sinkhorn needs fewer than ten pairs to 1e-3: leave it alone
_MAX_SPECTRUM = 0.9995  # omega 1.957
_DIVERGED = 4.0  # times the window's first move


class Pace(NamedTuple):
    """The step length, the window's first move, pairs since then, and the window's length."""

    omega: Float[Array, ""]
    base: Float[Array, ""]
    since: Float[Array, ""]
    window: Float[Array, ""]


def start_pace(one: Float[Array, ""]) -> Pace:
    """Plain steps; the first window begins with the first pair."""
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
    # The first pair at another omega is still the old one's: it settles and is not measured.
    settled = jnp.where(jnp.abs(new_omega - omega) > 0.02, -1.0, 0.0)
    restart = ended | diverged
    return Pace(
        new_omega,
        jnp.where(restart, move, base),
        jnp.where(restart, settled, since),
        jnp.where(failed, 2 * window, window),
    )
