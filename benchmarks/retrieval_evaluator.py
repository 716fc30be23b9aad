"""The evaluator, 59,800 texts x 2,990 videos, against a whole-matrix NumPy argsort version.

    python -m benchmarks.retrieval_evaluator [--quick]

Target: at least 5 times faster with the same numbers, in under 2 GB. Both versions need the
matrix product, whose own time is printed as a floor (ours makes it once per direction, in
blocks); the `ranking` rows start from a given matrix and show the evaluation alone.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks.common import Row, at_least, at_most
from benchmarks.retrieval_common import alone, show, unit_rows
from ncl_jax import metrics
from ncl_jax.normalizers import LazyScores

FULL, QUICK = (59_800, 2_990, 512), (5_980, 299, 64)


def problem(texts: int, videos: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    of = np.arange(texts) * videos // texts
    video = unit_rows(0, videos, dim)
    text = video[of] + 1.5 * unit_rows(1, texts, dim)
    return text / np.linalg.norm(text, axis=1, keepdims=True), video, of


def ours(size: tuple[int, int, int], given: bool = False) -> tuple[Any, float]:
    text, video, of = problem(*size)
    scores = 100 * text @ video.T if given else LazyScores(text, video)
    start = time.perf_counter()
    result = metrics.text_to_video(scores, of), metrics.video_to_text(scores, of)
    return result, time.perf_counter() - start


def argsort(size: tuple[int, int, int], given: bool = False) -> tuple[Any, float]:
    text, video, of = problem(*size)
    start = time.perf_counter()
    scores = 100 * text @ video.T
    if given:
        start = time.perf_counter()
    rank = np.argmax(np.argsort(-scores, axis=1) == of[:, None], axis=1)
    first = np.searchsorted(of, np.arange(len(video)))
    groups = np.maximum.reduceat(scores, first, axis=0).T
    order = np.argsort(-groups, axis=1)
    turned = np.argmax(order == np.arange(len(video))[:, None], axis=1)
    result = tuple(metrics.summarize(metrics.Ranks(r, 0 * r)) for r in (rank, turned))
    return result, time.perf_counter() - start


def product(size: tuple[int, int, int]) -> tuple[Any, float]:
    text, video, _ = problem(*size)
    start = time.perf_counter()
    for rows in range(0, len(text), 1402):
        text[rows : rows + 1402] @ video.T
    return None, time.perf_counter() - start


def table(quick: bool = False) -> list[dict[str, Any]]:
    """One row per version: seconds, times faster than argsort, peak memory, equality."""
    size, rounds = (QUICK, 2) if quick else (FULL, 1)
    calls = {
        "ours": (ours, size), "argsort": (argsort, size), "product": (product, size),
        "ranking, ours": (ours, size, True), "ranking, argsort": (argsort, size, True),
    }  # fmt: skip
    found: dict[str, list[Any]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (call, *arguments) in calls.items():
            (result, seconds), _, peak = alone(call, *arguments)
            found[name].append((seconds, peak, result))
    best = {name: min(f[0] for f in runs) for name, runs in found.items()}
    wanted = found["argsort"][0][2]
    return [
        {
            "version": name,
            "seconds": best[name],
            "times faster": best["ranking, argsort" if name[0] == "r" else "argsort"] / best[name],
            "peak GB": max(f[1] for f in runs),
            "same numbers": "" if name == "product" else str(_same(runs[0][2], wanted)),
        }
        for name, runs in found.items()
    ]


def run(quick: bool = False) -> list[Row]:
    """The same as rows of the common table."""
    found = {row["version"]: row for row in table(quick)}
    return [
        at_least("evaluator", "times faster than argsort", found["ours"]["times faster"], 5),
        at_least("evaluator", "times faster, from a given matrix",
                 found["ranking, ours"]["times faster"], 5),
        at_most("evaluator", "peak GB", found["ours"]["peak GB"], 2),
        at_least("evaluator", "same numbers", found["ours"]["same numbers"] == "True", 1),
    ]


def _same(a: Any, b: Any) -> bool:
    """Equal up to the rare pair of scores that the two products round differently."""
    return all(np.isclose(x[k], y[k], rtol=1e-4) for x, y in zip(a, b, strict=True) for k in x)


def main() -> None:
    """Prints the table."""
    show(
        "Evaluator, both directions (target: 5 times faster, under 2 GB)",
        table("--quick" in sys.argv),
    )


if __name__ == "__main__":
    main()
