"""InfoNCE against NCL on the demo corpus: each tuned on the validation split, then five seeds.

    python -m benchmarks.loss_comparison --workdir=runs/comparison --jobs=2

First every method gets the same few peak learning rates and initial scales, judged by
the validation split; then its best setting is trained with five other seeds and judged by the
test split. Runs are ordinary `ncl_jax.main` runs; finished ones are not repeated. Prints the two
tables of docs/results.md. Differences are paired by seed; "ahead" means more than two standard
errors.
"""

import argparse
import concurrent.futures
import itertools
import json
import math
import os
import pathlib
import queue
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

LOSSES = ("infonce", "ncl")
SETTINGS = (  # peak learning rate, initial scale
    (1e-3, 14.3), (2e-3, 7.0), (2e-3, 14.3), (4e-3, 7.0), (4e-3, 14.3), (4e-3, 30.0), (8e-3, 14.3),
)
SWEEP_SEED, SEEDS = 100, (0, 1, 2, 3, 4)
ROWS = ("plain", "inductive", "transductive")

Results = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="runs/comparison", type=pathlib.Path)
    parser.add_argument("--jobs", default=2, type=int, help="runs at a time, one core each")
    parser.add_argument("flags", nargs="*", help="passed on to every run, as --config.x=y after --")
    options = parser.parse_args()
    cores = queue.SimpleQueue[int]()
    for core in itertools.islice(itertools.cycle(sorted(os.sched_getaffinity(0))), options.jobs):
        cores.put(core)

    def run(name: str, loss: str, seed: int, *flags: str) -> Results:
        return _run(options.workdir / name, cores, loss, seed, *flags, *options.flags)

    run("prepare", "ncl", 0, "--config.train.steps=1")  # the corpus, before several want it at once
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        best = tune(pool, run)
        compare(pool, run, best)


def tune(pool: concurrent.futures.Executor, run: Callable[..., Results]) -> dict[str, list[str]]:
    """Flags of the best setting of each loss, by the mean validation R@1 of both directions."""
    settings = [(loss, *setting) for loss in LOSSES for setting in SETTINGS]
    jobs = [
        pool.submit(
            run, f"tune-{loss}-{rate:g}-{scale:g}", loss, SWEEP_SEED, *_flags(rate, scale),
            "--config.data.test_split=val",
        )
        for loss, rate, scale in settings
    ]
    print("| loss | learning rate | initial scale | validation R@1, mean of both directions |")
    print("|---|---|---|---|")
    scored = []
    for (loss, rate, scale), job in zip(settings, jobs, strict=True):
        metrics = job.result()["metrics"]
        score = np.mean([metrics[d]["plain"]["R@1"] for d in ("text_to_video", "video_to_text")])
        scored.append((loss, float(score), _flags(rate, scale)))
        print(f"| {loss} | {rate:g} | {scale:g} | {score:.1f} |", flush=True)
    return {
        loss: max((s for s in scored if s[0] == loss), key=lambda s: s[1])[2] for loss in LOSSES
    }


def compare(
    pool: concurrent.futures.Executor, run: Callable[..., Results], best: dict[str, list[str]]
) -> None:
    """Five seeds of each loss at its best setting, and the paired differences."""
    jobs = {
        (loss, seed): pool.submit(run, f"seed{seed}-{loss}", loss, seed, *best[loss])
        for seed in SEEDS
        for loss in LOSSES
    }
    runs = {key: job.result()["metrics"] for key, job in jobs.items()}
    print(f"\ninfonce: {' '.join(best['infonce'])}; ncl: {' '.join(best['ncl'])}\n")
    print("| measure | scores | InfoNCE | NCL | NCL - InfoNCE | 95 % interval | verdict |")
    print("|---|---|---|---|---|---|---|")
    for name, row, read in _measures():
        values = {loss: np.array([read(runs[loss, s]) for s in SEEDS]) for loss in LOSSES}
        print(_line(name, row, values["infonce"], values["ncl"]))


def _measures() -> list[tuple[str, str, Callable[[Results], float]]]:
    """(name, kind of scores, how to read it) of every line of the table."""
    lines: list[tuple[str, str, Callable[[Results], float]]] = []
    for direction, key in itertools.product(
        ("text_to_video", "video_to_text"), ("R@1", "R@5", "R@10", "MnR")
    ):
        for row in ROWS:
            lines.append((
                f"{direction.replace('_', ' ')} {key.replace('_', ' ')}", row,
                lambda m, d=direction, r=row, k=key: m[d][r][k],  # type: ignore[misc]
            ))
    lines += [
        ("in-batch norm. error", "plain", lambda m: m["in_batch_norm_error"]["plain"]),
        ("in-batch norm. error", "as trained on", lambda m: m["in_batch_norm_error"]["trained_on"]),
        ("order pairs, % right", "plain", lambda m: m["order_pairs"]["accuracy"]),
        ("order pairs, frames shuffled", "plain",
         lambda m: m["order_pairs"]["accuracy_shuffled_frames"]),
    ]
    return lines


def _line(name: str, row: str, a: np.ndarray, b: np.ndarray) -> str:
    """Mean and deviation of both, and the paired difference with its interval."""
    difference = b - a
    spread = difference.std(ddof=1)
    error = spread / math.sqrt(len(difference))
    half = 2.776 * error  # Student's t, 4 degrees of freedom
    digits = 3 if "error" in name else 1
    mean = difference.mean()
    verdict = "no difference"
    if "shuffled" in name:
        verdict = "control, chance is 50"
    elif abs(mean) > 2 * error:
        smaller_is_better = "error" in name or "MnR" in name
        verdict = "NCL ahead" if (mean < 0) == smaller_is_better else "InfoNCE ahead"
    cells = [
        f"{a.mean():.{digits}f} ± {a.std(ddof=1):.{digits}f}",
        f"{b.mean():.{digits}f} ± {b.std(ddof=1):.{digits}f}",
        f"{mean:+.{digits}f} ± {spread:.{digits}f}",
        f"{mean - half:+.{digits}f} to {mean + half:+.{digits}f}",
        verdict,
    ]
    return f"| {name} | {row} | " + " | ".join(cells) + " |"


def _flags(rate: float, scale: float) -> list[str]:
    return [f"--config.optim.learning_rate={rate:g}", f"--config.model.init_scale={scale:g}"]


def _run(
    workdir: pathlib.Path, cores: "queue.SimpleQueue[int]", loss: str, seed: int, *flags: str
) -> Results:
    """One training run on one core; read from disk if it is there and of the same flags."""
    line = [
        sys.executable, "-m", "ncl_jax.main",
        f"--config=configs/demo.py:loss={loss},seed={seed}", f"--workdir={workdir}", *flags,
    ]  # fmt: skip
    done, made_by = workdir / "results.json", workdir / "command.txt"
    if not done.exists() or made_by.read_text() != " ".join(line[1:]):
        workdir.mkdir(parents=True, exist_ok=True)
        made_by.write_text(" ".join(line[1:]))
        core = cores.get()
        try:
            with (workdir / "log.txt").open("w") as log:
                subprocess.run(
                    line, stdout=log, stderr=log, check=True,
                    preexec_fn=lambda: os.sched_setaffinity(0, {core}),
                )  # fmt: skip
        finally:
            cores.put(core)
    return json.loads(done.read_text())


if __name__ == "__main__":
    main()
