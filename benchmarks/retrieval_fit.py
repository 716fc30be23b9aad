"""B6: fitting NCL's biases, 10k bank x 100k gallery, d = 512, 20 iterations.

    python -m benchmarks.retrieval_fit [--quick]

Target: time <= 1.5 (t_g + K t_r) and under 6 GB; tiled under 2 GB. The floors are measured in
the same process: t_g one product of that shape, t_r one matrix-vector product over the kernel.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks.common import Row, at_most, note
from benchmarks.retrieval_common import alone, show, unit_rows
from ncl_jax.sinkhorn import numpy_solver

FULL, QUICK = (10_000, 100_000, 512), (1_000, 5_000, 64)
SCALE, ITERATIONS = 50.0, 20


def fit(size: tuple[int, int, int], memory: float, iterations: int) -> tuple[float, np.ndarray]:
    bank, gallery = unit_rows(0, size[0], size[2]), unit_rows(1, size[1], size[2])
    numpy_solver.balance(bank[:9], gallery[:9], SCALE, 1)  # starts JAX, which holds the result
    start = time.perf_counter()
    biases, _ = numpy_solver.balance(bank, gallery, SCALE, iterations, memory=memory)
    return time.perf_counter() - start, np.asarray(biases.video)


def floors(size: tuple[int, int, int]) -> tuple[float, float]:
    """(t_g, t_r), in the panels of the fit."""
    bank, gallery = unit_rows(0, size[0], size[2]), unit_rows(1, size[1], size[2])
    kernel = np.zeros((size[0], size[1]), np.float32)
    start = time.perf_counter()
    np.matmul(bank, gallery.T, out=kernel)
    t_g = time.perf_counter() - start
    reads, v = [], np.ones(size[1], np.float32)
    for _ in range(3):
        start = time.perf_counter()
        kernel @ v
        reads.append(time.perf_counter() - start)
    return t_g, min(reads)


def table(quick: bool = False) -> list[dict[str, Any]]:
    """Rows for the stored and the tiled mode (the latter with fewer iterations: K products)."""
    size = QUICK if quick else FULL
    (t_g, t_r), _, _ = alone(floors, size)
    print(f"floors: t_g {t_g:.2f} s, t_r {t_r:.3f} s", flush=True)
    rows = []
    modes = [("stored", 1e12, ITERATIONS), ("stored", 1e12, 4)]
    for mode, memory, iterations in [*modes, ("tiled", 0.0, 4)]:
        (seconds, _), _, peak = alone(fit, size, memory, iterations)
        floor = t_g + iterations * t_r
        print(f"{mode}, K={iterations}: {seconds:.1f} s, {peak:.2f} GB", flush=True)
        rows.append({
            "mode": mode, "K": iterations, "seconds": seconds, "t_g": t_g, "t_r": t_r,
            "over t_g + K t_r": seconds / floor, "over (K + 1) t_g": seconds / t_g
            / (iterations + 1), "peak GB": peak,
        })  # fmt: skip
    return rows


def run(quick: bool = False) -> list[Row]:
    """The same as rows of the common table."""
    stored, _, tiled = table(quick)
    return [
        at_most("B6", "fit K=20 over (t_g + K t_r)", stored["over t_g + K t_r"], 1.5),
        at_most("B6", "peak GB, stored", stored["peak GB"], 6),
        at_most("B6", "peak GB, tiled", tiled["peak GB"], 2),
        note("B6", "tiled K=4 over (K + 1) t_g", tiled["over (K + 1) t_g"]),
    ]


def main() -> None:
    """Prints the table."""
    show("B6, fit (targets: stored <= 1.5 and 6 GB, tiled 2 GB)", table("--quick" in sys.argv))


if __name__ == "__main__":
    main()
