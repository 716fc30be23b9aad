"""Safeguarded over-relaxation: how far beyond the plain update to go.

Near the solution the column biases close in on it by `s` per plain pair of updates, `s` the
squared second singular value of the plan, and moving `omega = 2 / (1 + sqrt(1 - s))` times as far
closes in by `omega - 1` instead. So: start plain, measure over a window how fast the moves shrink,
set omega from it, and measure on. Two safeguards:

- Far from the solution the same omega may diverge. Every plain update raises the concave dual
  objective `sum(row_mass * a) + sum(col_mass * b) - sum(exp(s + a + b))`; a pair that lowers it
  ends the relaxation, and the next window is twice as long. Moves that grow are no such sign: where
  the plan is nearly decomposable (s close to 1) they do so for some 1 / (2 - omega) pairs.
- A relaxed iterate runs ahead of itself: its largest error is up to `1 / (2 - omega)` times that of
  the plain pair after it, and no bound of it. So the solver stops after plain pairs only, and where
  one is expected to be within the tolerance two are tried: the second shows the first one's error.

A move is measured in the norm weighted by the column masses, in which one plain pair is a
symmetric operator near the solution: the observed rate then never overstates `s`, and it is
settled after a few pairs. The largest row error, by which the solver stops, is neither.

Source: Thibault et al. 2021 and Lehmann et al. 2022 for over-relaxed Sinkhorn, the dual objective
as its safeguard, and the relation between the observed rate and `s` at a given omega; the windows,
the fallback and the trial are ours.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_WINDOW = 3  # pairs between two estimates, after one pair to settle
_SLOW = 0.5  # below this s plain Sinkhorn needs fewer than ten pairs to 1e-3: leave it alone
_MAX_SPECTRUM = 0.9995  # omega 1.957
_TRIAL = 2.0  # plain pairs of a trial


class Pace(NamedTuple):
    """The step length, the window's first move, pairs since then, and the window's length.

    During a trial also the plain pairs left of it and the step length after it.
    """

    omega: Float[Array, ""]
    base: Float[Array, ""]
    since: Float[Array, ""]
    window: Float[Array, ""]
    trial: Float[Array, ""]
    resumed: Float[Array, ""]


def start_pace(one: Float[Array, ""]) -> Pace:
    """Plain steps; the first window begins with the first pair."""
    return Pace(one, one * jnp.inf, -one, one * _WINDOW, 0 * one, one)


def accelerate(
    pace: Pace, move: Float[Array, ""], gain: Float[Array, ""], excess: Float[Array, ""]
) -> Pace:
    """The pace after a pair.

    Args:
      pace: that of the pair.
      move: by how much the pair's plain update would have moved the columns.
      gain: what the pair added to the dual objective.
      excess: the largest error before its updates, in tolerances.
    """
    choose = partial(jnp.where, pace.trial > 0)
    return jax.tree.map(choose, _in_trial(pace, move), _in_window(pace, move, gain, excess))


def _in_trial(pace: Pace, move: Array) -> Pace:
    left = pace.trial - 1
    omega = jnp.where(left > 0, pace.omega, pace.resumed)
    return pace._replace(omega=omega, base=move, since=-jnp.ones_like(move), trial=left)


def _in_window(pace: Pace, move: Array, gain: Array, excess: Array) -> Pace:
    omega, base, since, window, *_ = pace
    since = since + 1
    base = jnp.where(since == 0, move, base)
    failed = (omega > 1) & ~(gain >= 0)
    ended = since >= window
    measured = jnp.where(ended, _omega_of(omega, (move / base) ** (1 / window)), omega)
    aim = jnp.where(failed, 1.0, measured)
    close = (excess <= 1) | (ended & ((2 - omega) * excess <= 1))
    tried = (omega > 1) & close & ~failed
    # The first pair at another omega is still the old one's: it settles and is not measured.
    settled = jnp.where(jnp.abs(aim - omega) > 0.02, -1.0, 0.0)
    restart = ended | failed
    return Pace(
        jnp.where(tried, 1.0, aim),
        jnp.where(restart, move, base),
        jnp.where(restart, settled, since),
        jnp.where(failed, 2 * window, window),
        jnp.where(tried, _TRIAL, 0.0),
        aim,
    )


def _omega_of(omega: Array, rate: Array) -> Array:
    """The best omega for what is observed; the same one where the moves do not shrink."""
    spectrum = (rate + omega - 1) ** 2 / jnp.maximum(rate * omega**2, 1e-9)
    spectrum = jnp.clip(spectrum, 0.0, _MAX_SPECTRUM)
    best = jnp.where(spectrum > _SLOW, 2 / (1 + jnp.sqrt(1 - spectrum)), 1.0)
    return jnp.where(rate < 1, best, omega)
