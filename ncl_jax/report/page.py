"""Finished runs -> one HTML page that needs nothing but itself."""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe

from ncl_jax.experiment import results
from ncl_jax.progress import duration
from ncl_jax.report import curves, findings
from ncl_jax.report.details import Details
from ncl_jax.report.runs import Run, flat
from ncl_jax.report.tables import DIRECTIONS

HERE = pathlib.Path(__file__).parent
NAMED = 3
"""Runs that the title of a page names."""
COLUMNS = {
    "R@1": ("%", ".1f"), "R@5": ("%", ".1f"), "R@10": ("%", ".1f"), "R@50": ("%", ".1f"),
    "MdR": ("rank", ".1f"), "MnR": ("rank", ".1f"), "norm_error_mean": ("0 is fair", ".3f"),
}  # fmt: skip


class Section(NamedTuple):
    """Rows of a result table with the same kind of scores."""

    title: str
    rows: list[tuple[str, list[float | None]]]  # run, one value per column


class ResultTable(NamedTuple):
    """One direction of retrieval."""

    title: str
    columns: dict[str, tuple[str, str]]
    sections: list[Section]


def render(runs: Sequence[Run], details: Mapping[str, Details | str]) -> str:
    """The page.

    Args:
      runs: at least one.
      details: by the run's label (`labels`): what its embeddings show, or a sentence that says
        why that is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["markup"] = markupsafe.Markup
    named = dict(zip(labels(runs), runs, strict=True))
    found = {label: curves.read(run.path) for label, run in named.items()}
    return environment.get_template("page.html").render(
        title=title(named),
        runs=named,
        tables=list(result_tables(named)),
        charts=curves.charts(found),
        charts_first=curves.FIRST,
        details=details,
        accounts=accounts(named),
        differing=findings.differences([flat(run.config) for run in runs]),
        settings={label: flat(run.config) for label, run in named.items()},
        facts={label: list(facts(run)) for label, run in named.items()},
        style=markupsafe.Markup((HERE / "html" / "style.css").read_text()),
        script=markupsafe.Markup(
            "\n".join((HERE / "html" / name).read_text() for name in ("sort.js", "curves.js"))
        ),
    )


def labels(runs: Sequence[Run]) -> list[str]:
    """The folder's own name, or its path where two are called the same.

    Example:
      >>> labels([Run(pathlib.Path("a/x"), 0, {}, {}), Run(pathlib.Path("b/y"), 0, {}, {})])
      ['x', 'y']
    """
    names = [readable(run.path.name or run.path) for run in runs]
    return names if len(set(names)) == len(names) else [readable(run.path) for run in runs]


def title(runs: Mapping[str, Run]) -> str:
    """Of a page: the config's name of a lone run, the labels of several.

    Example:
      >>> title({label: Run(pathlib.Path(label), 0, {"name": "demo"}, {}) for label in "abcde"})
      '5 runs: a, b, c and 2 more'
    """
    if len(runs) == 1:
        return str(next(iter(runs.values())).config["name"])
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    return f"{len(runs)} runs: {', '.join(list(runs)[:NAMED])}{more}"


def file_of(workdirs: Sequence[pathlib.Path], runs: Sequence[Run]) -> pathlib.Path:
    """Where a page goes if nothing is said: into a lone folder, beside the first of several.

    Example:
      >>> folders = [pathlib.Path("runs/a"), pathlib.Path("runs/b")]
      >>> str(file_of(folders, [Run(folder, 0, {}, {}) for folder in folders]))
      'runs/report-a+b.html'
    """
    first = workdirs[0]
    if len(workdirs) == 1:
        return first / "report.html"
    names = "+".join(re.sub(r"[^\w.,=-]+", "_", label) for label in labels(runs))
    names = names if len(names) < 100 else f"{len(runs)}-runs"
    return (first.parent if first.name else first) / f"report-{names}.html"


def readable(path: str | pathlib.Path) -> str:
    r"""The path as text that any file and plot can hold; bytes that are no UTF-8 become `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def result_tables(runs: Mapping[str, Run]) -> Iterator[ResultTable]:
    """Tables of each direction, one section per kind of scores; those that see more than one query
    by themselves.
    """
    for direction, title in DIRECTIONS.items():
        measured = {label: run.metrics[direction] for label, run in runs.items()}
        others = (kind for rows in measured.values() for kind in rows)
        kinds = list(dict.fromkeys([*results.ROWS, *others]))
        columns = {
            name: form for name, form in COLUMNS.items()
            if any(name in row for rows in measured.values() for row in rows.values())
        }  # fmt: skip
        sections = [
            Section(
                results.row_name(kind, direction, [run.metrics for run in runs.values()]),
                [(label, [rows[kind].get(name) for name in columns])
                 for label, rows in measured.items() if kind in rows],
            )
            for kind in kinds
        ]
        shown = {kind: s for kind, s in zip(kinds, sections, strict=True) if s.rows}
        by_themselves = list(results.APART.items())[1:]
        apart_kinds = [kind for _, members in by_themselves for kind in members]
        first = [s for kind, s in shown.items() if kind not in apart_kinds]
        yield ResultTable(title, columns, first)
        for about, members in by_themselves:
            if apart := [s for kind, s in shown.items() if kind in members]:
                yield ResultTable(f"{title}, {about}", columns, apart)


def facts(run: Run) -> Iterator[tuple[str, str]]:
    """What the run was, in a few words."""
    about, environment = run.content.get("run", {}), run.content.get("environment", {})
    yield "folder", readable(run.path)
    yield "loss", str(run.config["loss"]["name"])
    yield "seed", str(run.seed)
    if "counts" in run.metrics:
        yield "bank", results.bank_line(run.metrics)
    if "step" in about:
        yield "steps", f"{about['step']:,} x {run.config['train']['batch_size']} pairs"
    for phase, seconds in about.get("seconds", {}).items():
        yield phase, duration(seconds)
    if devices := environment.get("devices"):
        yield "devices", f"{devices['count']} x {devices['kind']}"
    if packages := environment.get("packages"):
        yield "JAX", packages["jax"]
    if git := environment.get("git"):
        yield "commit", git["commit"][:10] + (" with changes" if git["dirty"] else "")


def accounts(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Used and expected counts per dataset directory and split; runs on the same data share one."""
    found: dict[str, dict[str, Any]] = {}
    for label, run in runs.items():
        data = run.content.get("data", {})
        if "splits" in data:
            entry = found.setdefault(data["directory"], data | {"runs": []})
            entry["runs"].append(label)
    return list(found.values())


def number(value: float | None, form: str = ".1f") -> str:
    """A number, or a dash."""
    return "-" if value is None else format(value, form)
