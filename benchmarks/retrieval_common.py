"""What the retrieval benchmarks share: interleaved timing, peak memory, printing."""

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.resident import peak_resident


def unit_rows(seed: int, rows: int, dim: int) -> np.ndarray:
    """Random unit vectors, float32 [rows, dim]."""
    x = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def interleaved(calls: dict[str, Callable[[], Any]], blocks: int) -> dict[str, list[float]]:
    """Seconds of each call in every block; each is called once before, uncounted."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(blocks):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """Median over blocks of the ratio inside each block."""
    return float(np.median(np.divide(seconds[over], seconds[under])))


def alone(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """(result, seconds, peak GB) of `call` in a fresh process, its inputs made there."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (call, arguments))


def _measured(call: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float, float]:
    start = time.perf_counter()
    result = call(*arguments)
    seconds = time.perf_counter() - start
    return result, seconds, peak_resident()


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints rows as a Markdown table, with the load of the machine."""
    print(f"\n{title} (load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores)\n")
    names = list(dict.fromkeys(key for row in rows for key in row))
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        cells = [row.get(n, "") for n in names]
        print(
            "| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |"
        )
