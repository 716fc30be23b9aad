"""Groups of runs -> tables, and a table as Markdown or LaTeX."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from ncl_jax.report.runs import Group

DIRECTIONS = {"text_to_video": "Text to video", "video_to_text": "Video to text"}
METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR")
NAMED = ("name", "data.builder", "loss.name", "model.temporal")  # columns of their own
LATEX = str.maketrans({c: f"\\{c}" for c in "#$%&_{}"} | {"±": r"$\pm$", "\\": r"\textbackslash{}"})


class Table(NamedTuple):
    """Cells as text; the first row is the header."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """A GitHub table under a bold title."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        cells = ("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
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
    """One table per direction; plain, inductive and transductive scores in rows of their own.

    Settings in which the groups differ, apart from name, dataset, loss and head, get a column.
    """
    varying = _varying(groups)
    header = ("run", "dataset", "loss", "head", *(("settings",) if varying else ()), "seeds",
              "scores", *METRICS)  # fmt: skip
    tables = []
    for direction, title in DIRECTIONS.items():
        rows = []
        for group in groups:
            names = [str(group.settings.get(key, "")) for key in NAMED]
            if varying:
                names.append(", ".join(f"{k}={group.settings.get(k)}" for k in varying))
            measured = [run.metrics[direction] for run in group.runs]
            for scores in dict.fromkeys(itertools.chain(*measured)):
                cells = [cell(group, direction, scores, metric) for metric in METRICS]
                rows.append((*names, str(len(group.runs)), scores, *cells))
        tables.append(Table(f"{title}; mean ± standard deviation over seeds", header, rows))
    return tables


def cell(group: Group, direction: str, scores: str, metric: str) -> str:
    """`43.1` of a lone run, `43.1 ± 0.4` over seeds; `-` where a run did not measure it."""
    try:
        mean, deviation = group.statistics(direction, scores, metric)
    except KeyError:
        return "-"
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def _varying(groups: Sequence[Group]) -> list[str]:
    keys = sorted({key for group in groups for key in group.settings} - set(NAMED))
    return [k for k in keys if len({str(group.settings.get(k)) for group in groups}) > 1]
