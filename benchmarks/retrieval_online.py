"""What a refit of online biases costs, by the size of bank + answered queries and of the gallery.

    python -m benchmarks.retrieval_online [--quick]

d = 512, 4 iterations, default memory. t_g is one product of that shape, in the same process.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks.retrieval_common import interleaved, ratio, show, unit_rows
from ncl_jax.normalizers import Bank, Ncl, Online

SIZES = ((1_000, 1_000), (10_000, 1_000), (50_000, 1_000), (1_000, 10_000), (10_000, 10_000))
QUICK = ((500, 200), (1_000, 500))
DIM, BLOCKS = 512, 3


def row(bank: int, items: int) -> dict[str, Any]:
    """Seconds of one refit, and over a product."""
    query, gallery = unit_rows(0, bank, DIM), unit_rows(1, items, DIM)
    half = bank // 2
    fitted = Online(half, Ncl(50.0)).fit(Bank(query[:half]), gallery)
    calls = {"refit": lambda: fitted.refitted(query[half:]), "product": lambda: query @ gallery.T}
    seconds = interleaved(calls, BLOCKS)
    middle = float(np.median(seconds["refit"]))
    return {"bank + answered": bank, "items": items, "seconds per refit": middle,
            "over t_g": ratio(seconds, "refit", "product")}  # fmt: skip


def main() -> None:
    """Prints the table."""
    start = time.perf_counter()
    sizes = QUICK if "--quick" in sys.argv else SIZES
    show("Online: one refit, median of 3", [row(*size) for size in sizes])
    print(f"\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
