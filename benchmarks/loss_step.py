"""B1: value and gradient of the loss against InfoNCE, unrolled autodiff and PyTorch."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import torch_peers
from benchmarks.common import (
    Row,
    at_least,
    at_most,
    blocking,
    embeddings,
    interleave,
    note,
    ratio,
    read_floor,
)
from benchmarks.loss_functions import FUNCTIONS

DIM, SCALE = 512, 20.0


def run(quick: bool) -> Iterator[Row]:
    size, blocks = (4096, 2) if quick else (4096, 9)
    args = (*embeddings(size, DIM), jnp.float32(SCALE))
    compiled = {
        name: jax.jit(jax.value_and_grad(f, (0, 1, 2))).lower(*args).compile()
        for name, f in FUNCTIONS.items()
    }
    _check(compiled, args)
    calls = {name: blocking(c, *args) for name, c in compiled.items()}
    product = jax.jit(lambda x, y: x @ y.T)
    calls |= {"t_g": blocking(product, *args[:2])} | read_floor(product(*args[:2]))
    with torch_peers.peers(*args) as torch_calls:
        seconds = interleave(calls | torch_calls, blocks)
    yield from _rows(seconds)
    matrix = 4 * size * size
    temp = {n: c.memory_analysis().temp_size_in_bytes / matrix for n, c in compiled.items()}
    yield at_most(
        "B1", "unroll, B x B matrices of temporary memory", temp["NCL unroll K=10"], 2.4
    )
    for name in ("NCL stop K=10", "NCL unroll K=10, autodiff", "InfoNCE, both axes"):
        yield note("B1", f"{name}, B x B matrices of temporary memory", temp[name])


def _rows(seconds: dict[str, np.ndarray]) -> Iterator[Row]:
    for name, values in seconds.items():
        yield note("B1", f"{name}, ms", 1e3 * np.median(values))
    forms = ("InfoNCE, both axes", "InfoNCE, two passes")
    fast, slow = sorted(forms, key=lambda n: np.median(seconds[n]))
    for k, bound in ((4, 1.05), (10, 1.10)):
        name = f"NCL stop K={k}"
        yield at_most("B1", f"{name} over the faster InfoNCE", ratio(seconds, name, fast), bound)
        yield at_most("B1", f"{name} over the slower InfoNCE", ratio(seconds, name, slow), 0.85)
    read = np.minimum(*(np.median(seconds[f"t_r {x}"]) for x in ("XLA", "NumPy")))
    limit = 3 * np.median(seconds["t_g"]) + 13 * read
    own = np.median(seconds["NCL stop K=10"])
    yield at_most("B1", "NCL stop K=10 over 3 t_g + 13 t_r", own / limit, 1.35)
    gain = ratio(seconds, "NCL unroll K=10, autodiff", "NCL unroll K=10")
    yield at_least("B1", "unroll: autodiff over ours, K=10", gain, 2.5)
    for peer, mine in torch_peers.AGAINST.items():
        if peer in seconds:
            yield at_most("B1", f"{mine} over {peer}", ratio(seconds, mine, peer), 1.0)


def _check(compiled, args) -> None:
    """What is timed computes the same thing."""
    results = {name: c(*args) for name, c in compiled.items()}
    for one, other in (
        ("InfoNCE, both axes", "InfoNCE, two passes"),
        ("InfoNCE, both axes", "InfoNCE, ours"),
        ("NCL unroll K=10", "NCL unroll K=10, autodiff"),
    ):
        (v, g), (w, h) = results[one], results[other]
        np.testing.assert_allclose(v, w, rtol=1e-4, atol=1e-5)
        for x, y in zip(g, h, strict=True):
            assert np.linalg.norm(x - y) <= 1e-3 * np.linalg.norm(y), (one, other)
