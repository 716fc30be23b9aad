"""From the results of many runs to one table: mean, spread, and differences paired by seed."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ncl_jax.experiment import results

HEADINGS = results.ROWS | {"training": "training"}  # of the kinds of scores, plain first
SHOWN = ("R@1", "R@5", "R@10", "MnR", "norm_error_mean")
DIRECTIONS = ("text_to_video", "video_to_text")


class Finished(NamedTuple):
    """One finished run: its setting, as "loss=ncl", and what `results.json` holds as metrics."""

    setting: str
    seed: int
    metrics: dict[str, Any]
    workdir: str = ""


def table(runs: Sequence[Finished]) -> dict[str, Any]:
    """The JSON table.

    Returns:
      `settings`: in the order of the runs; the first is what the others are compared with.
      `rows`: one per measure and kind of scores (a key of `HEADINGS`), each with `measure`, `kind`
      and `settings`: {setting: {"seeds", "values", "mean", "std"}} (sample standard deviation over
      the seeds, None for a single seed). All but the first setting have `difference`: {"mean",
      "low", "high", "seeds"}, the mean paired difference from the first setting over the seeds
      both have, with its 95 % interval (Student's t; None below two seeds).
      `workdirs`: {setting: {seed: folder}}.
    """
    settings = list(dict.fromkeys(run.setting for run in runs))
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for run in runs:
        for measure, kind, value in measures(run.metrics):
            by_setting = found.setdefault((measure, kind), {})
            by_setting.setdefault(run.setting, {})[run.seed] = value
    order = list(HEADINGS)
    keys = sorted(found, key=lambda key: order.index(key[1]))  # stable: measures keep their order
    return {
        "settings": settings,
        "rows": [
            {"measure": m, "kind": kind, "settings": _compared(found[m, kind], settings)}
            for m, kind in keys
        ],
        "workdirs": {
            s: {str(run.seed): run.workdir for run in runs if run.setting == s} for s in settings
        },
    }


def workdirs(table: dict[str, Any]) -> list[pathlib.Path]:
    """Folders of the runs of a table, setting by setting."""
    by_seed = table["workdirs"].values()
    return [pathlib.Path(folder) for folders in by_seed for folder in folders.values()]


def measures(metrics: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(measure, kind of scores, value) of one run, as the table has them."""
    for direction, kind in itertools.product(DIRECTIONS, results.ROWS):
        row = metrics[direction].get(kind, {})
        for name in SHOWN:
            if name in row:
                shown = "norm. error" if name == "norm_error_mean" else name
                yield f"{direction.replace('_', ' ')} {shown}", kind, float(row[name])
    if error := metrics.get("in_batch_norm_error"):
        yield "in-batch norm. error, raw scores", "training", error["plain"]
        yield "in-batch norm. error, as the loss sees it", "training", error["trained_on"]
    if pairs := metrics.get("order_pairs"):
        yield "order pairs, % right", "training", pairs["accuracy"]
        control = pairs["accuracy_shuffled_frames"]
        yield "order pairs with shuffled frames, % right (chance 50)", "training", control


def markdown(table: dict[str, Any]) -> str:
    """The table for people: one part per kind of scores, plain first, then every seed's value."""
    runs, settings = table["runs"], table["settings"]
    lines = [
        f"# Sweep: {table['sweep']}", "", "```", table["command"], "```", "",
        f"{runs['finished']} of {runs['planned']} runs finished.", *_listed(table["failed"]),
        *_listed(table["coinciding"]),
    ]  # fmt: skip
    if not settings:
        return "\n".join(lines)
    lines += [
        "",
        "Mean ± sample standard deviation over the seeds. R@k in percent, MnR is a rank, norm. "
        "error is mean |summed retrieval probability / fair share - 1|."
    ]
    if len(settings) > 1:
        lines += [
            f"In brackets: the paired difference from {settings[0]} with its 95 % interval "
            "(Student's t, not corrected for the number of comparisons); * where it excludes 0."
        ]
    for kind, group in itertools.groupby(table["rows"], lambda row: row["kind"]):
        lines += ["", f"## {HEADINGS[kind].capitalize()}"]
        rows = list(group)
        for direction in dict.fromkeys(_direction(row["measure"]) for row in rows):
            some = [row for row in rows if _direction(row["measure"]) == direction]
            lines += ["", *_part(direction, some, settings)]
    return "\n".join([*lines, "", "## Every seed", "", *_every_seed(table)])


def _part(direction: str, rows: Sequence[Any], settings: Sequence[str]) -> Iterator[str]:
    """One line per setting, one column per measure of a direction."""
    names = [row["measure"].removeprefix(direction).strip() for row in rows]
    yield from _header([direction or "setting", *names])
    for setting in settings:
        cells = [_cell(row["settings"].get(setting), row["measure"]) for row in rows]
        if any(cells):
            yield _line([setting, *cells])


def _direction(measure: str) -> str:
    names = (direction.replace("_", " ") for direction in DIRECTIONS)
    return next((name for name in names if measure.startswith(name)), "")


def _every_seed(table: dict[str, Any]) -> Iterator[str]:
    cells = [cell for row in table["rows"] for cell in row["settings"].values()]
    seeds = sorted({seed for cell in cells for seed in cell["seeds"]})
    yield from _header(["measure", "scores", "setting", *(f"seed {s}" for s in seeds)])
    for row in table["rows"]:
        for setting, cell in row["settings"].items():
            value = dict(zip(cell["seeds"], cell["values"], strict=True))
            shown = [_number(value[s], row["measure"]) if s in value else "" for s in seeds]
            yield _line([row["measure"], row["kind"], setting, *shown])


def _compared(found: dict[str, dict[int, float]], settings: Sequence[str]) -> dict[str, Any]:
    base = found.get(settings[0], {})
    cells: dict[str, Any] = {}
    for setting in settings:
        if setting not in found:
            continue
        by_seed = dict(sorted(found[setting].items()))
        values = np.asarray(list(by_seed.values()))
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        cells[setting] = {
            "seeds": list(by_seed), "values": values.tolist(),
            "mean": float(values.mean()), "std": spread,
        }  # fmt: skip
        if setting != settings[0]:
            cells[setting]["difference"] = _difference(base, by_seed)
    return cells


def _difference(base: dict[int, float], other: dict[int, float]) -> dict[str, Any] | None:
    both = [seed for seed in other if seed in base]
    if len(both) < 2:
        return None
    gain = np.asarray([other[seed] - base[seed] for seed in both])
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    half = float(special.stdtrit(len(gain) - 1, 0.975) * error)
    mean = float(gain.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": both}


def _cell(cell: dict[str, Any] | None, measure: str) -> str:
    if cell is None:
        return ""
    text = _number(cell["mean"], measure)
    if cell["std"] is not None:
        text += f" ± {_number(cell['std'], measure)}"
    if gain := cell.get("difference"):
        mean, low, high = (_number(gain[k], measure, "+") for k in ("mean", "low", "high"))
        # A point is no interval: equal differences of a few seeds show nothing.
        clear = gain["low"] < gain["high"] and gain["low"] * gain["high"] > 0
        text += f" [{mean}; {low} to {high}]" + " \\*" * clear
    return text


def _number(value: float, measure: str, sign: str = "") -> str:
    return format(value, sign + (".3f" if "error" in measure else ".1f"))


def _listed(remarks: dict[str, str]) -> list[str]:
    return ["", *(f"- {name}: {remark}" for name, remark in remarks.items())] if remarks else []


def _header(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
