"""B7: exact search over 100k x 512 against FAISS, usearch and plain `lax.top_k`, in one run.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.retrieval_search [--quick]

Targets: recall 1.0; at least FAISS's speed for 200 queries and more, within 1.5x for one; the
bias costs under 2 %. The floor is one bare product. Peers that are not installed are left out.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Row, at_least, at_most, note
from benchmarks.retrieval_common import interleaved, ratio, show, unit_rows
from ncl_jax.index import device_search

ITEMS, DIM, K = 100_000, 512, 10
QUERIES = (1, 16, 64, 200, 1000)
BIAS_AT = (64, 200)


def contestants(
    query: np.ndarray, item: np.ndarray, bias: np.ndarray, shards: device_search.Shards
) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """Calls by name, each returning ids [query, K] where it searches; and what is missing."""
    # One coordinate less, which is all that the bias adds.
    unbiased = device_search.place(item[:, :-1], item[:, -1])
    placed = jnp.asarray(item.T)  # by columns, as ours: by rows, XLA:CPU copies it at every call
    product = jax.jit(lambda q, y: (q @ y).max())
    sort = jax.jit(lambda q, y, b: jax.lax.top_k(q @ y + b, K))
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: device_search.search(query, shards, K)[1],
        "ours, no bias": lambda: device_search.search(query[:, :-1], unbiased, K)[1],
        "product": lambda: jax.block_until_ready(product(query, placed)),
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


def table(quick: bool = False) -> list[dict[str, Any]]:
    """One row per number of queries: milliseconds, and ratios to ours."""
    items = 5_000 if quick else ITEMS
    item = unit_rows(0, items, DIM)
    bias = np.random.default_rng(1).normal(size=items).astype(np.float32) * 0.02
    shards = device_search.place(item, bias)
    rows = []
    for count in (1, 64, 200) if quick else QUERIES:
        query = unit_rows(2, count, DIM)
        calls, missing = contestants(query, item, bias, shards)
        seconds = interleaved(calls, 2 if quick else {1: 41, 16: 15}.get(count, 5))
        exact = np.argpartition(-(query @ item.T + bias), K - 1, axis=1)[:, :K]
        found = calls["ours"]()
        hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
        row: dict[str, Any] = {"Q": count, "recall": float(np.mean(hits)) / K}
        row |= {f"{name} ms": 1000 * float(np.median(t)) for name, t in seconds.items()}
        row |= {
            f"{name} / ours": ratio(seconds, name, "ours")
            for name in ("faiss", "usearch", "lax.top_k")
            if name in seconds
        }
        if count in BIAS_AT:
            row["bias cost"], row["bias cost by halves"] = bias_cost(calls, 9 if quick else 81)
        row["not installed"] = ", ".join(missing)
        rows.append(row)
        print(f"{count} queries: " + ", ".join(f"{n} {1000 * np.median(t):.1f} ms"
                                               for n, t in seconds.items()), flush=True)
    return rows


def bias_cost(calls: dict[str, Callable[[], Any]], blocks: int) -> tuple[float, float]:
    """Share of time that the bias adds, and how far two halves of the blocks differ in it.

    The two searches alternate and change places in every block, so that neither follows the
    other's cache more often; medians of each are compared, as single blocks vary more than 2 %.
    """
    pair = {name: calls[name] for name in ("ours", "ours, no bias")}
    orders = (pair, dict(reversed(pair.items())))
    runs = [interleaved(orders[block % 2], 1) for block in range(blocks + 1)]

    def cost(part: list[dict[str, list[float]]]) -> float:
        one, other = (np.median([run[name] for run in part]) for name in pair)
        return float(one / other) - 1

    return cost(runs), abs(cost(runs[: len(runs) // 2]) - cost(runs[len(runs) // 2 :]))


def run(quick: bool = False) -> list[Row]:
    """The same as rows of the common table."""
    rows = []
    for row in table(quick):
        name = f"{row['Q']} queries"
        rows.append(at_least("B7", f"recall, {name}", row["recall"], 1))
        for peer in ("faiss", "usearch", "lax.top_k"):
            if f"{peer} / ours" in row:
                value, least = row[f"{peer} / ours"], {1: 0.67, 200: 1.0, 1000: 1.0}.get(row["Q"])
                what = f"{peer} time / ours, {name}"
                if peer == "faiss" and least:
                    rows.append(at_least("B7", what, value, least))
                else:
                    rows.append(note("B7", what, value))
        if "bias cost" in row:
            rows.append(at_most("B7", f"bias cost, {name}", row["bias cost"], 0.02))
            what = f"bias cost, {name}, larger less smaller of two halves of the blocks"
            rows.append(note("B7", what, row["bias cost by halves"]))
    return rows


def main() -> None:
    """Prints the table."""
    show(
        "B7, search (targets: FAISS / ours >= 1 for Q >= 200, >= 0.67 for Q = 1)",
        table("--quick" in sys.argv),
    )


if __name__ == "__main__":
    main()
