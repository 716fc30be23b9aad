"""Tables of finished runs, made from their result files.

    python -m ncl_jax.cli.report results runs/msvd runs/msvd-infonce [--out DIR] [--fill FILE]
    python -m ncl_jax.cli.report html runs/msvd runs/msvd-infonce [--out FILE]

`results` prints the tables of the page as Markdown: two per direction, because transductive
scores are compared only with each other; runs that differ only in their seed become one row, mean ±
standard deviation. `--out` also writes them as `results.md` and `results.tex`. `--fill
docs/results.md` fills the column `measured` of the reproduction table there with the runs that were
made by the command of its row, and reports how every other run differs.

`html` writes one page that needs no other file: report.html in the folder of a run, or beside the
first of several a page of their own, as report-msvd+msvd-infonce.html. It has tables, curves and,
for the first `--details` runs, balance, hubs and selected queries with their frames, for which the
dataset must be where it was during the run.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ncl_jax.cli import exits
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError
from ncl_jax.files import replaced, write_text
from ncl_jax.locks import locked
from ncl_jax.progress import announced

if TYPE_CHECKING:
    from ncl_jax.report import runs


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code, see `exits`."""
    args = _parser().parse_args(argv)
    return exits.run_cli(lambda: print(args.run(args)))


def results(args: argparse.Namespace) -> str:
    """Result files -> tables."""
    with announced("importing JAX", sys.stderr):
        from ncl_jax.report import reproduction, runs, tables

    groups = runs.group(runs.load(args.workdirs))
    made = tables.results(groups)
    markdown = "\n".join(table.markdown() for table in made)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_text(args.out / "results.md", markdown)
        write_text(args.out / "results.tex", "\n".join(table.latex() for table in made))
    if args.fill:
        with locked(args.fill):
            text, remarks = reproduction.fill(args.fill.read_text(), groups)
            write_text(args.fill, text)
        markdown = "\n".join([markdown, *remarks])
    return markdown


def html(args: argparse.Namespace) -> str:
    """Runs -> one HTML page."""
    if args.details < 0:
        raise InputError(f"--details: expected at least 0, got {args.details}")
    with announced("importing JAX and Matplotlib", sys.stderr):
        from ncl_jax.report import page, runs

    loaded = runs.load(args.workdirs)
    out = args.out or page.file_of(args.workdirs, loaded)
    if out.is_dir():
        raise InputError(f"--out: expected a file for the page, got the folder {out}; name a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Opened first, so that a place that cannot be written is known before anything is computed.
    with replaced(out) as stream:
        # Sentences may hold any path.
        stream.write(_page(loaded, args.details).encode("utf-8", "replace"))
    count = f"{len(loaded)} run{'s' if len(loaded) > 1 else ''}"
    return f"{page.readable(out)}: {out.stat().st_size / 1e6:.1f} MB, {count}"


def _page(loaded: "Sequence[runs.Run]", in_depth: int) -> str:
    from ncl_jax.report import details, page, runs

    found: dict[str, details.Details | str] = {}
    labelled = dict(zip(page.labels(loaded), loaded, strict=True))
    try:
        for label, run in itertools.islice(labelled.items(), in_depth):
            with announced(f"{label}: balance, hubs and queries", sys.stderr):
                found[label] = _details(run)
        for label in itertools.islice(labelled, in_depth, None):
            found[label] = (
                f"No balance, hubs and queries: the first {in_depth} of {len(loaded)} runs are "
                f"shown in depth; --details={len(loaded)} shows all"
            )
        with announced("drawing curves and page", sys.stderr):
            return page.render(loaded, found)
    except KeyError as error:
        raise InputError(
            f"a {runs.RESULTS} lacks the key {error}: expected one that this version has written"
        ) from error


def _details(run: "runs.Run") -> Any:
    """What the run's embeddings show, or why they cannot be had (moved data, say)."""
    from ncl_jax.experiment import finished
    from ncl_jax.report import details

    try:
        opened = finished.open_run(run.path)
    except (InputError, OSError) as error:
        return f"No balance, hubs and queries: {error}"
    return details.details(opened, run.config["eval"]["iterations"])


def _parser() -> Parser:
    parser = Parser(prog="python -m ncl_jax.cli.report", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="results | html")
    command = commands.add_parser("results", help=results.__doc__)
    command.set_defaults(run=results)
    command.add_argument("workdirs", nargs="+", type=pathlib.Path, help="folders of finished runs")
    command.add_argument("--out", type=pathlib.Path, help="folder for results.md and results.tex")
    command.add_argument("--fill", type=pathlib.Path, help="a file with the reproduction table")
    command = commands.add_parser("html", help=html.__doc__)
    command.set_defaults(run=html)
    command.add_argument("workdirs", nargs="+", type=pathlib.Path, help="folders of finished runs")
    command.add_argument("--out", type=pathlib.Path, help="the page")
    command.add_argument("--details", type=int, default=2, help="runs shown in depth (default 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
