"""Safeguarded over-relaxation: chooses how far to move beyond the plain update.

Near the solution, a plain pair of updates multiplies the error of the column biases by `s`, the
squared second singular value of the transport plan; moving `omega = 2 / (1 + sqrt(1 - s))` times as
far multiplies it by `omega - 1` instead. The algorithm therefore starts with plain pairs, measures
over a window how fast the moves shrink, sets omega from that rate, and measures again. It has two
safeguards:

- Far from the solution, the same omega may diverge. Every plain update raises the concave dual
  objective `sum(row_mass * a) + sum(col_mass * b) - sum(exp(s + a + b))`. A relaxed pair that
  lowers it ends the relaxation and doubles the length of the next window. Growing moves do not:
  where the plan is nearly decomposable (s close to 1), moves grow for about 1 / (2 - omega) pairs.
- The largest error of a relaxed iterate is up to `1 / (2 - omega)` times that of the plain pair
  after it, and does not bound it. The solver therefore stops only after plain pairs. Where a plain
  pair is expected to be within the tolerance, two of them are tried: the second one measures the
  error that the first one left.

A move is measured in the norm weighted by the column masses, in which one plain pair is a
symmetric operator near the solution: the observed rate then never exceeds `s`, and it settles
after a few pairs. The largest row error, by which the solver stops, has neither property.

Source: Thibault et al. 2021 and Lehmann et al. 2022 for over-relaxed Sinkhorn, the dual objective
as its safeguard, and the relation between the observed rate and `s` at a given omega; the windows,
the fallback and the trial are ours.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_WINDOW = 3  # pairs per estimate, after one pair that is not measured
_SLOW = 0.5  # below this s, plain pairs reach 1e-3 in fewer than ten: keep omega at 1
_MAX_SPECTRUM = 0.9995  # omega 1.957
_TRIAL = 2.0  # plain pairs of a trial


class Pace(NamedTuple):
    """Step length, first move of the window, pairs since that move, and length of the window.

    During a trial of plain pairs: how many are left, and the step length after them.
    """

    omega: Float[Array, ""]
    base: Float[Array, ""]
    since: Float[Array, ""]
    window: Float[Array, ""]
    trial: Float[Array, ""]
    resumed: Float[Array, ""]


def start_pace(one: Float[Array, ""]) -> Pace:
    """The initial pace: plain steps, and a window that begins with the first pair."""
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
    # The first pair after a change of omega still reflects the old omega, so it is not measured.
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
