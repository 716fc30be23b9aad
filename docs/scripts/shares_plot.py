"""The plot of README.md, from a finished run.

    python docs/scripts/shares_plot.py runs/demo docs/shares.svg

It is the plot "how often each clip comes up" of the run report, as a file of its own that follows
the light or dark scheme of the page that shows it.
"""

import pathlib
import sys

from ncl_jax.experiment.finished import FinishedRun, open_run
from ncl_jax.normalizers import Bank, Ncl, Plain, SinkhornTest
from ncl_jax.report import findings, plots

STYLE = """<style>
svg { --ink: #1d2126; --faint: #b8bec5; --c0: #0072b2; --c1: #d55e00; --c2: #009e73;
  font-family: system-ui, "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e8eaed; --faint: #5a626c; --c0: #4aa8e0; --c1: #f2864a; --c2: #35c79f; }
}
</style>"""
KINDS = {"plain": Plain, "inductive": Ncl, "transductive": SinkhornTest}


def plot(run: FinishedRun) -> str:
    """SVG of the shares of the run's test clips, before and after normalisation."""
    bank = Bank(run.bank.text)
    shares = {
        kind: findings.shares(normalizer(run.scale).fit(bank, run.test.video).lazy(run.test.text))
        for kind, normalizer in KINDS.items()
    }
    figure = plots.shares(shares, of="clips (count)")
    text = plots.svg(figure, "how often each test clip comes up, before and after normalisation")
    opening, rest = text.split(">", 1)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"{opening} {names}>{STYLE}{rest}"


if __name__ == "__main__":
    workdir, out = sys.argv[1:]
    pathlib.Path(out).write_text(plot(open_run(workdir)))
