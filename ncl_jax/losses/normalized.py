"""NCL with custom forward and backward passes, and three definitions of its gradient.

With E the kernel, u and v the biases' weights on it, R = E v its row sums and g the cotangent of
each pair, the direct gradient (biases constant) is

    dL/dS_ij = E_ij (g_i v_j / R_i + u_i v_j g_j) / 2 - positives,

because the last column update makes v_j the reciprocal of column j's sum. Every further term is a
diagonal scaling of the same E. So dL/dS = E * (U W^T) - positives under all three definitions. Its
U W^T has rank one if pairs have equal weights and biases are constant; dL/dS is never stored whole.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from ncl_jax.losses import inputs as common
from ncl_jax.losses import weighted
from ncl_jax.losses.groups import gather, group_sum, local
from ncl_jax.losses.inputs import Inputs, Options
from ncl_jax.sinkhorn import iterate
from ncl_jax.sinkhorn import kernel as kernels
from ncl_jax.sinkhorn.blocks import Stored, Tiled
from ncl_jax.sinkhorn.iterate import IterationOptions, Masses, State
from ncl_jax.sinkhorn.kernel import Kernel
from ncl_jax.types import CONVERGED, SinkhornReport

_PART = 0.1  # smallest damping over tolerance, for small diagonals (nearly a permutation)
_ROUNDINGS = 32  # smallest damping in units of rounding error
_CG_LIMIT = 500  # least limit on iterations of conjugate gradients


class Balance(NamedTuple):
    """A solved batch: its kernel, the first and all later biases, and the row log-sum-exps."""

    kernel: Kernel
    first_b: Float[Array, " batch"]
    state: State
    reached: tuple[Float[Array, "pair local"], Float[Array, "pair batch"]]
    row_lse: Float[Array, " local"]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def normalized(
    text: Array, video: Array, scale: Array, video_id: Array, valid: Array, options: Options
) -> tuple[Array, SinkhornReport]:
    """NCL of each local pair and the solver's report; see `ncl_jax.losses.ncl`."""
    return _forward(text, video, scale, video_id, valid, options)[0]


def _forward(
    text: Array, video: Array, scale: Array, video_id: Array, valid: Array, options: Options
) -> Any:
    inputs = common.make_inputs(text, video, scale, video_id, valid, options)
    masses = _masses(inputs)
    iteration = IterationOptions(
        options.iterations, options.tolerance, options.overrelaxation, 1.0, options.axis_name
    )
    solved = _balance(inputs, masses, iteration, options)
    a, b = solved.state.a, solved.state.b
    finite_a, finite_b = (jnp.where(x == -jnp.inf, 0.0, x) for x in (a, b))
    as_text, as_video = common.positive_logits(inputs, finite_a, finite_b, options)
    col_lse = -local(b, inputs.pairs, text.shape[0])  # the last column update: b = 0 - lse
    loss = jnp.where(valid, (solved.row_lse - as_text + col_lse - as_video) / 2, 0.0)

    error = iterate.row_error(solved.row_lse, a, masses, iteration)
    error = jnp.where(jnp.isnan(error), jnp.inf, error)
    bound = CONVERGED if iteration.tolerance is None else iteration.tolerance
    report = SinkhornReport(error, solved.state.done, error < bound)
    return (loss, report), (inputs, solved, text, video, scale)


def _balance(
    inputs: Inputs, masses: Masses, iteration: IterationOptions, options: Options
) -> Balance:
    scores = common.scores_of(inputs, options)
    if isinstance(scores, Tiled):
        return _balance_exactly(scores, masses, iteration)
    a, b = masses.free_row(), masses.free_col()
    kernel = kernels.store(scores, a, b, columns_first=True, axis_name=iteration.axis_name)
    first = iterate.stored_first_columns(kernel, masses, iteration, a)
    update = iterate.stored_pair(kernel, masses, iteration)
    state, reached = iterate.run(update, a, first, masses, iteration)
    lse, ok = kernels.trusted_row_lse(kernel, state.b, masses.row)
    fast = Balance(kernel, first, state, reached, lse)
    trusted = state.trusted & ok
    if iteration.axis_name is not None:
        trusted = lax.pmin(trusted.astype(jnp.int32), iteration.axis_name) > 0

    # A loop of at most one iteration, because XLA updates the kernel in place there, not in `cond`.
    def again(carry: tuple[Array, Balance]) -> tuple[Array, Balance]:
        tiled = Tiled(inputs.scaled, inputs.video)
        exact = _balance_exactly(tiled, masses, iteration)
        panels = carry[1].kernel.panels
        assert isinstance(panels, Stored)
        (stored,) = panels.parts
        kernel = kernels.overwrite(stored, tiled, exact.kernel.row, exact.kernel.col)
        return jnp.asarray(True), exact._replace(kernel=kernel)

    return lax.while_loop(lambda carry: ~carry[0], again, (trusted, fast))[1]


def _balance_exactly(scores: Tiled, masses: Masses, iteration: IterationOptions) -> Balance:
    """Solves in the log domain from recomputed panels; shifts the kernel by the solution."""
    a = masses.free_row()
    first = iterate.exact_first_columns(scores, masses, iteration, a)
    update = iterate.exact_pair(scores, masses, iteration)
    state, reached = iterate.run(update, a, first, masses, iteration)
    _, lse = scores.fold(
        lambda _, s, __: (None, kernels.exact_row_lse(s, state.b)), None, masses.row
    )
    row = jnp.where(masses.row == -jnp.inf, -jnp.inf, -lse)
    return Balance(Kernel(scores, row, state.b), first, state, reached, lse)


def _backward(options: Options, residuals: Any, cotangents: Any) -> Any:
    inputs, solved, *primal = residuals
    g = jnp.where(inputs.valid, cotangents[0], 0.0)
    g_all = gather(g, options.axis_name)
    v = kernels.weight(solved.state.b, solved.kernel.col)
    u_next = kernels.weight(-solved.row_lse, solved.kernel.row)  # rows of u_next E v add up to 1
    u_next = jnp.where(inputs.valid, u_next, 0.0)
    by_row = g / 2 * u_next
    u = u_next
    if options.gradient != "implicit":
        u = kernels.weight(solved.state.a, solved.kernel.row)

    def direct() -> tuple[Array, Array]:
        dx, dy = weighted.rank_one(solved.kernel, by_row + g / 2 * u, v, inputs)
        px, py = common.equal_positive_gradient(inputs, g_all)
        return dx - px, dy - py

    def general() -> tuple[Array, Array]:
        left, right = _factors(solved, by_row, u, v, g_all, inputs, options)
        dx, dy = weighted.low_rank(solved.kernel, left, right, inputs)
        px, py = common.positive_gradient(inputs, g_all)
        return dx - px, dy - py

    if options.gradient == "stop":
        dx, dy = lax.cond(common.is_uniform(g_all, inputs.pairs), direct, general)
    else:
        dx, dy = general()
    grads = common.embedding_gradients(inputs, dx, dy, options)
    return *(d.astype(p.dtype) for d, p in zip(grads, primal, strict=True)), None, None


def _factors(
    solved: Balance, by_row: Array, u: Array, v: Array, g_all: Array, inputs: Inputs,
    options: Options,
) -> Any:  # fmt: skip
    """U and W of dL/dS = E * (U W^T) - positives."""
    left, right = jnp.stack([by_row, u], 1), jnp.stack([v, g_all / 2 * v], 1)
    if options.gradient == "stop":
        return left, right
    axis, size = options.axis_name, u.shape[0]
    positive = group_sum(g_all / inputs.pairs.sharing, inputs.pairs) / 2
    positive = jnp.where(inputs.pairs.valid, positive, 0.0)
    # Cotangents of the final biases: bbar of the columns, abar of the rows.
    _, by_col = weighted.sweep(solved.kernel, v, lambda _, w: w, by_row, axis_name=axis)
    bbar = v * by_col - positive
    abar = -local(positive, inputs.pairs, size)
    if options.gradient == "implicit":
        p, q = _fixed_point_adjoint(solved.kernel, u, v, abar, bbar, g_all, inputs, options)
        return jnp.stack([by_row - u * p, u], 1), jnp.stack([v, v * (g_all / 2 - q)], 1)
    wide_left, wide_right = _adjoint(solved, abar, bbar, g_all, inputs, axis)
    return jnp.concatenate([left, wide_left], 1), jnp.concatenate([right, wide_right], 1)


def _adjoint(
    solved: Balance, abar: Array, bbar: Array, g_all: Array, inputs: Inputs, axis: str | None
) -> Any:
    """Reverse sweep over the pairs of updates: two rank-one terms per pair, one for the start."""
    kernel, (all_a, all_b) = solved.kernel, solved.reached
    us, vs = kernels.weight(all_a, kernel.row), kernels.weight(all_b, kernel.col)
    first_v = kernels.weight(solved.first_b, kernel.col)
    before = jnp.concatenate([first_v[None], vs[:-1]]) if len(vs) else vs
    # Direct dependence of the loss on a: the weight of the column softmaxes on each row.
    own = kernels.row_sums(kernel, g_all / 2 * (vs[-1] if len(vs) else first_v))

    def back(carry: tuple[Array, Array], pair: tuple[Array, Array, Array]) -> Any:
        (bbar, abar), (u, v, v_before) = carry, pair
        t, total = weighted.sweep(
            kernel, v * bbar, lambda y, abar, u: u * (abar - u * y), abar, u, axis_name=axis
        )
        return (-v_before * total, jnp.zeros_like(abar)), (-v * bbar, t)

    last_u = us[-1] if len(us) else jnp.zeros_like(abar)
    (bbar, _), (right, t) = lax.scan(
        back, (bbar, abar + last_u * own), (us, vs, before), reverse=True
    )
    first_u = kernels.weight(_free(inputs), kernel.row)
    lefts = jnp.concatenate([us, -t, first_u[None]]).T
    rights = jnp.concatenate([right, before, (-first_v * bbar)[None]]).T
    return lefts, rights


def _fixed_point_adjoint(
    kernel: kernels.Kernel, u: Array, v: Array, abar: Array, bbar: Array, g_all: Array,
    inputs: Inputs, options: Options,
) -> Any:  # fmt: skip
    """Adjoints `p` of the rows and `q` of the columns, summed over all pairs at the fixed point.

    One pair maps q to P^T P q, where P has row sums of exactly 1 and column sums c. So the sum over
    pairs solves (diag(c) - P^T P) x = r, with r the result of the first pair. Conjugate gradients
    solve it orthogonally to the constants, the free direction of the biases. The operator is a
    graph Laplacian: positive semidefinite even if the solver has not converged. For a nearly
    decomposable plan it is nearly singular in directions that hardly change the plan; damping
    removes rounding errors there. If all pairs have equal weights, r is the remaining error of the
    solver, and the gradient is (P - Q)/B.
    """
    axis = options.axis_name
    everyone = inputs.pairs.valid
    abar = abar + u * kernels.row_sums(kernel, g_all / 2 * v)
    total, squares = weighted.column_moments(kernel, u, axis)
    col, own = v * total, v * v * squares
    diagonal = jnp.maximum(col - own, 0.0)
    damping, residual = _damping(diagonal, options)

    def pair(q: Array, abar: Array) -> Array:
        _, total = weighted.sweep(
            kernel, v * q, lambda y, abar, u: u * (abar - u * y), abar, u, axis_name=axis
        )
        return -v * total

    def centred(q: Array) -> Array:
        return jnp.where(everyone, q - jnp.sum(q) / jnp.maximum(jnp.sum(everyone), 1), 0.0)

    rest, _ = cg(
        lambda q: centred((col + damping) * q - pair(q, jnp.zeros_like(abar))),
        centred(pair(bbar, abar)),
        tol=0.0,
        atol=residual * jnp.linalg.norm(g_all),
        maxiter=max(options.iterations, _CG_LIMIT),
        M=lambda r: centred(centred(r) / (diagonal + damping)),
    )
    q = bbar + rest
    return abar - u * kernels.row_sums(kernel, v * q), q


def _damping(diagonal: Array, options: Options) -> tuple[Array, float]:
    """The addition to the operator's diagonal, and the residual allowed per unit of cotangent.

    The addition is proportional to the tolerance and at least as large as rounding errors.
    """
    assert options.tolerance is not None  # `ncl` refuses "implicit" without one
    eps = float(np.finfo(diagonal.dtype).eps)
    least = _ROUNDINGS * eps
    damping = jnp.maximum(options.tolerance * jnp.maximum(diagonal, _PART), least)
    return damping, max(64 * eps**0.5 * max(options.tolerance, least), eps)


def _masses(inputs: Inputs) -> Masses:
    everyone = jnp.where(inputs.pairs.valid, 0.0, -jnp.inf).astype(inputs.text.dtype)
    return Masses(_free(inputs), everyone)


def _free(inputs: Inputs) -> Array:
    return jnp.where(inputs.valid, 0.0, -jnp.inf).astype(inputs.text.dtype)


normalized.defvjp(_forward, _backward)
