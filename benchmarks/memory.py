"""B2: temporary and resident memory of the tiled gradient against the batch size."""

import sys
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Row, at_most, embeddings, fresh, note
from benchmarks.resident import peak_resident
from ncl_jax import losses

DIM = 512


def gradient(iterations: int):
    def mean(text, video, scale):
        ids = jnp.arange(len(text))
        options = {"iterations": iterations, "materialize": "never"}
        return losses.ncl(text, video, scale, ids, ids >= 0, **options)[0].mean()

    return jax.jit(jax.grad(mean, (0, 1, 2)))


def run(quick: bool) -> Iterator[Row]:
    sizes = [1 << k for k in ((13, 16) if quick else range(10, 17))]
    temp = []
    for size in sizes:
        row = jax.ShapeDtypeStruct((size, DIM), jnp.float32)
        scale = jax.ShapeDtypeStruct((), jnp.float32)
        compiled = gradient(4).lower(row, row, scale).compile()
        temp.append(compiled.memory_analysis().temp_size_in_bytes)
        yield note("B2", f"temporary MB at B={size}", temp[-1] / 1e6)
    large = np.log([(b, t) for b, t in zip(sizes, temp, strict=True) if b >= 8192])
    slope = np.polyfit(*large.T, 1)[0]
    yield at_most("B2", "exponent of temporary bytes in B, from 8k", slope, 1.05)
    for size in (4096,) if quick else (8192, 16384, 32768, 65536):
        seconds, peak = map(float, fresh("benchmarks.memory", size, 1).split())
        yield note("B2", f"K=1 gradient at B={size}, s", seconds)
        yield at_most("B2", f"peak resident GB at B={size}", peak, 4.0)


def _one(size: int, iterations: int) -> None:
    args = (*embeddings(size, DIM), jnp.float32(20))
    start = time.perf_counter()
    grads = jax.block_until_ready(gradient(iterations)(*args))
    spent = time.perf_counter() - start
    assert all(bool(jnp.isfinite(g).all()) for g in grads)
    print(spent, peak_resident())


if __name__ == "__main__":
    _one(int(sys.argv[1]), int(sys.argv[2]))
