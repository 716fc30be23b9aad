"""B6: fitting NCL's biases, 5,000 bank texts x 100,000 items, d = 512, 4 iterations.

    python -m benchmarks.retrieval_fit [--quick] [BANK ITEMS]

Target: default settings at most 2 (t_g + K t_r); a kernel that is not stored at most 1.2 times
(K + 1) t_g, under 2 GB. The floors are measured in a process of their own: t_g one product of
that shape into memory that has been used, t_r one matrix-vector product over it.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks.common import Row, at_most, note
from benchmarks.retrieval_common import alone, show, unit_rows
from ncl_jax.sinkhorn import numpy_solver

FULL, QUICK = (5_000, 100_000, 512), (1_000, 5_000, 64)
SCALE, ITERATIONS = 50.0, 4


def fit(
    size: tuple[int, int, int], memory: float | None, iterations: int
) -> tuple[float, np.ndarray]:
    bank, gallery = unit_rows(0, size[0], size[2]), unit_rows(1, size[1], size[2])
    numpy_solver.balance(bank[:9], gallery[:9], SCALE, 1)  # starts JAX, which holds the result
    start = time.perf_counter()
    biases, _ = numpy_solver.balance(bank, gallery, SCALE, iterations, memory=memory)
    return time.perf_counter() - start, np.asarray(biases.video)


def floors(size: tuple[int, int, int]) -> tuple[float, float]:
    """(t_g, t_r)."""
    bank, gallery = unit_rows(0, size[0], size[2]), unit_rows(1, size[1], size[2])
    kernel = np.zeros((size[0], size[1]), np.float32)
    products, reads, v = [], [], np.ones(size[1], np.float32)
    for _ in range(3):
        start = time.perf_counter()
        np.matmul(bank, gallery.T, out=kernel)
        products.append(time.perf_counter() - start)
        start = time.perf_counter()
        kernel @ v
        reads.append(time.perf_counter() - start)
    return min(products), min(reads)


def table(quick: bool = False, size: tuple[int, int, int] | None = None) -> list[dict[str, Any]]:
    """Rows for default settings, more iterations, and a kernel that is not stored."""
    size = size or (QUICK if quick else FULL)
    (t_g, t_r), _, _ = alone(floors, size)
    print(f"floors: t_g {t_g:.2f} s, t_r {t_r:.3f} s", flush=True)
    rows = []
    modes = [("default", None, ITERATIONS), ("default", None, 20), ("recomputed", 0.0, ITERATIONS)]
    for mode, memory, iterations in modes:
        runs = [alone(fit, size, memory, iterations) for _ in range(1 if quick else 3)]
        seconds, peak = float(np.median([r[0][0] for r in runs])), max(r[2] for r in runs)
        print(f"{mode}, K={iterations}: {seconds:.1f} s, {peak:.2f} GB", flush=True)
        rows.append({
            "mode": mode, "K": iterations, "seconds": seconds, "t_g": t_g, "t_r": t_r,
            "over t_g + K t_r": seconds / (t_g + iterations * t_r),
            "over (K + 1) t_g": seconds / t_g / (iterations + 1), "peak GB": peak,
        })  # fmt: skip
    return rows


def run(quick: bool = False) -> list[Row]:
    """The same as rows of the common table."""
    default, more, recomputed = table(quick)
    return [
        at_most("B6", "fit K=4 over (t_g + K t_r)", default["over t_g + K t_r"], 2.0),
        note("B6", "fit K=20 over (t_g + K t_r)", more["over t_g + K t_r"]),
        note("B6", "peak GB, default", default["peak GB"]),
        at_most("B6", "recomputed K=4 over (K + 1) t_g", recomputed["over (K + 1) t_g"], 1.2),
        at_most("B6", "peak GB, recomputed", recomputed["peak GB"], 2),
    ]


def main() -> None:
    """Prints the table."""
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()]
    size = (sizes[0], sizes[1], 512) if sizes else None
    title = "B6, fit (targets: default <= 2.0 t_g + K t_r, recomputed <= 1.2 (K + 1) t_g and 2 GB)"
    show(title, table("--quick" in sys.argv, size))


if __name__ == "__main__":
    main()
