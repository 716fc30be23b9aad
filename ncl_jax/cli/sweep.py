"""Run a named sweep of configs/sweeps.py, and write one table over its runs.

    python -m ncl_jax.cli.sweep --config=configs/demo.py --sweep=iterations --jobs=2

Every run is an ordinary `ncl_jax.main` in a process of its own, on its share of the cores, with
its own folder below --workdir (default runs/sweeps/<config.name>-<sweep>) and its output in
`log.txt` there. The same command again goes on: finished runs are skipped, begun ones resume from
their checkpoints, and runs that outlived a killed sweep are waited for. A run that fails is
named, and the others go on. `table.md` and `table.json` are renewed after every run.

Exit code: 0 all runs finished; 1 some failed; 2 bad input; 130 interrupted.
"""

import collections
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from configs.sweeps import SWEEPS, Overrides
from ncl_jax import main as job
from ncl_jax.report import sweeps

_SWEEP = flags.DEFINE_string("sweep", None, f"Which one: {', '.join(SWEEPS)}")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time, each on its share of the cores")
_SEEDS = flags.DEFINE_integer("seeds", None, "Only the first so many seeds of the sweep")
LOG, LOCK = "log.txt", "sweep.lock"


class Run(NamedTuple):
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

    run: Run
    process: subprocess.Popen[bytes]
    start: float


def main(argv: Sequence[str]) -> None:
    """Plan, prepare the data once, run, tabulate."""
    del argv
    logging.set_verbosity(logging.ERROR)
    config = job._CONFIG.value
    try:
        if _SWEEP.value not in SWEEPS:
            raise ValueError(f"--sweep: expected one of {', '.join(SWEEPS)}, got {_SWEEP.value!r}")
        if _JOBS.value < 1:
            raise ValueError(f"--jobs: expected at least 1, got {_JOBS.value}")
        default = f"runs/sweeps/{config.name}-{_SWEEP.value}"
        folder = pathlib.Path(job._WORKDIR.value or default)
        runs = first_seeds(plan(config, _SWEEP.value, folder, given_flags()), _SEEDS.value)
        missing = [run for run in runs if not finished(run)]
        print(f"{_SWEEP.value}: {len(runs)} runs in {folder}, {len(runs) - len(missing)} finished")
        if missing:
            job.prepare_workdir(folder)
            prepare(config)
    except (ValueError, OSError, job.UserError) as error:
        job.stop(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    failed: dict[str, str] = {}
    try:
        for run, fault in execute(missing, shares(_JOBS.value)):
            if fault:
                failed[run.name] = fault
            tabulate(runs, folder, failed)
    except (KeyboardInterrupt, SystemExit):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    print(tabulate(runs, folder, failed))
    print(f"table: {folder}/table.md   numbers: {folder}/table.json")
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")
        sys.exit(1)


def given_flags() -> list[str]:
    """What the command line says about the config, for every run to repeat."""
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag).items()
    return [
        f"--config={config_flags.get_config_filename(flag)}",
        *(f"--config.{key}={value}" for key, value in overrides),
    ]


def plan(
    config: ml_collections.ConfigDict, sweep: str, folder: pathlib.Path, given: Sequence[str]
) -> list[Run]:
    """The runs of a sweep over `config` (which the flags `given` make), in the table's order.

    Raises:
      ValueError: an override names a key that the config does not have, or has another type.
    """
    runs = []
    for overrides in SWEEPS[sweep](config):
        varied = config.copy_and_resolve_references().lock()
        try:
            varied.update_from_flattened_dict(overrides)
        except (KeyError, TypeError) as error:
            raise ValueError(f"sweep {sweep}: {overrides} does not fit: {error}") from error
        label = label_of(overrides)
        workdir = folder / f"{label.replace(' ', ',')},seed={varied.seed}"
        command = [
            sys.executable, "-m", "ncl_jax.main", *given,
            *(f"--config.{key}={value}" for key, value in overrides.items()),
            f"--workdir={workdir}",
        ]  # fmt: skip
        runs.append(Run(label, varied.seed, workdir, varied, command))
    return runs


def first_seeds(runs: list[Run], count: int | None) -> list[Run]:
    """The runs with the first `count` seeds; all for None."""
    if count is not None and count < 1:
        raise ValueError(f"--seeds: expected at least 1, got {count}")
    wanted = list(dict.fromkeys(run.seed for run in runs))[:count]
    return [run for run in runs if run.seed in wanted]


def label_of(overrides: Overrides) -> str:
    """{"loss.name": "ncl", "loss.iterations": 4, "seed": 0} -> "loss=ncl iterations=4"."""
    short = {key.removesuffix(".name").rpartition(".")[2]: v for key, v in overrides.items()}
    return " ".join(f"{key}={value}" for key, value in short.items() if key != "seed")


def finished(run: Run) -> bool:
    """Whether the folder holds the results of exactly this config."""
    results = read_results(run.workdir)
    return results is not None and results.get("config") == _as_json(run.config)


def read_results(workdir: pathlib.Path) -> dict[str, Any] | None:
    """`results.json`, or None where there is none or it is damaged: the run is then done again."""
    try:
        return dict(json.loads((workdir / "results.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def prepare(config: ml_collections.ConfigDict) -> None:
    """The data, before several runs want to prepare it at once."""
    from ncl_jax import assembly

    assembly.prepare_data(config)


def shares(jobs: int) -> list[set[int]]:
    """The cores of each of the runs at a time; nobody's are empty."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return [set(cores[i::jobs]) or {cores[i % len(cores)]} for i in range(jobs)]


def execute(runs: Sequence[Run], cores: Sequence[set[int]]) -> Iterator[tuple[Run, str]]:
    """Run all, as many at a time as there are shares of cores; yields (run, what went wrong).

    Leaving early (an interrupt) ends the runs under way; they keep their checkpoints.
    """
    waiting, active = collections.deque(runs), dict[int, Active]()
    begin, done = time.monotonic(), 0
    try:
        while waiting or active:
            for slot, share in enumerate(cores):
                if slot not in active and waiting:
                    run = waiting.popleft()
                    process = None if finished(run) else start(run, share)
                    if process:
                        active[slot] = Active(run, process, time.monotonic())
                    elif finished(run):
                        yield run, ""
                    else:
                        waiting.append(run)  # a run of a killed sweep is still at it
            for slot, (run, process, since) in list(active.items()):
                if process.poll() is not None:
                    del active[slot]
                    done += 1
                    fault = "" if finished(run) else _last_words(run, process.returncode)
                    left = (time.monotonic() - begin) / done * (len(waiting) + len(active))
                    print(
                        f"[{done}/{len(runs)}] {run.name}: {fault or 'done'} after "
                        f"{time.monotonic() - since:.0f} s; about {left / 60:.0f} min left",
                        flush=True,
                    )
                    yield run, fault
            time.sleep(0.1)
    finally:
        for _, process, _ in active.values():
            process.terminate()
        for _, process, _ in active.values():
            process.wait()


def start(run: Run, cores: set[int]) -> subprocess.Popen[bytes] | None:
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


def tabulate(runs: Sequence[Run], folder: pathlib.Path, failed: dict[str, str]) -> str:
    """Write `table.json` and `table.md` over what is finished; returns the Markdown."""
    found = [
        sweeps.Finished(run.label, run.seed, results["metrics"], str(run.workdir))
        for run in runs
        if finished(run) and (results := read_results(run.workdir))
    ]
    head = {
        "sweep": _SWEEP.value,
        "command": " ".join(["python -m ncl_jax.cli.sweep", *sys.argv[1:]]),
        "runs": {"finished": len(found), "planned": len(runs)},
        "failed": failed,
    }
    table = head | sweeps.table(found)
    text = sweeps.markdown(table)
    for name, content in (("table.json", json.dumps(table, indent=1)), ("table.md", text)):
        draft = folder / f"{name}.partial"
        draft.write_text(content + "\n")
        draft.replace(folder / name)
    return text


def _last_words(run: Run, code: int) -> str:
    lines = (run.workdir / LOG).read_text(errors="replace").replace("\r", "\n").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"failed with exit code {code} ({last[:300]}; see {run.workdir / LOG})"


def _as_json(config: ml_collections.ConfigDict) -> Any:
    return json.loads(json.dumps(config.to_dict()))


if __name__ == "__main__":
    app.run(main, flags_parser=job.parse_flags)
