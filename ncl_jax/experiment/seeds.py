"""One config, several seeds: every seed a run of its own, one result file over all."""

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from etils import epath

from ncl_jax.distributed import sync
from ncl_jax.errors import InputError
from ncl_jax.experiment import results
from ncl_jax.experiment.run import run_experiment
from ncl_jax.experiment.workdir import owned


def run_seeds(config: ml_collections.ConfigDict, workdir: epath.Path) -> dict[str, Any] | None:
    """Run `config.seeds` runs with the seeds `config.seed`, `config.seed` + 1, ...

    Each is an ordinary run below `workdir`, in `seed<number>`. The same command again skips the
    finished ones and resumes the one that was cut short.

    Returns:
      What `results.json` in `workdir` holds: `metrics` and `metrics_std`, mean and sample
      standard deviation of all numbers, and `per_seed`, the metrics of each; None where a run was
      stopped on request before its end.

    Raises:
      ValueError: fewer than one seed, and all that `run_experiment` raises.
    """
    if config.seeds < 1:
        raise InputError(f"seeds: expected at least 1, got {config.seeds}")
    found: dict[int, dict[str, Any]] = {}
    for seed in range(config.seed, config.seed + config.seeds):
        one = config.copy_and_resolve_references()
        one.seed, one.seeds = seed, 1
        folder = workdir / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        summary = _finished(folder, one)
        sync.check_same("finished", {f"{folder}/results.json": str(summary is not None)})
        if summary is None:
            with owned(folder):  # a run of this seed alone may be at work there
                summary = run_experiment(one, folder)
        if summary is None:
            return None
        found[seed] = summary
    summary = _over_seeds(config, workdir, found)
    if jax.process_index() == 0:
        results.write(workdir, summary)
    return summary


def _finished(folder: epath.Path, config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """The results of a seed that ended under this very config."""
    path = folder / "results.json"
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text())
    except (ValueError, RecursionError):
        return None  # damaged: evaluated again
    wanted = json.loads(json.dumps(config.to_dict()))
    if not isinstance(summary, dict) or summary.get("config") != wanted:
        return None  # `run_experiment` says what differs, or evaluates again
    print(f"seed {config.seed} has finished: {folder}", flush=True)
    return dict(summary)


def _over_seeds(
    config: ml_collections.ConfigDict, workdir: epath.Path, found: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    runs = list(found.values())
    measured = [run["metrics"] for run in runs]
    return {
        "run": {
            "name": config.name,
            "seed": config.seed,
            "seeds": list(found),
            "step": runs[0]["run"]["step"],
            "seconds": merged([run["run"]["seconds"] for run in runs], sum),
        },
        "config": config.to_dict(),
        "environment": runs[-1]["environment"],
        "data": runs[0]["data"],
        "metrics": merged(measured, statistics.fmean),
        "metrics_std": merged(measured, statistics.stdev) if len(runs) > 1 else {},
        "per_seed": {str(seed): run["metrics"] for seed, run in found.items()},
        "files": {f"seed{seed}": str(workdir / f"seed{seed}") for seed in found},
    }


def merged(
    trees: Sequence[dict[str, Any]], reduce: Callable[[list[float]], float]
) -> dict[str, Any]:
    """Nested dicts of numbers -> one, reduced leaf by leaf; other leaves are left out.

    Example:
      >>> merged([{"a": {"b": 1}, "c": "x"}, {"a": {"b": 4}, "c": "y"}], sum)
      {'a': {'b': 5}}
    """
    result: dict[str, Any] = {}
    for name, first in trees[0].items():
        values = [tree.get(name) for tree in trees]
        if isinstance(first, dict) and all(isinstance(v, dict) for v in values):
            result[name] = merged(values, reduce)  # type: ignore[arg-type]
        elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            result[name] = reduce(values)  # type: ignore[arg-type]
    return result
