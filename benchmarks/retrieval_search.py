"""B7: exact search against FAISS, usearch, `lax.top_k` and our search on devices, in one run.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.retrieval_search [--quick] [ITEMS]

100,000 items of 512 numbers unless said otherwise. Targets: recall 1.0; at least the speed of FAISS
and usearch at every number of queries, 1.3 times at 16 and more; the bias costs under 2 %. The
floor is the bare product of NumPy. Peers that are not installed are left out.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Row, at_least, note
from benchmarks.retrieval_common import interleaved, ratio, show, unit_rows
from ncl_jax.index import device_search, host_search

ITEMS, DIM, K = 100_000, 512, 10
QUERIES = (1, 16, 64, 200, 1000)
PEERS = ("faiss", "usearch", "lax.top_k", "on devices")


def contestants(
    query: np.ndarray, item: np.ndarray, bias: np.ndarray
) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """Calls by name, each returning ids [query, K] where it searches; and what is missing."""
    shards = device_search.place(item, bias)
    placed = jnp.asarray(item.T)  # by columns, as ours: by rows, XLA:CPU copies it at every call
    sort = jax.jit(lambda q, y, b: jax.lax.top_k(q @ y + b, K))
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: host_search.search(query, [(item, bias)], K, 1.0)[1],
        "on devices": lambda: device_search.search(query, shards, K)[1],
        "product": lambda: _product(query, item),
        "lax.top_k": lambda: np.asarray(sort(query, placed, bias)[1]),
    }
    folded, asked = (
        np.column_stack([item, bias]),
        np.pad(query, ((0, 0), (0, 1)), constant_values=1),
    )
    missing = []
    try:
        import faiss

        flat = faiss.IndexFlatIP(DIM + 1)
        flat.add(folded)
        calls["faiss"] = lambda: flat.search(asked, K)[1]
    except ImportError:
        missing.append("faiss-cpu")
    try:
        from usearch.index import MetricKind, search

        if len(query) <= 64:  # pair by pair: hopeless, and slow, beyond
            calls["usearch"] = lambda: (
                search(folded, asked, K, MetricKind.IP, exact=True, threads=2).keys
            )
    except ImportError:
        missing.append("usearch")
    return calls, missing


def _product(query: np.ndarray, item: np.ndarray) -> None:
    """The floor: all scores, in the panels in which they are searched."""
    width = max(host_search.WIDTH, host_search.SCORES // len(query))
    out = np.empty(len(query) * width, np.float32)
    for start in range(0, len(item), width):
        part = item[start : start + width]
        np.matmul(query, part.T, out=out[: len(query) * len(part)].reshape(len(query), -1))


def table(items: int, quick: bool = False) -> list[dict[str, Any]]:
    """One row per number of queries: milliseconds, and ratios to ours."""
    item = unit_rows(0, items, DIM)
    bias = np.random.default_rng(1).normal(size=items).astype(np.float32) * 0.02
    rows = []
    for count in (1, 64, 200) if quick else QUERIES:
        query = unit_rows(2, count, DIM)
        calls, missing = contestants(query, item, bias)
        seconds = interleaved(calls, 2 if quick else {1: 41, 16: 15}.get(count, 5))
        exact = np.argpartition(-(query @ item.T + bias), K - 1, axis=1)[:, :K]
        found = calls["ours"]()
        hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
        row: dict[str, Any] = {"Q": count, "recall": float(np.mean(hits)) / K}
        row |= {f"{name} ms": 1000 * float(np.median(t)) for name, t in seconds.items()}
        row |= {
            f"{name} / ours": ratio(seconds, name, "ours") for name in PEERS if name in seconds
        }
        row["ours / product"] = ratio(seconds, "ours", "product")
        row["not installed"] = ", ".join(missing)
        rows.append(row)
        said = ", ".join(f"{name} {1000 * np.median(t):.1f} ms" for name, t in seconds.items())
        print(f"{count} queries: {said}", flush=True)
    return rows


def run(quick: bool = False) -> list[Row]:
    """The same as rows of the common table."""
    rows = []
    for row in table(5_000 if quick else ITEMS, quick):
        name = f"{row['Q']} queries"
        rows.append(at_least("B7", f"recall, {name}", row["recall"], 1))
        for peer in PEERS:
            if f"{peer} / ours" in row:
                value, what = row[f"{peer} / ours"], f"{peer} time / ours, {name}"
                if peer in ("faiss", "usearch"):
                    rows.append(at_least("B7", what, value, 1.0 if row["Q"] == 1 else 1.3))
                else:
                    rows.append(note("B7", what, value))
        rows.append(note("B7", f"ours over the bare product, {name}", row["ours / product"]))
    return rows


def main() -> None:
    """Prints the table."""
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()]
    quick = "--quick" in sys.argv
    rows = table(sizes[0] if sizes else 5_000 if quick else ITEMS, quick)
    show("B7, search (targets: FAISS and usearch over ours >= 1 for one query, else 1.3)", rows)


if __name__ == "__main__":
    main()
