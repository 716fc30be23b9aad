"""Training runs as separate processes: a few at a time, resumed, waited for, never run twice.

The part of `ncl_jax.cli.sweep` that handles processes and is independent of sweeps.
"""

import collections
import fcntl
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections

from ncl_jax.progress import Estimate, duration

LOG, LOCK = "log.txt", "sweep.lock"


class SweepRun(NamedTuple):
    """One training run of a sweep."""

    label: str  # as "iterations=4"
    seed: int
    workdir: pathlib.Path
    config: ml_collections.ConfigDict
    command: list[str]

    @property
    def name(self) -> str:
        return f"{self.label}, seed {self.seed}"


class Active(NamedTuple):
    """A run under way."""

    run: SweepRun
    process: subprocess.Popen[bytes]
    start: float


def execute(runs: Sequence[SweepRun], cores: Sequence[set[int]]) -> Iterator[tuple[SweepRun, str]]:
    """Run all, as many at a time as there are shares of cores; yields (run, what went wrong).

    Leaving early (an interrupt) ends the runs under way; they keep their checkpoints.
    """
    waiting, active = collections.deque(runs), dict[int, Active]()
    elsewhere: dict[str, float] = {}  # since when runs are waited for that others have started
    begin, done = time.monotonic(), 0
    names = [run.label for run in runs]
    estimate = Estimate(dict.fromkeys(names, 1.0), names, len(cores))

    def tell(run: SweepRun, since: float, fault: str, ours: bool) -> None:
        now = time.monotonic()
        estimate.done(run.label, now - since if ours and not fault else None)
        left = estimate.left((a.run.label, now - a.start) for a in active.values())
        more = f"; about {duration(left)} left" if left is not None and done < len(runs) else ""
        print(f"[{done}/{len(runs)}] {run.name}: {fault or 'done'} after {duration(now - since)}"
              f"{more}", flush=True)  # fmt: skip

    try:
        while waiting or active:
            for slot, share in enumerate(cores):
                if slot not in active and waiting:
                    run = waiting.popleft()
                    process = None if finished(run) else start(run, share)
                    if process:
                        active[slot] = Active(run, process, time.monotonic())
                    elif finished(run):
                        done += 1
                        tell(run, elsewhere.get(run.name, begin), "", ours=False)
                        yield run, ""
                    else:
                        if run.name not in elsewhere:
                            elsewhere[run.name] = time.monotonic()
                            print(f"{run.name}: another process trains it; waiting for it to end",
                                  flush=True)  # fmt: skip
                        waiting.append(run)
            for slot, (run, process, since) in list(active.items()):
                if process.poll() is not None:
                    del active[slot]
                    done += 1
                    fault = "" if finished(run) else _last_words(run, process.returncode)
                    tell(run, since, fault, ours=True)
                    yield run, fault
            time.sleep(0.1)
    finally:
        for _, process, _ in active.values():
            process.terminate()
        for _, process, _ in active.values():
            process.wait()


def start(run: SweepRun, cores: set[int]) -> subprocess.Popen[bytes] | None:
    """The run's process, or None while another one is at work in its folder.

    The process inherits the lock, so the lock lives as long as it does, whatever happens to us.
    """
    run.workdir.mkdir(parents=True, exist_ok=True)
    with (run.workdir / LOCK).open("w") as lock, (run.workdir / LOG).open("ab") as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        process = subprocess.Popen(
            run.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=[lock.fileno()]
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, cores)
    return process


def shares(jobs: int) -> list[set[int]]:
    """The cores of each of the runs at a time; nobody's are empty."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return [set(cores[i::jobs]) or {cores[i % len(cores)]} for i in range(jobs)]


def finished(run: SweepRun) -> bool:
    """Whether the folder holds the results of exactly this config."""
    results = read_results(run.workdir)
    return results is not None and results.get("config") == _as_json(run.config)


def read_results(workdir: pathlib.Path) -> dict[str, Any] | None:
    """`results.json`, or None where there is none or it is damaged: the run is then done again."""
    try:
        return dict(json.loads((workdir / "results.json").read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _last_words(run: SweepRun, code: int) -> str:
    lines = (run.workdir / LOG).read_text(errors="replace").replace("\r", "\n").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"failed with exit code {code} ({last[:300]}; see {run.workdir / LOG})"


def _as_json(config: ml_collections.ConfigDict) -> Any:
    return json.loads(json.dumps(config.to_dict()))
