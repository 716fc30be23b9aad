"""Groups of runs -> tables, and a table as Markdown or LaTeX."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from ncl_jax.experiment.results import APART, COLUMNS, row_name
from ncl_jax.report.runs import Group

DIRECTIONS = {"text_to_video": "Text to video", "video_to_text": "Video to text"}
NAMED = ("name", "data.builder", "loss.name", "model.temporal")  # columns of their own
LATEX = str.maketrans({c: f"\\{c}" for c in "#$%&_{}"} | {
    "±": r"$\pm$", "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    "~": r"\textasciitilde{}", ">": r"\textgreater{}", "\n": " ",
})  # fmt: skip
MARKDOWN = str.maketrans({"|": "\\|", "\\": "\\\\", "<": "&lt;", "\n": " ", "\r": " "})


class Table(NamedTuple):
    """Cells as text; the first row is the header."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """A GitHub table under a bold title."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        cells = ("| " + " | ".join(c.translate(MARKDOWN) for c in line) + " |" for line in lines)
        return "\n".join([f"**{self.title}**", "", *cells, ""])

    def latex(self) -> str:
        """A `tabular` in booktabs' rules, inside a `table` with the title as caption."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join(cell.translate(LATEX) for cell in cells) + r" \\"

        return "\n".join([
            r"\begin{table}", rf"\caption{{{self.title.translate(LATEX)}}}",
            rf"\begin{{tabular}}{{{'l' * len(self.header)}}}", r"\toprule", line(self.header),
            r"\midrule", *map(line, self.rows), r"\bottomrule", r"\end{tabular}", r"\end{table}",
            "",
        ])  # fmt: skip


def results(groups: Sequence[Group]) -> list[Table]:
    """Two tables per direction: scores of each query alone, plain first, and transductive ones.

    Settings in which the groups differ, apart from name, dataset, loss and head, get a column.
    """
    varying = _varying(groups)
    columns = ["norm. error" if name == "norm_error_mean" else name for name in COLUMNS]
    header = ("run", "dataset", "loss", "head", *(("settings",) if varying else ()), "seeds",
              "scores", *columns)  # fmt: skip
    tables = []
    for (direction, title), (apart, kinds) in itertools.product(DIRECTIONS.items(), APART.items()):
        rows = []
        for group in groups:
            names = [str(group.settings.get(key, "")) for key in NAMED]
            if varying:
                names.append(", ".join(f"{k}={group.settings.get(k)}" for k in varying))
            for kind in kinds:
                if any(kind in run.metrics[direction] for run in group.runs):
                    cells = [cell(group, direction, kind, metric) for metric in COLUMNS]
                    label = row_name(kind, direction, [run.metrics for run in group.runs])
                    rows.append((*names, str(len(group.runs)), label, *cells))
        if rows:
            about = f"{title}, {apart}; mean ± standard deviation over seeds"
            tables.append(Table(about, header, rows))
    return tables


def cell(group: Group, direction: str, scores: str, metric: str) -> str:
    """`43.1` of a lone run, `43.1 ± 0.4` over seeds; `-` where a run did not measure it."""
    try:
        mean, deviation = group.statistics(direction, scores, metric)
    except KeyError:
        return "-"
    form = COLUMNS[metric]
    return format(mean, form) + ("" if deviation is None else f" ± {deviation:{form}}")


def _varying(groups: Sequence[Group]) -> list[str]:
    keys = sorted({key for group in groups for key in group.settings} - set(NAMED))
    return [k for k in keys if len({str(group.settings.get(k)) for group in groups}) > 1]
