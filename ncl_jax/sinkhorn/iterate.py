"""Sinkhorn updates as folds over a kernel, and the iteration of them.

Masses and biases are logarithms here and -inf where masked, so masks need no separate arrays. With
several devices, values per row are local and values per column are replicated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ncl_jax.sinkhorn import kernel as kernels
from ncl_jax.sinkhorn.blocks import Panels
from ncl_jax.sinkhorn.kernel import Kernel
from ncl_jax.sinkhorn.overrelaxation import Pace, accelerate, start_pace


class Masses(NamedTuple):
    """Log masses of the local rows and of all columns."""

    row: Float[Array, " row"]
    col: Float[Array, " col"]

    def free_row(self) -> Float[Array, " row"]:
        """Zero biases of the rows, -inf where masked."""
        return jnp.where(self.row == -jnp.inf, self.row, jnp.zeros_like(self.row))

    def free_col(self) -> Float[Array, " col"]:
        """Zero biases of the columns, -inf where masked."""
        return jnp.where(self.col == -jnp.inf, self.col, jnp.zeros_like(self.col))


class IterationOptions(NamedTuple):
    """Static options of an iteration; with a tolerance, `iterations` is the upper limit."""

    iterations: int
    tolerance: float | None = None
    overrelaxation: bool = False
    strength: float = 1.0
    axis_name: str | None = None


class State(NamedTuple):
    """Biases, completed pairs, row error before the last pair, whether it is trusted, and pace."""

    a: Float[Array, " row"]
    b: Float[Array, " col"]
    done: Int[Array, ""]
    error: Float[Array, ""]
    trusted: Bool[Array, ""]
    pace: Pace


class Change(NamedTuple):
    """What a pair of updates did, and whether it can be trusted."""

    error: Float[Array, ""]
    """Largest relative error of a row (or, under over-relaxation, column) before its update."""
    gain: Float[Array, ""]
    """What a relaxed pair added to the dual objective."""
    trusted: Bool[Array, ""] | bool = True


Update = Callable[[Array, Array, Array], tuple[Array, Array, Change]]
"""`(a, b, omega) -> (a, b, change)`: one pair of updates, rows then columns."""


def stored_pair(kernel: Kernel, masses: Masses, options: IterationOptions) -> Update:
    """A pair of updates on the stored kernel: two matrix-vector products, no exponentials."""

    def update(a: Array, b: Array, omega: Array) -> tuple[Array, Array, Change]:
        v = kernels.weight(b, kernel.col)

        def step(total: Array, e: Array, log_r: Array, row: Array, a: Array) -> Any:
            own = e @ v
            plain = _masked(options.strength * (log_r - kernels.log_sum(own, row)), log_r)
            new = _move(a, plain, omega, options.overrelaxation)
            return total + kernels.weight(new, row) @ e, (own, plain, new)

        total, (own, plain, new_a) = kernel.fold(step, jnp.zeros_like(b), masses.row, kernel.row, a)
        total = kernels.sum_over(total, options.axis_name)
        new_b, change = _finish(
            a, b, plain, kernels.log_sum(total, kernel.col), omega, masses, options
        )
        ok = kernels.trusted(b, kernel.col, own, masses.row) & kernels.trusted(
            new_a, kernel.row, total, masses.col
        )
        return new_a, new_b, change._replace(trusted=ok)

    return update


def exact_pair(scores: Panels, masses: Masses, options: IterationOptions) -> Update:
    """A pair of updates in the log domain: finite, because each sum uses its own maximum."""

    def update(a: Array, b: Array, omega: Array) -> tuple[Array, Array, Change]:
        def step(running: Any, s: Array, log_r: Array, a: Array) -> Any:
            plain = _masked(options.strength * (log_r - kernels.exact_row_lse(s, b)), log_r)
            new = _move(a, plain, omega, options.overrelaxation)
            return kernels.add_to_col_lse(running, s, new), (plain, new)

        running, (plain, new_a) = scores.fold(step, kernels.start_col_lse(b), masses.row, a)
        reference = None if options.overrelaxation or options.strength < 1 else b
        lse = kernels.finish_col_lse(running, options.axis_name, reference)
        new_b, change = _finish(a, b, plain, lse, omega, masses, options)
        return new_a, new_b, change

    return update


def exact_first_columns(
    scores: Panels, masses: Masses, options: IterationOptions, a: Array
) -> Array:
    """The column update from row biases `a`, in the log domain."""
    running, _ = scores.fold(
        lambda c, s, a: (kernels.add_to_col_lse(c, s, a), None),
        kernels.start_col_lse(masses.col),
        a,
    )
    lse = kernels.finish_col_lse(running, options.axis_name)
    return _masked(options.strength * (masses.col - lse), masses.col)


def exact_rows(scores: Panels, masses: Masses, options: IterationOptions, b: Array) -> Array:
    """The row update from column biases `b`, in the log domain, without communication."""
    _, plain = scores.fold(
        lambda _, s, log_r: (None, options.strength * (log_r - kernels.exact_row_lse(s, b))),
        None,
        masses.row,
    )
    return _masked(plain, masses.row)


def stored_first_columns(
    kernel: Kernel, masses: Masses, options: IterationOptions, a: Array
) -> Array:
    """The column update from row biases `a`, on the stored kernel."""
    lse = kernels.col_lse(kernel, a, options.axis_name)
    return _masked(options.strength * (masses.col - lse), masses.col)


def run(
    update: Update, a: Array, b: Array, masses: Masses, options: IterationOptions
) -> tuple[State, tuple[Array, Array]]:
    """Iterates from (a, b). Returns the last state and, for a fixed count, every (a, b) reached.

    A fixed count runs a `fori_loop` that stores the bias vectors of each pair. A tolerance runs a
    `while_loop`; with over-relaxation, a plain pair follows it and makes the columns exact.
    """
    one = jnp.ones((), b.dtype)
    state = State(a, b, jnp.zeros((), jnp.int32), one * jnp.inf, jnp.asarray(True), start_pace(one))

    def advance(state: State) -> tuple[State, Change]:
        a, b, change = update(state.a, state.b, state.pace.omega)
        trusted = state.trusted & change.trusted
        return State(a, b, state.done + 1, change.error, trusted, state.pace), change

    if options.iterations == 0:
        return state, (a[None][:0], b[None][:0])
    if options.tolerance is None:

        def keep(k: Array, carry: tuple[State, tuple[Array, Array]]) -> Any:
            state, (all_a, all_b) = carry
            state, _ = advance(state)
            return state, (all_a.at[k].set(state.a), all_b.at[k].set(state.b))

        reached = tuple(jnp.zeros((options.iterations, *x.shape), x.dtype) for x in (a, b))
        return lax.fori_loop(0, options.iterations, keep, (state, reached))

    tolerance = options.tolerance
    limit = options.iterations - 1 if options.overrelaxation else options.iterations

    def unfinished(state: State) -> Bool[Array, ""]:
        return (state.error > tolerance) & (state.done < limit)

    def body(state: State) -> State:
        after, change = advance(state)
        if not options.overrelaxation:
            return after
        omega = state.pace.omega
        move = _distance(state.b, after.b, masses.col) / omega
        pace = accelerate(state.pace, move, change.gain, change.error / tolerance)
        # Only of a plain pair: the rows deviate after it by no more than the columns did before.
        return after._replace(pace=pace, error=jnp.where(omega > 1, jnp.inf, change.error))

    state = lax.while_loop(unfinished, body, state)
    if options.overrelaxation:
        state, _ = advance(state._replace(pace=start_pace(one)))
    return state, (state.a[None], state.b[None])


def row_error(lse: Array, a: Array, masses: Masses, options: IterationOptions) -> Float[Array, ""]:
    """Largest relative deviation of a row from its mass, given `lse_j(s_ij + b_j)`.

    Below strength 1, the deviation is measured from the result of a damped update instead.
    """
    plain = options.strength * (masses.row - lse)
    return kernels.max_over(_deviation(a, plain, masses.row), options.axis_name)


def col_error(
    scores: Panels, a: Array, b: Array, masses: Masses, options: IterationOptions
) -> Array:
    """Largest relative deviation of a column from its mass, like `row_error` for rows."""
    return _deviation(b, exact_first_columns(scores, masses, options, a), masses.col)


def _finish(
    a: Array,
    b: Array,
    plain: Array,
    lse: Array,
    omega: Array,
    masses: Masses,
    options: IterationOptions,
) -> tuple[Array, Change]:
    target = _masked(options.strength * (masses.col - lse), masses.col)
    new = _masked(_move(b, target, omega, options.overrelaxation), masses.col)
    zero = jnp.zeros((), b.dtype)
    if options.tolerance is None:
        return new, Change(zero, zero)
    error = kernels.max_over(_deviation(a, plain, masses.row), options.axis_name)
    if not options.overrelaxation:
        return new, Change(error, zero)
    error = jnp.maximum(error, _deviation(b, target, masses.col))
    rows = kernels.sum_over(_gain(a, plain, omega, masses.row), options.axis_name)
    return new, Change(error, rows + _gain(b, target, omega, masses.col))


def _gain(old: Array, plain: Array, omega: Array, log_mass: Array) -> Float[Array, ""]:
    """What moving `omega` times as far as the plain update adds to the dual objective.

    With d the plain move: the sum of mass * (omega d - exp(-d) (exp(omega d) - 1)).
    """
    d = jnp.where(log_mass == -jnp.inf, 0.0, plain - old)
    x = omega * d
    beyond = jnp.where(jnp.abs(x) < 0.1, x**2 * (0.5 + x / 6 + x**2 / 24), jnp.expm1(x) - x)
    return jnp.sum(jnp.exp(log_mass) * (-jnp.expm1(-d) * jnp.expm1(x) - beyond))


def _distance(old: Array, new: Array, log_mass: Array) -> Float[Array, ""]:
    """The norm of a change of the biases, weighted by their masses."""
    change = jnp.where(log_mass == -jnp.inf, 0.0, new - old)
    return jnp.sqrt(jnp.sum(jnp.exp(log_mass) * change**2))


def _move(old: Array, plain: Array, omega: Array, overrelaxation: bool) -> Array:
    if not overrelaxation:
        return plain
    return jnp.where(plain == -jnp.inf, plain, old + omega * (plain - old))


def _masked(bias: Array, log_mass: Array) -> Array:
    return jnp.where(log_mass == -jnp.inf, -jnp.inf, bias)


def _deviation(old: Array, plain: Array, log_mass: Array) -> Float[Array, ""]:
    live = log_mass > -jnp.inf
    relative = jnp.abs(jnp.expm1(jnp.where(live, old - plain, 0.0)))
    return jnp.max(relative, initial=0.0)
