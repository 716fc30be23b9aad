"""Result files -> runs, and runs that differ only in their seed -> one group."""

import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.errors import InputError
from ncl_jax.experiment.renamed import updated
from ncl_jax.experiment.results import checked
from ncl_jax.readers.text import read_json

RESULTS = "results.json"
# Keys of the config that move no result: where files lie, how fast, how often.
SILENT = (
    "seed", "seeds", "parallel_backend", "sharding", "profile_input", "batch.micro_batch_size",
    "model.remat", "data.manual_dir", "data.data_dir", "data.threads", "data.cache_clips",
    "eval.batch_size",
    "train.log_every", "train.validate_every", "train.checkpoint_every", "train.keep_checkpoints",
    "train.on_nonfinite", "train.input_timeout", "train.peer_timeout",
)  # fmt: skip


class Run(NamedTuple):
    """One finished run: where its file lies, its seed, its config and its metrics."""

    path: pathlib.Path
    seed: int
    config: dict[str, Any]
    metrics: dict[str, Any]
    content: dict[str, Any] = {}  # noqa: RUF012  # the whole file, never changed


class Group(NamedTuple):
    """Runs with the same settings up to the seed."""

    settings: dict[str, Any]  # flat: "loss.name" -> "ncl"
    runs: tuple[Run, ...]

    def statistics(self, *keys: str) -> tuple[float, float | None]:
        """Mean and standard deviation over seeds of one metric; None for a lone run.

        Raises:
          KeyError: a run does not have this metric.
        """
        values = [_at(run.metrics, keys) for run in self.runs]
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def load(workdirs: Iterable[pathlib.Path]) -> list[Run]:
    """The runs of these workdirs; a folder without results of its own stands for its subfolders.

    Raises:
      ValueError: a folder without results, or a damaged file.
    """
    runs: dict[pathlib.Path, Run] = {}
    for workdir in workdirs:
        files = [workdir / RESULTS]
        if not files[0].exists():
            files = sorted(workdir.glob(f"*/{RESULTS}"))
        if not files:
            raise InputError(
                f"{workdir}: expected {RESULTS} there or in its subfolders; it is written when a "
                "run ends"
            )
        for file in files:
            runs |= {run.path: run for run in _read(file)}
    return list(runs.values())


def group(runs: Iterable[Run]) -> list[Group]:
    """Runs with equal settings together, in the order of their first."""
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        key = json.dumps(settings(run.config), sort_keys=True)
        others = found.setdefault(key, {})
        if run.seed in others:
            raise InputError(
                f"{run.path} and {others[run.seed].path} are the same run (seed {run.seed}); "
                "give one of them"
            )
        others[run.seed] = run
    return [
        Group(settings(next(iter(g.values())).config), tuple(g.values())) for g in found.values()
    ]


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """All keys of a config that can move a result, flat; of `init.checkpoint` only the last name.

    Example:
      >>> settings({"seed": 1, "loss": {"name": "ncl"}})
      {'loss.name': 'ncl'}
    """
    found = {name: v for name, v in flat(config).items() if name not in SILENT}
    if found.get("init.checkpoint"):  # a local copy is as good as the name it was published under
        found["init.checkpoint"] = pathlib.PurePath(found["init.checkpoint"]).name
    return found


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """All keys of a config: {"a": {"b": 1}} -> {"a.b": 1}."""
    return dict(_flat(config))


def _read(file: pathlib.Path) -> Iterator[Run]:
    content = checked(read_json(file), str(file))
    config, metrics = updated(content["config"]), content["metrics"]
    if "per_seed" in content:  # several seeds by one command
        for seed, measured in content["per_seed"].items():
            folder, own = file.parent / f"seed{seed}", config | {"seed": int(seed), "seeds": 1}
            yield Run(folder, int(seed), own, measured, _own(folder, content))
    else:
        yield Run(file.parent, content["run"]["seed"], config, metrics, content)


def _own(folder: pathlib.Path, content: dict[str, Any]) -> dict[str, Any]:
    """What is known of one seed: its own file, else what holds for all of them."""
    file = folder / RESULTS
    if file.exists():
        own = checked(read_json(file), str(file))
        return own | {"config": updated(own["config"])}
    about = {name: v for name, v in content["run"].items() if name not in ("seconds", "seeds")}
    return content | {"run": about}


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _at(tree: Any, keys: tuple[str, ...]) -> float:
    for key in keys:
        tree = tree[key]
    return float(tree)
