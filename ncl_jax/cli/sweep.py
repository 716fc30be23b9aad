"""Run a named sweep of `ncl_jax.cli.sweep_plans`, and write one table over its runs.

    python -m ncl_jax.cli.sweep --config=configs/demo.py --sweep=iterations --jobs=2

Every run is an ordinary `ncl_jax.main` in a process of its own, on its share of the cores, with
its own folder below --workdir (default runs/sweeps/<config.name>), named by what it changes in the
config, and its output in `log.txt` there. Run the same command again to resume: it skips
finished runs, resumes others from their checkpoints, and waits for runs that a killed sweep left
running. Sweeps share the runs they have in common. A failed run is reported and does not stop the
others. `<sweep>.md` and `<sweep>.json` are updated after every run.

Exit code: 0 all runs finished; 1 some failed; 2 bad input; 130 interrupted.
"""

import functools
import json
import pathlib
import signal
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from ncl_jax.cli import train as job
from ncl_jax.cli.sweep_plans import SWEEPS, Overrides
from ncl_jax.cli.sweep_runs import SweepRun, execute, finished, read_results, shares
from ncl_jax.errors import InputError, check_choice
from ncl_jax.experiment.coincidence import essence, without_effect
from ncl_jax.files import write_text
from ncl_jax.locks import locked
from ncl_jax.progress import announced

_SWEEP = flags.DEFINE_string("sweep", None, f"Which one: {', '.join(SWEEPS)}")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time, each on its share of the cores")
_SEEDS = flags.DEFINE_integer("seeds", None, "Only the first so many seeds of the sweep")


def main(argv: Sequence[str]) -> None:
    """One sentence for bad input and for an interrupt, at whatever moment it comes."""
    del argv
    logging.set_verbosity(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = sweep(flags.FLAGS.config)
    except (InputError, OSError) as error:
        job.stop(str(error))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    sys.exit(1 if failed else 0)


def sweep(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Plan, prepare the data once, run, tabulate; returns what failed and why."""
    name = _SWEEP.value or ""
    check_choice("--sweep", name, SWEEPS)
    if _JOBS.value < 1:
        raise InputError(f"--jobs: expected at least 1, got {_JOBS.value}")
    folder = pathlib.Path(flags.FLAGS.workdir or f"runs/sweeps/{config.name}")
    planned = first_seeds(plan(config, name, folder, given_flags()), _SEEDS.value)
    runs, coinciding = once(planned)
    for label, why in coinciding.items():
        print(f"{label}: {why}")
    missing = [run for run in runs if not finished(run)]
    print(f"{_SWEEP.value}: {len(runs)} runs in {folder}, {len(runs) - len(missing)} finished")
    if missing:
        prepare(folder, config)
    failed: dict[str, str] = {}
    for run, fault in execute(missing, shares(_JOBS.value)):
        if fault:
            failed[run.name] = fault
        tabulate(runs, folder, failed, coinciding)
    print(tabulate(runs, folder, failed, coinciding))
    print(f"table: {folder}/{_SWEEP.value}.md   numbers: {folder}/{_SWEEP.value}.json")
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed; run the same command again to retry them")
    return failed


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
) -> list[SweepRun]:
    """The runs of a sweep over `config` (which the flags `given` make), in the table's order.

    Raises:
      ValueError: an override names a key that the config does not have, or has another type, or
        the config asks for several seeds itself.
    """
    if config.seeds != 1:
        raise InputError(
            f"seeds: expected 1, got {config.seeds}; a sweep trains every setting with seeds of "
            "its own, see --seeds"
        )
    runs = []
    for overrides in SWEEPS[sweep](config):
        varied = config.copy_and_resolve_references().lock()
        try:
            varied.update_from_flattened_dict(overrides)
        except (KeyError, TypeError) as error:
            raise InputError(f"sweep {sweep}: {overrides} does not fit: {error}") from error
        new = {key: v for key, v in overrides.items() if v != _at(config, key)}
        workdir = folder / ",".join([*label_of(new).split(), f"seed={varied.seed}"])
        command = [
            sys.executable, "-m", "ncl_jax.main", *given,
            *(f"--config.{key}={value}" for key, value in overrides.items()),
            f"--workdir={workdir}",
        ]  # fmt: skip
        runs.append(SweepRun(label_of(overrides), varied.seed, workdir, varied, command))
    return runs


def once(runs: Sequence[SweepRun]) -> tuple[list[SweepRun], dict[str, str]]:
    """The runs that can differ, and of every other setting: with which it coincides, and why."""
    found: dict[str, SweepRun] = {}
    coinciding: dict[str, str] = {}
    for run in runs:
        first = found.setdefault(essence(run.config), run)
        if first is not run:
            reasons = without_effect(run.config)
            differing = [k for k in reasons if _at(run.config, k) != _at(first.config, k)]
            why = "; ".join(dict.fromkeys(reasons[key] for key in differing))
            coinciding[run.label] = f"the same as {first.label} ({why}), so it is run once"
    return list(found.values()), coinciding


def first_seeds(runs: list[SweepRun], count: int | None) -> list[SweepRun]:
    """The runs with the first `count` seeds; all for None."""
    if count is not None and count < 1:
        raise InputError(f"--seeds: expected at least 1, got {count}")
    wanted = list(dict.fromkeys(run.seed for run in runs))[:count]
    return [run for run in runs if run.seed in wanted]


def _at(config: ml_collections.ConfigDict, key: str) -> object:
    return functools.reduce(getattr, key.split("."), config)


def label_of(overrides: Overrides) -> str:
    """{"loss.name": "ncl", "loss.iterations": 4, "seed": 0} -> "loss=ncl iterations=4"."""
    short = {key.removesuffix(".name").rpartition(".")[2]: v for key, v in overrides.items()}
    return " ".join(f"{key}={value}" for key, value in short.items() if key != "seed")


def prepare(folder: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """The folder, and the data before several runs want to prepare it at once."""
    with announced("importing JAX, Flax and Orbax"):
        from ncl_jax.experiment import build, workdir
    workdir.prepare(folder)
    build.prepare_data(config)


def tabulate(
    runs: Sequence[SweepRun],
    folder: pathlib.Path,
    failed: dict[str, str],
    coinciding: dict[str, str],
) -> str:
    """Write the table over what is finished, for people and as JSON; returns the Markdown."""
    with locked(folder / f"{_SWEEP.value}.md"):  # two sweeps may share runs
        return _tabulate(runs, folder, {"failed": failed, "coinciding": coinciding})


def _tabulate(
    runs: Sequence[SweepRun], folder: pathlib.Path, remarks: dict[str, dict[str, str]]
) -> str:
    from ncl_jax.report import sweeps  # late, as it imports JAX

    found = [
        sweeps.Finished(run.label, run.seed, results["metrics"], str(run.workdir))
        for run in runs
        if finished(run) and (results := read_results(run.workdir))
    ]
    head = {
        "sweep": _SWEEP.value,
        "command": " ".join(["python -m ncl_jax.cli.sweep", *sys.argv[1:]]),
        "runs": {"finished": len(found), "planned": len(runs)},
    }
    table = head | remarks | sweeps.table(found)
    text = sweeps.markdown(table)
    for ending, content in (("json", json.dumps(table, indent=1)), ("md", text)):
        write_text(folder / f"{_SWEEP.value}.{ending}", content + "\n")
    return text


def start(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, program first; ends the process."""
    job.run(main, argv, __name__, __doc__)


if __name__ == "__main__":
    start(sys.argv)
