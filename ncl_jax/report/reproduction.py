"""The reproduction table of docs/results.md: its column `measured`, from result files alone.

A row of that table names the command that makes its run. A run counts for the row if its settings
are those of the command, up to the seed and what moves no result (`runs.SILENT`).
"""

import importlib
import json
import re
from collections.abc import Sequence
from typing import Any

import ml_collections

from ncl_jax.errors import InputError
from ncl_jax.report import runs, tables
from ncl_jax.report.runs import Group

METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR")
DIRECTIONS = {"t2v": "text_to_video", "v2t": "video_to_text"}
COLUMNS = ("direction", "scores", "measured", "command")


def fill(document: str, groups: Sequence[Group]) -> tuple[str, list[str]]:
    """Write what the groups measured into the table of a Markdown document.

    Args:
      document: with a table whose header has the columns `direction` (t2v or v2t), `scores` (a
        row of the results, as plain), `measured` and `command`. All other text stays as it is.
      groups: of finished runs.

    Returns:
      The document, and one sentence per group: which rows it fills, or why it fills none.

    Raises:
      ValueError: no such table.
    """
    lines = document.split("\n")
    header = next((i for i, line in enumerate(lines) if set(COLUMNS) <= set(_cells(line))), None)
    if header is None:
        raise InputError(f"expected a table with the columns {', '.join(COLUMNS)}, found none")
    place = {name: _cells(lines[header]).index(name) for name in COLUMNS}
    filled = dict.fromkeys(range(len(groups)), 0)
    nearest: dict[int, list[str]] = {}
    for number in range(header + 2, len(lines)):
        cells = _cells(lines[number])
        if len(cells) <= max(place.values()):
            break
        wanted = runs.settings(expected(cells[place["command"]]))
        for i, group in enumerate(groups):
            differing = _differing(group.settings, wanted)
            nearest[i] = min(nearest.get(i, differing), differing, key=len)
            direction, scores = DIRECTIONS[cells[place["direction"]]], cells[place["scores"]]
            if not differing and scores in group.runs[0].metrics[direction]:
                cells[place["measured"]] = " / ".join(
                    tables.cell(group, direction, scores, metric) for metric in METRICS
                )
                filled[i] += 1
                lines[number] = "| " + " | ".join(cells) + " |"
    return "\n".join(lines), [
        _remark(group, filled[i], nearest.get(i, [])) for i, group in enumerate(groups)
    ]


def expected(command: str) -> dict[str, Any]:
    """The config of `--config=configs/NAME.py:ARGUMENTS --config.KEY=VALUE`, as nested dicts.

    Raises:
      ValueError: the command names no config, or a key that it does not have.
    """
    found = re.search(r"--config=configs/(\w+)\.py(?::([^\s`]+))?", command)
    if not found:
        raise InputError(f"expected --config=configs/NAME.py in a command, got {command!r}")
    config = importlib.import_module(f"configs.{found[1]}").get_config(found[2] or "")
    assert isinstance(config, ml_collections.ConfigDict)
    for key, value in re.findall(r"--config\.([\w.]+)=([^\s`]+)", command):
        config.update_from_flattened_dict({key: type(_at(config, key))(value)})
    return dict(json.loads(json.dumps(config.to_dict())))  # as a result file has it


def _differing(settings: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """`key is this, not that`, for every key that is not equal."""
    different = {k for k in {*settings, *wanted} if settings.get(k) != wanted.get(k)}
    return [f"{key} is {settings.get(key)}, not {wanted.get(key)}" for key in sorted(different)]


def _remark(group: Group, rows: int, differing: list[str]) -> str:
    where = ", ".join(str(run.path) for run in group.runs)
    if rows:
        return f"{where}: {rows} rows of the reproduction table"
    return f"{where}: fills no row; nearest: {'; '.join(differing[:3]) or 'no such scores'}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if "|" in line else []


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        if name not in config:
            raise InputError(f"the config has no key {key!r}")
        config = config[name]
    return config
