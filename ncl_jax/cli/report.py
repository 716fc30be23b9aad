"""Tables of finished runs, made from their result files.

    python -m ncl_jax.cli.report results runs/msvd runs/msvd-infonce [--out DIR]

`results` prints one Markdown table per direction; runs that differ only in their seed become one
row, mean ± standard deviation. `--out` also writes them as `results.md` and `results.tex`.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from ncl_jax.report import runs, tables


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 2 after one sentence about bad input."""
    args = _parser().parse_args(argv)
    try:
        print(args.run(args))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def results(args: argparse.Namespace) -> str:
    """Result files -> tables."""
    made = tables.results(runs.group(runs.load(args.workdirs)))
    markdown = "\n".join(table.markdown() for table in made)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.md").write_text(markdown)
        (args.out / "results.tex").write_text("\n".join(table.latex() for table in made))
    return markdown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ncl_jax.cli.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="results")
    command = commands.add_parser("results", help=results.__doc__)
    command.set_defaults(run=results)
    command.add_argument("workdirs", nargs="+", type=pathlib.Path, help="folders of finished runs")
    command.add_argument("--out", type=pathlib.Path, help="folder for results.md and results.tex")
    return parser


if __name__ == "__main__":
    sys.exit(main())
