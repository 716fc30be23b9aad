"""Many small steps with kills at random moments: `python -m tests.soak --steps=2000 --kills=20`.

Runs once without and once with the kills. Of several processes (`--processes=4`, whose weights are
then cut among them) one is killed at a time, whichever; the others must end by themselves. The
final weights must be the same bits, no process and no unfinished file may be left, and memory must
not grow with the steps.
"""

import argparse
import contextlib
import pathlib
import random
import sys
import tempfile
import time
from typing import NamedTuple

import psutil

from tests import jobs

ENDS = 120  # seconds within which the others of a killed process must have ended


class Soaked(NamedTuple):
    """What a soak found."""

    same_weights: bool
    kills: int
    leaked_processes: int
    leaked_files: list[str]
    megabytes: list[float]  # resident, of all processes, over the run without kills
    seconds: float


def soak(
    root: pathlib.Path, steps: int, kills: int, processes: int = 1, seed: int = 0
) -> Soaked:
    """Both runs, in `root`."""
    start, rng = time.monotonic(), random.Random(seed)
    every = max(5, steps // 40)
    flags = [f"--config.train.steps={steps}", f"--config.train.checkpoint_every={every}",
             f"--config.train.validate_every={10 * steps}",
             "--config.train.peer_timeout=10", *jobs.data_in(root)]
    if processes > 1:
        flags.append("--config.sharding=fsdp")
    memory: list[float] = []
    with jobs.Job(root / "whole", flags, processes) as job:
        watched = [psutil.Process(process.pid) for process in job.processes]
        while job.processes[0].poll() is None:
            if last_step(root / "whole") > every:  # compiled, input running
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory.append(sum(p.memory_info().rss for p in watched) / 1e6)
            time.sleep(1)
        assert job.wait(ENDS) == [0] * processes, job.said()
    done = 0
    while done < kills:
        with jobs.Job(root / "killed", flags, processes) as job:
            # At least one step beyond the last checkpoint, so that the run gets somewhere.
            goal = (done + 1) * steps // (kills + 1) - rng.randrange(every)
            while job.processes[0].poll() is None and last_step(root / "killed") < goal:
                time.sleep(rng.uniform(0.01, 0.1))
            assert all(process.poll() is None for process in job.processes), job.said()
            rng.choice(job.processes).kill()
            assert 0 not in job.wait(ENDS), job.said()
        done += 1
    jobs.run(root / "killed", flags, timeout=3600, processes=processes)
    same = jobs.arrays(root / "killed", steps) == jobs.arrays(root / "whole", steps)
    same = same and jobs.losses(root / "killed") == jobs.losses(root / "whole")
    running = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    mine = [line for line in running if str(root) in line]
    left = [str(p) for p in root.rglob("*") if "tmp" in p.name or p.name.endswith(".partial")]
    extra = {p.name for p in (root / "killed").iterdir()}
    extra -= {p.name for p in (root / "whole").iterdir()}
    return Soaked(same, done, len(mine), left + sorted(extra), memory, time.monotonic() - start)


def last_step(workdir: pathlib.Path) -> int:
    """How far a run has got, by its log: one line per step."""
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def growth(megabytes: list[float]) -> float:
    """Resident memory of the last quarter over the second quarter, as a ratio."""
    quarter = max(1, len(megabytes) // 4)
    early, late = megabytes[quarter : 2 * quarter], megabytes[-quarter:]
    return (sum(late) / len(late)) / (sum(early) / len(early)) if early else 1.0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = soak(pathlib.Path(root), args.steps, args.kills, args.processes)
    print(
        f"{args.steps} steps of {args.processes} processes, {found.kills} kills: "
        f"same weights {found.same_weights}, "
        f"{found.leaked_processes} processes and {len(found.leaked_files)} files left "
        f"{found.leaked_files}, memory x{growth(found.megabytes):.3f} "
        f"({max(found.megabytes, default=0):.0f} MB), {found.seconds:.0f} s"
    )
    return int(not found.same_weights or found.leaked_processes or bool(found.leaked_files))


if __name__ == "__main__":
    sys.exit(main())
