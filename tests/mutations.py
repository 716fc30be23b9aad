"""Mutations of the numerics: each must make at least one fast test fail.

    python -m tests.mutations            # all of them, a few minutes
    python -m tests.mutations stale_bias # one

Every mutation is applied to a copy of the package, so the tree itself is never touched.
"""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
SOLVER, KERNEL, NORMALIZED, INPUTS, WEIGHTED, CONTRAST, GROUPS = (
    f"ncl_jax/{name}.py"
    for name in (
        "sinkhorn/iterate",
        "sinkhorn/kernel",
        "losses/normalized",
        "losses/inputs",
        "losses/weighted",
        "losses/contrast",
        "losses/groups",
    )
)


class Mutation(NamedTuple):
    """`old` occurs exactly once in `file` and becomes `new`; `tests` must then fail."""

    file: str
    old: str
    new: str
    tests: str


LOSS = "tests/losses/losses_test.py"
SOLVE = "tests/sinkhorn/sinkhorn_test.py"
SHARDED = "tests/losses/sharded_test.py"
CHECKPOINTS = "tests/checkpoint/checkpointer_test.py"
IMPLICIT = "tests/losses/implicit_test.py"

ONLINE = "tests/normalizers/online_test.py"

MUTATIONS = {
    "online_sees_the_queries_it_answers": Mutation(
        "ncl_jax/normalizers/online.py",
        "self.refitted(query[arrival[:start]]).bias",
        "self.refitted(query[arrival[: start + self.every]]).bias",
        ONLINE,
    ),
    "stream_sees_the_queries_it_answers": Mutation(
        "ncl_jax/normalizers/online.py",
        "if self.answered and self.answered % every == 0:",
        "self._seen.append(query[:1])\n            if True:",
        ONLINE,
    ),
    "scores_in_single_precision": Mutation(
        "ncl_jax/metrics/blocks.py",
        "np.float64 if fine else np.float32",
        "np.float32",
        "tests/metrics/metrics_test.py",
    ),
    "pooled_at_the_last_end_token": Mutation(
        "ncl_jax/data/tokenizer.py",
        "said[: said.index(self._end)] if self._end in said else said",
        "said",
        "tests/data/tokenizer_test.py",
    ),
    "transposed_marginals": Mutation(
        "ncl_jax/sinkhorn/__init__.py",
        "masses = Masses(jnp.log(row_mass), jnp.log(col_mass))",
        "masses = Masses(jnp.log(row_mass * 0 + col_mass[0]), jnp.log(col_mass * 0 + 1))",
        SOLVE,
    ),
    "dropped_text_bias": Mutation(
        INPUTS, "as_video = as_video + group_sum_of_local(a, pairs)", "as_video = as_video", LOSS
    ),
    "dropped_video_bias": Mutation(
        INPUTS,
        "as_text = as_text + local(group_sum(b, pairs), pairs, size)",
        "as_text = as_text",
        LOSS,
    ),
    "wrong_axis": Mutation(
        KERNEL,
        "top + jnp.log(jnp.sum(jnp.exp(shifted - top[:, None]), axis=1))",
        "top + jnp.log(jnp.sum(jnp.exp(shifted - top[:, None]), axis=0)[: len(top)])",
        LOSS,
    ),
    "missing_count": Mutation(
        INPUTS, "return as_text / count, as_video / count", "return as_text, as_video", LOSS
    ),
    "missing_half": Mutation(
        NORMALIZED,
        "by_row = g / 2 * u_next",
        "by_row = g * u_next",
        LOSS,
    ),
    "stale_bias": Mutation(
        SOLVER,
        "kernels.weight(new, row) @ e, (own, plain, new)",
        "kernels.weight(a, row) @ e, (own, plain, new)",
        SOLVE,
    ),
    "one_pair_too_few": Mutation(
        SOLVER,
        "lax.fori_loop(0, options.iterations,",
        "lax.fori_loop(1, options.iterations,",
        SOLVE,
    ),
    "unmasked_columns": Mutation(
        SOLVER,
        "target = _masked(options.strength * (masses.col - lse), masses.col)",
        "target = options.strength * (0 * masses.col - lse)",
        SOLVE,
    ),
    "adjoint_sign": Mutation(
        NORMALIZED,
        "return (-v_before * total, jnp.zeros_like(abar)), (-v * bbar, t)",
        "return (v_before * total, jnp.zeros_like(abar)), (-v * bbar, t)",
        LOSS,
    ),
    "implicit_without_row_adjoint": Mutation(
        NORMALIZED,
        "return abar - u * kernels.row_sums(kernel, v * q), q",
        "return abar, q",
        LOSS,
    ),
    "infinite_rows_pass": Mutation(
        INPUTS, "scale = jnp.where(sound, scale, jnp.nan)", "scale = scale + 0 * sound", LOSS
    ),
    "undamped_adjoint": Mutation(
        NORMALIZED, "centred((col + damping) * q", "centred((col + 0 * damping) * q", IMPLICIT
    ),
    "adjoint_of_unbalanced_rows": Mutation(
        NORMALIZED,
        'if options.gradient != "implicit":',
        "if True:",
        IMPLICIT,
    ),
    "float32_sums_over_the_bank": Mutation(
        "ncl_jax/index/bank_mass.py",
        "np.exp(x - top).sum(axis=0, dtype=np.float64)",
        "np.exp(x - top).sum(axis=0)",
        "tests/index/index_test.py",
    ),
    "untrusted_without_pairs": Mutation(
        "ncl_jax/sinkhorn/__init__.py", "state.trusted & ok", "state.trusted", SOLVE
    ),
    "minus_infinity_as_mask": Mutation(
        "ncl_jax/sinkhorn/__init__.py",
        "jnp.where(scores == -jnp.inf, jnp.nan, scores)",
        "scores",
        SOLVE,
    ),
    "vanished_columns_on_the_host": Mutation(
        "ncl_jax/sinkhorn/numpy_solver.py",
        "if columns.total.min() > VANISHING:",
        "if True:",
        "tests/normalizers/normalizers_test.py",
    ),
    "wide_ids_cut": Mutation(INPUTS, "if ids.size and (ids.min()", "if False and (ids.min()", LOSS),
    "negative_scale_accepted": Mutation(
        INPUTS, "if not 0 < float(scale) < np.inf:", "if not np.isfinite(float(scale)):", LOSS
    ),
    "half_place_at_the_border": Mutation(
        "ncl_jax/metrics/recall.py",
        'beyond = 0.5 if tie_rule == "average_border" else 0.0',
        "beyond = 0.0",
        "tests/metrics/metrics_test.py",
    ),
    "biases_without_bank": Mutation(
        "ncl_jax/index/retrieval_index.py",
        "checks.check_biases(biases, len(bank), len(ids))",
        "pass",
        "tests/index/index_test.py",
    ),
    "always_converged": Mutation(
        "ncl_jax/sinkhorn/numpy_solver.py",
        "(error, iterations, error < CONVERGED)",
        "(error, iterations, error < 1e9)",
        "tests/sinkhorn/converged_test.py",
    ),
    "never_relaxed": Mutation(
        "ncl_jax/sinkhorn/overrelaxation.py",
        "jnp.where(spectrum > _SLOW, 2 / (1 + jnp.sqrt(1 - spectrum)), 1.0)",
        "jnp.ones_like(spectrum)",
        SOLVE,
    ),
    "relaxed_until_the_end": Mutation(
        "ncl_jax/sinkhorn/overrelaxation.py",
        "close = (excess <= 1) | (ended & ((2 - omega) * excess <= 1))",
        "close = excess <= 1",
        SOLVE,
    ),
    "relaxed_without_safeguard": Mutation(
        "ncl_jax/sinkhorn/overrelaxation.py",
        "failed = (omega > 1) & ~(gain >= 0)",
        "failed = (omega > 1) & (omega < 1)",
        SOLVE,
    ),
    "forgotten_scale": Mutation(
        INPUTS, "jnp.where(valid, inputs.scale * dx, 0.0)", "jnp.where(valid, dx, 0.0)", LOSS
    ),
    "infonce_rows_only": Mutation(
        CONTRAST,
        "return by_row + (g_all / 2) * jnp.exp(s - col_lse)",
        "return by_row * 2",
        LOSS,
    ),
    "unsummed_columns": Mutation(
        WEIGHTED,
        "return t, sum_over(total, axis_name)",
        "return t, total",
        SHARDED,
    ),
    "gradient_of_own_device_only": Mutation(
        GROUPS,
        "return x if axis_name is None else lax.psum_scatter(x, axis_name, tiled=True)",
        "return x if axis_name is None else x[: len(x) // lax.axis_size(axis_name)]",
        SHARDED,
    ),
    "upper_halves_unsummed": Mutation(
        "ncl_jax/checkpoint/checksums.py",
        'f"uint{min(_width(leaf), 32)}"',
        'f"uint{_width(leaf)}"',
        "tests/checkpoint/checksums_test.py::test_sums_see_every_bit_of_narrow_and_wide_types",
    ),
    "nan_is_a_score": Mutation(
        "ncl_jax/checkpoint/orbax_options.py",
        "score if score is not None and math.isfinite(score) else None",
        "score",
        f"{CHECKPOINTS}::test_a_score_that_is_no_number_lets_the_best_stay",
    ),
    "low_rank_transposed": Mutation(
        WEIGHTED,
        "return dy + d.T @ x, d @ inputs.video",
        "return dy + d.T @ x, d @ x[:1] * 0",
        LOSS,
    ),
}


def apply(mutation: Mutation, root: pathlib.Path) -> None:
    """Rewrites the file under `root`; the place must be there exactly once."""
    path = root / mutation.file
    source = path.read_text()
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} must hold this exactly once: {mutation.old}")
    path.write_text(source.replace(mutation.old, mutation.new))


def survives(mutation: Mutation) -> bool:
    """Whether the tests still pass on a mutated copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in ("ncl_jax", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name)  # with its bytecode
        shutil.copy(ROOT / "pyproject.toml", copy)
        apply(mutation, copy)
        options = ["-q", "-x", "-n", "0", "-m", "not slow"]
        command = [sys.executable, "-m", "pytest", *options, mutation.tests]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return done.returncode == 0


def main() -> None:
    names = sys.argv[1:] or list(MUTATIONS)
    alive = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(survives, [MUTATIONS[name] for name in names])
        for name, lives in zip(names, results, strict=True):
            alive += [name] * lives
            print(f"{name}: {'SURVIVED' if lives else 'caught'}", flush=True)
    if alive:
        raise SystemExit(f"no test noticed: {', '.join(alive)}")


if __name__ == "__main__":
    main()
