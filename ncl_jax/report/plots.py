"""Plots for the run report and the notebooks, in colours that colour-blind readers can tell apart.

Every function returns a Matplotlib figure; `svg` turns one into markup that follows the page's
light or dark scheme.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's palette without yellow and black, and line styles as a second cue.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLES = ("-", "--", "-.", ":")
INK, FAINT = "#303030", "#b8b8b8"
SIZE = (4.1, 2.7)  # inches
POINTS = 2000
"""Of a line whose values can be read on the page, at most."""
_LOOK: Any = {
    "font.size": 8.5, "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": FAINT,
    "grid.alpha": 0.5, "grid.linewidth": 0.6, "axes.spines.top": False, "axes.axisbelow": True,
    "axes.spines.right": False, "legend.frameon": False, "text.parse_math": False,
    "svg.fonttype": "none", "lines.linewidth": 1.7, "legend.fontsize": 8,
}  # fmt: skip

FACTORS = {  # of `ablations.at_test_time`, as axes
    "iterations": "Sinkhorn iterations at test time (count)",
    "scale": "scale at test time (multiples of the model's)",
    "bank size": "bank (share of the training split)",
    "strength": "strength of normalisation (0 plain, 1 full)",
}

Line = tuple[Sequence[float], Sequence[float]]


def lines(
    series: Mapping[str, Line],
    *,
    x: str,
    y: str,
    title: str = "",
    log_x: bool = False,
    marker: str = "",
) -> Figure:
    """One line per name, as {"ncl": (steps, losses)}; `x` and `y` name quantity and unit."""
    with matplotlib.rc_context(_LOOK):
        figure, axes = _figure(x, y, title)
        shown = {
            name: axes.plot(xs, ys, marker=marker, markersize=4, **_cue(i))[0]
            for i, (name, (xs, ys)) in enumerate(series.items())
        }
        if log_x:
            ticks = sorted({float(v) for xs, _ in series.values() for v in xs})
            axes.set_xscale("symlog", base=2, linthresh=1)
            axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        _legend(axes, shown)
    return figure


def errors(
    series: Mapping[str, tuple[Sequence[Any], Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    title: str = "",
    joined: bool = True,
) -> Figure:
    """One line with error bars per name, as {"ncl": (values, means, deviations)}.

    The values stand at equal distances, so they may be words; `joined` by a line where they have
    an order.
    """
    with matplotlib.rc_context(_LOOK):
        figure, axes = _figure(x, y, title)
        shown = {}
        for i, (name, (_, means, spread)) in enumerate(series.items()):
            at = np.arange(len(means)) + 0.06 * i
            cue = _cue(i) | ({} if joined else {"linestyle": "none"})
            shown[name] = axes.errorbar(
                at, means, spread, marker="o", markersize=4, capsize=3, **cue
            )
        values = next(iter(series.values()))[0]
        axes.set_xticks(range(len(values)), [str(v) for v in values])
        _legend(axes, shown)
    return figure


def factor(rows: Sequence[Any], name: str) -> Figure:
    """R@1 of both directions against one factor of `ablations.at_test_time`, with error bars."""
    chosen = [row for row in rows if row.factor == name]
    values = [row.value for row in chosen]
    series = {
        label: (
            values,
            [row.measures[key][0] for row in chosen],
            [row.measures[key][1] or 0.0 for row in chosen],
        )
        for key, label in (("text_to_video", "text to video"), ("video_to_text", "video to text"))
    }
    return errors(series, x=FACTORS.get(name, name), y="R@1 (%)")


def sweep(table: Mapping[str, Any], measure: str, kind: str = "plain") -> Figure:
    """One measure of a sweep's table, as "text to video R@1", with error bars over seeds."""
    row = next(r for r in table["rows"] if (r["measure"], r["kind"]) == (measure, kind))
    cells = [row["settings"][setting] for setting in table["settings"]]
    means, spread = [cell["mean"] for cell in cells], [cell["std"] or 0.0 for cell in cells]
    unit = " (%)" if "R@" in measure else ""
    figure = errors(
        {kind: (table["settings"], means, spread)},
        x=f"setting of the sweep {table['sweep']}",
        y=f"{measure}{unit}, {kind} scores",
        joined=False,
    )
    figure.axes[0].tick_params(axis="x", labelrotation=30)
    return figure


def shares(
    series: Mapping[str, np.ndarray], *, of: str = "clips", title: str = ""
) -> Figure:
    """Histograms of summed retrieval probability over fair share; 1 is fair.

    Args:
      series: name -> shares [item]; what lies outside 1/16 to 16 counts as the end bins.
      of: what the items are, for the axis.
      title: of the plot.
    """
    edges = 2.0 ** np.linspace(-4, 4, 33)
    with matplotlib.rc_context(_LOOK):
        figure, axes = _figure("summed retrieval probability / fair share (log scale)", of, title)
        axes.axvline(1, color=INK, linewidth=0.8)
        shown = {}
        for i, (name, share) in enumerate(series.items()):
            counts, _ = np.histogram(np.clip(share, edges[0], edges[-1]), edges)
            shown[name] = axes.stairs(counts, edges, linewidth=1.7, **_cue(i))
            axes.stairs(counts, edges, fill=True, alpha=0.12, color=COLOURS[i % len(COLOURS)])
        axes.set_xscale("log", base=2)
        ticks = 2.0 ** np.arange(-4, 5)
        names = [f"1/{1 / t:g}" if t < 1 else f"{t:g}" for t in ticks]
        names[0], names[-1] = f"≤ {names[0]}", f"≥ {names[-1]}"  # the end bins hold what is beyond
        axes.set_xticks(ticks, names)
        axes.set_ylim(bottom=0)
        _legend(axes, shown)
    return figure


def convergence(rows: Sequence[Mapping[str, float]], title: str = "") -> Figure:
    """Normalisation error against iterations, from the rows of `findings.convergence`."""
    names = {
        "bank": "bank (fitted on)",
        "test": "test (inductive)",
        "test_fitted": "test (transductive)",
    }
    steps = [row["iterations"] for row in rows]
    return lines(
        {name: (steps, [row[key] for row in rows]) for key, name in names.items()},
        x="Sinkhorn iterations (log scale)",
        y="normalisation error of the clips",
        title=title,
        log_x=True,
        marker="o",
    )


def matrix(values: np.ndarray, *, x: str, y: str, unit: str, title: str = "") -> Figure:
    """A small matrix as colours, with a scale named by `unit`."""
    with matplotlib.rc_context(_LOOK | {"axes.grid": False}):
        figure, axes = _figure(x, y, title)
        image = axes.imshow(values, cmap="cividis", aspect="auto")
        figure.colorbar(image, ax=axes, label=unit)
    return figure


def svg(figure: Figure, description: str) -> str:
    """Inline SVG: no fixed size, no ids that could meet those of another, colours of the page.

    The page defines the custom properties `--ink`, `--faint` and `--c0` to `--c5`.
    """
    buffer = io.StringIO()
    salt = f"{description}{id(figure)}"
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    colours = {INK: "var(--ink)", FAINT: "var(--faint)"}
    colours |= {colour: f"var(--c{i})" for i, colour in enumerate(COLOURS)}
    for colour, name in colours.items():
        text = text.replace(colour, name)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box
    opening = (
        f'<svg viewBox="0 0 {box[1]} {box[2]}" width="{float(box[1]):.0f}" '
        f'height="{float(box[2]):.0f}" role="img" aria-label="{_attribute(description)}">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)


def points(figure: Figure) -> dict[str, Any]:
    """What a page needs to show the values of a figure of `lines`, after `svg` has drawn it.

    Returns:
      `box`: left, top, right, bottom of the axes in units of the SVG's viewBox; `x`, `y`: the
      limits there; `names`: of the axes; `linear`: whether x is, so that it can be zoomed;
      `lines`: each with `name`, `x`, `y`, and `at`, its x in units of the viewBox. Of long lines
      every n-th point.
    """
    axes = figure.axes[0]
    height, unit = figure.bbox.height, 72 / figure.dpi  # an SVG counts in points
    corners = axes.transAxes.transform([(0, 1), (1, 0)])
    (left, top), (right, bottom) = ((x, height - y) for x, y in corners)
    named = figure.legends[0].get_texts() if figure.legends else []
    names = [text.get_text() for text in named] or [""]
    found = []
    for name, line in zip(names, axes.get_lines(), strict=True):
        x, y = (np.asarray(v, float) for v in line.get_data())
        x, y = (v[:: -(-len(v) // POINTS)] for v in (x, y))
        at = axes.transData.transform([(v, axes.get_ylim()[0]) for v in x])[:, 0]
        found.append({"name": name, "x": _short(x), "y": _short(y), "at": _short(at * unit)})
    box = [float(v) * unit for v in (left, top, right, bottom)]
    return {
        "box": _short(np.asarray(box)),
        "x": _short(np.asarray(axes.get_xlim())),
        "y": _short(np.asarray(axes.get_ylim())),
        "names": [axes.get_xlabel(), axes.get_ylabel()],
        "linear": axes.get_xscale() == "linear",
        "lines": found,
    }


def _short(values: np.ndarray) -> list[float]:
    """To six digits; what is no number would be no JSON."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]  # type: ignore[misc]


def _figure(x: str, y: str, title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    if title:
        axes.set_title(title, fontsize=10, loc="left")
    return figure, axes


def _cue(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}


def _legend(axes: Any, shown: Mapping[str, Any]) -> None:
    """Names are given outright: Matplotlib leaves out what an artist calls `_something`."""
    if len(shown) > 1:  # above the plot, where it hides nothing
        axes.figure.legend(list(shown.values()), list(shown), loc="outside upper left",
                           ncols=2 if len(shown) > 3 else len(shown),
                           handlelength=2.2, columnspacing=1.2)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
