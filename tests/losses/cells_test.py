"""Every loss in float32 against float64 over hard and real embeddings: a table of cells.

`python -m pytest -m slow -n 0 -s tests/losses/cells_test.py` prints it.
"""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ncl_jax import losses
from tests.losses.implicit_test import BOUND, DEVICES, grouped, scattered, variants
from tests.losses.losses_test import unit

SIZE, DIM = 64, 16
REAL = os.environ.get("NCL_REAL_DATA")


def hub():
    """One clip that is nearest to every text."""
    text, video = scattered(SIZE, DIM)
    text = unit(text + 0.5 * video[:1])
    return text, video


def far_column():
    text, video = (unit(x + 1.5 / DIM**0.5) for x in scattered(SIZE, DIM))
    video[5] = -unit(text.mean(0, keepdims=True))[0]
    return text, video


def duplicates():
    text, video = scattered(SIZE, DIM)
    return text, video[np.arange(SIZE) // 16 * 16]


def four_dimensions():
    text, video = scattered(SIZE, 4)
    return np.pad(text, [(0, 0), (0, DIM - 4)]), np.pad(video, [(0, 0), (0, DIM - 4)])


def matched():
    """Loss near zero: the plan is nearly a permutation."""
    rng = np.random.default_rng(0)
    text = unit(rng.normal(size=(SIZE, DIM)))
    return text, unit(text + 0.1 * rng.normal(size=text.shape))


def real():
    """CLIP on COCO, turned onto the principal directions of these pairs (exact up to width 128)."""
    pairs = np.load(pathlib.Path(REAL) / "embeddings" / "features_clip.npy").astype(np.float64)
    video, text = (unit(x)[:SIZE] for x in pairs)
    _, _, turn = np.linalg.svd(np.concatenate([text, video]), full_matrices=False)
    return unit(text @ turn[:DIM].T), unit(video @ turn[:DIM].T)


INPUTS = {
    "scattered": lambda: scattered(SIZE, DIM),
    "grouped": lambda: grouped(SIZE, DIM),
    "grouped in 8": lambda: grouped(SIZE, DIM, 8),
    "hub": hub,
    "far column": far_column,
    "duplicates": duplicates,
    "4 dimensions": four_dimensions,
    "matched": matched,
} | ({"COCO": real} if REAL else {})
LOSSES = {
    "infonce": losses.infonce,
    "stop": losses.ncl,
    "unroll": functools.partial(losses.ncl, gradient="unroll"),
    "implicit": functools.partial(
        losses.ncl, gradient="implicit", iterations=1000, tolerance=1e-3, overrelaxation=True
    ),
}


def compiled(loss, materialize, axis_name=None):
    def weighted(text, video, scale, ids, valid, weights):
        out = loss(text, video, scale, ids, valid, materialize=materialize, axis_name=axis_name)
        out = out[0] if isinstance(out, tuple) else out
        return jnp.sum(out * weights), out

    function = jax.grad(weighted, (0, 1), has_aux=True)
    if axis_name is None:
        return jax.jit(function)
    rows = P(axis_name)
    mesh = Mesh(jax.devices()[:DEVICES], (axis_name,))
    specs = (rows, rows, P(), rows, rows, rows)
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
    )


def run(function, dtype, scale, make, ids, valid, weights):
    text, video = make()
    with jax.enable_x64(dtype == np.float64):
        floats = (np.asarray(np.float32(x), dtype) for x in (text, video, scale))
        gradients, out = function(*floats, np.int32(ids), valid, np.asarray(weights, dtype))
        return np.concatenate([np.asarray(x, np.float64) for x in gradients]), np.asarray(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_float32_cells(name):
    """The largest error of a cell (input, kind) over padding, weights and scales 20 and 100,
    of the gradient's norm, or of that at loss 1 where the loss is below .1; values of the scale.
    """
    reference = compiled(LOSSES[name], "always")
    functions = {
        "always": reference,
        "never": compiled(LOSSES[name], "never"),
        "sharded": compiled(LOSSES[name], "always", "data"),
        "both": compiled(LOSSES[name], "never", "data"),
    }
    cells = {}
    for (case, make), args in ((c, v) for c in INPUTS.items() for v in variants(SIZE).values()):
        for scale in (20.0, 100.0):
            expected, out = run(reference, np.float64, scale, make, *args)
            mean = np.mean(out[args[1]])
            norm = np.linalg.norm(expected) / min(1, mean if mean < 0.1 else 1)
            for materialize, function in functions.items():
                got, values = run(function, np.float32, scale, make, *args)
                off = np.linalg.norm(got - expected) / norm
                if name != "implicit":  # its values show where the tolerance ended the solver
                    off = max(off, np.abs(values - out).max() / scale)
                cells[case, materialize] = max(off, cells.get((case, materialize), 0.0))
    print(f"\n{name:>14s}" + "".join(f"{e:>10s}" for e in functions))
    for case in INPUTS:
        print(f"{case:>14s}" + "".join(f"{cells[case, e]:10.1e}" for e in functions))
    assert max(cells.values()) < BOUND
