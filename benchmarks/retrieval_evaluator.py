"""The evaluator on large test sets, against whole-matrix NumPy versions that sort.

    python -m benchmarks.retrieval_evaluator [--quick]

59,800 texts x 2,990 videos (MSR-VTT, full split) and 27,763 x 670 (MSVD). Target: at least 5
times faster with the same numbers, in under 2 GB. Two versions sort: `double argsort` is what
CLIP4Clip does for several captions per clip (a place of every item, by argsort of argsort;
captions padded to groups), `argsort` a leaner one. All need the matrix product, whose own time is
printed as a floor; the `ranking` rows start from a given matrix and show the evaluation alone.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks.common import Row, at_least, at_most, note
from benchmarks.retrieval_common import alone, show, unit_rows
from ncl_jax import metrics
from ncl_jax.normalizers import LazyScores

MSRVTT, MSVD, QUICK = (59_800, 2_990, 512), (27_763, 670, 512), (5_980, 299, 64)


def problem(texts: int, videos: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    of = np.arange(texts) * videos // texts
    video = unit_rows(0, videos, dim)
    # Noise of every caption, and noise that a clip's share: both ways have answers of all ranks.
    text = video[of] + 4 * unit_rows(1, texts, dim) + 7 * unit_rows(2, videos, dim)[of]
    return text / np.linalg.norm(text, axis=1, keepdims=True), video, of


def ours(size: tuple[int, int, int], given: bool = False) -> tuple[Any, float]:
    text, video, of = problem(*size)
    scores = text @ video.T if given else None
    start = time.perf_counter()
    found = metrics.both_directions(LazyScores(text, video) if scores is None else scores, of)
    return tuple(found.values()), time.perf_counter() - start


def argsort(size: tuple[int, int, int], given: bool = False) -> tuple[Any, float]:
    """One argsort per direction; the groups of captions stand one after the other."""
    text, video, of = problem(*size)
    start = time.perf_counter()
    scores = text @ video.T
    if given:
        start = time.perf_counter()
    rank = np.argmax(np.argsort(-scores, axis=1) == of[:, None], axis=1)
    groups = np.maximum.reduceat(scores, np.searchsorted(of, np.arange(len(video))), axis=0).T
    order = np.argsort(-groups, axis=1)
    turned = np.argmax(order == np.arange(len(video))[:, None], axis=1)
    return _summaries(rank, turned), time.perf_counter() - start


def double_argsort(size: tuple[int, int, int], given: bool = False) -> tuple[Any, float]:
    """Places of all items by two argsorts, and groups padded to the longest, as in CLIP4Clip."""
    text, video, of = problem(*size)
    start = time.perf_counter()
    scores = text @ video.T
    if given:
        start = time.perf_counter()
    places = np.argsort(np.argsort(-scores, axis=1), axis=1)
    rank = places[np.arange(len(of)), of]
    first = np.searchsorted(of, np.arange(len(video)))
    padded = np.full((len(video), np.bincount(of).max(), len(video)), -np.inf, np.float32)
    padded[of, np.arange(len(of)) - first[of]] = scores
    groups = padded.max(axis=1).T
    own = np.diagonal(groups)[:, None]
    turned = np.argmax(np.sort(-groups, axis=1) == -own, axis=1)
    return _summaries(rank, turned), time.perf_counter() - start


def _summaries(*ranks: np.ndarray) -> tuple[dict[str, float], ...]:
    return tuple(metrics.summarize(metrics.Ranks(r, 0 * r)) for r in ranks)


def product(size: tuple[int, int, int]) -> tuple[Any, float]:
    text, video, _ = problem(*size)
    start = time.perf_counter()
    for rows in range(0, len(text), 1402):
        text[rows : rows + 1402] @ video.T
    return None, time.perf_counter() - start


def table(size: tuple[int, int, int]) -> list[dict[str, Any]]:
    """One row per version: seconds, times slower than ours, peak memory, equality."""
    versions: dict[str, tuple[Any, ...]] = {
        "ours": (ours, size), "argsort": (argsort, size), "double argsort": (double_argsort, size),
        "product": (product, size), "ranking, ours": (ours, size, True),
        "ranking, argsort": (argsort, size, True),
        "ranking, double argsort": (double_argsort, size, True),
    }  # fmt: skip
    rows = []
    for name, (call, *arguments) in versions.items():
        runs = [alone(call, *arguments) for _ in range(2)]
        rows.append({
            "size": f"{size[0]} x {size[1]}", "version": name,
            "seconds": min(seconds for (_, seconds), _, _ in runs),
            "peak GB": max(peak for _, _, peak in runs), "result": runs[0][0][0],
        })  # fmt: skip
        print(f"{name}: {rows[-1]['seconds']:.2f} s, {rows[-1]['peak GB']:.2f} GB", flush=True)
    base = {row["version"]: row for row in rows}
    wanted = base["argsort"]["result"]
    for row in rows:
        mine = base["ranking, ours" if row["version"].startswith("ranking") else "ours"]
        row["times ours"] = row["seconds"] / mine["seconds"]
        row["same numbers"] = "" if row["result"] is None else _same(row["result"], wanted)
        del row["result"]
    return rows


def run(quick: bool = False) -> list[Row]:
    """The same as rows of the common table."""
    rows = []
    for size in (QUICK,) if quick else (MSRVTT, MSVD):
        found = {row["version"]: row for row in table(size)}
        name = f"{size[0]} x {size[1]}"
        rows += [
            at_least("evaluator", f"double argsort over ours, {name}",
                     found["double argsort"]["times ours"], 5),
            note("evaluator", f"argsort over ours, {name}", found["argsort"]["times ours"]),
            note("evaluator", f"product over ours, {name}", found["product"]["times ours"]),
            at_least("evaluator", f"argsort over ours, given matrix, {name}",
                     found["ranking, argsort"]["times ours"], 5),
            at_most("evaluator", f"peak GB, {name}", found["ours"]["peak GB"], 2),
            at_least("evaluator", f"same numbers, {name}", found["ours"]["same numbers"], 1),
        ]  # fmt: skip
    return rows


def _same(a: Any, b: Any) -> bool:
    """Equal up to the rare pair of scores that the two products round differently."""
    return all(np.isclose(x[k], y[k], rtol=1e-4) for x, y in zip(a, b, strict=True) for k in x)


def main() -> None:
    """Prints the table."""
    sizes = (QUICK,) if "--quick" in sys.argv else (MSRVTT, MSVD)
    show(
        "Evaluator, both directions (target: 5 times faster, under 2 GB)",
        [row for size in sizes for row in table(size)],
    )


if __name__ == "__main__":
    main()
