"""`metrics.jsonl` -> curves of one or several runs."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ncl_jax.report import plots

# The vertical axes that need more than the words of their key.
AXES = {
    "train/loss": "loss of the batch (nats)",
    "validation/text_to_video_R@1": "validation R@1, text to video (%)",
    "validation/video_to_text_R@1": "validation R@1, video to text (%)",
    "train/sinkhorn_error": "Sinkhorn error in the batch (relative)",
    "train/scale": "scale (logits per cosine)",
    "train/grad_norm": "norm of the gradient",
    "train/sinkhorn_converged": "Sinkhorn converged in the batch (1 yes, 0 no)",
}
FIRST = 4  # curves shown at once; the rest are folded

Curve = tuple[list[int], list[float]]


class Chart(NamedTuple):
    """One quantity of all runs."""

    name: str
    svg: str
    points: dict[str, Any] | None = None  # see `plots.points`; None where no values are shown


def read(workdir: pathlib.Path) -> dict[str, Curve]:
    """Name -> (steps, values), steps ascending. A resumed run repeats steps: the last one counts.

    Returns nothing where there is no file; lines cut short by a kill, and what is no
    line of metrics, are passed over.
    """
    found: dict[str, dict[int, float]] = {}
    path = workdir / "metrics.jsonl"
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            step = values.pop("step")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            continue
        if type(step) is not int:
            continue
        for name, value in values.items():
            if name != "time" and isinstance(value, int | float):
                found.setdefault(name, {})[step] = value
    return {name: _sorted(points) for name, points in found.items()}


def charts(runs: Mapping[str, dict[str, Curve]]) -> list[Chart]:
    """One chart per quantity that varies, the most telling first, with one line per run."""
    present = {name for curves in runs.values() for name in curves}
    order = [n for n in AXES if n in present] + sorted(present - set(AXES))
    made = []
    for name in order:
        series = {label: curves[name] for label, curves in runs.items() if name in curves}
        if all(len(set(ys)) == 1 for _, ys in series.values()):
            continue
        few = max(len(xs) for xs, _ in series.values()) < 20
        axis = AXES.get(name) or _words(name)
        figure = plots.lines(series, x="training step", y=axis, marker="o" if few else "")
        drawn = plots.svg(figure, f"{axis} against training step")
        made.append(Chart(axis, drawn, plots.points(figure)))
    return made


def _words(name: str) -> str:
    """"validation/text_to_video_R@5" -> "text to video R@5 (validation)"."""
    where, _, what = name.rpartition("/")
    return what.replace("_", " ") + (f" ({where})" if where else "")


def _sorted(points: dict[int, float]) -> Curve:
    steps = sorted(points)
    return steps, [points[s] for s in steps]
