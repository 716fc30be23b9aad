"""Every normaliser on your embeddings, in one table, with a recommendation.

    python -m ncl_jax.cli.normalize --text T.npy --video V.npy
    python -m ncl_jax.cli.normalize --text T.npy --video V.npy \\
        --bank-text BT.npy --bank-video BV.npy
    python -m ncl_jax.cli.normalize --scores S.npy
    python -m ncl_jax.cli.normalize --embeddings WORKDIR/embeddings.npz

Needs no model, training or config: give the embeddings of any model (of any length; they are
brought to unit norm), its score matrix [text, video], or the file that a training run saved. Row i
of the texts describes row i of the videos, or row `--video-of-text[i]`.

Without a bank, half of the videos with their texts serve as bank and the gallery is cut to the
other half, `--samples` times. With a bank, every sample is a random half of it. Temperatures and
other settings are chosen on the bank alone.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ncl_jax import arrays, metrics
from ncl_jax.cli import exits, inputs
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError
from ncl_jax.normalizers.comparison import table


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; its exit code, see `exits`."""
    args = _parser().parse_args(argv)
    return exits.run_cli(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Files -> one table per direction."""
    test, bank = inputs.load(args)
    if args.scores:
        test = test._replace(text=in_float32(test.text, test.video_of_text, args.scores))
    if args.samples < 1:
        raise InputError(f"--samples must be at least 1, got {args.samples}")
    results = {
        direction: table(test, bank, direction, args.samples, dual=args.scores is None)
        for direction in (("t2v", "v2t") if args.direction == "both" else (args.direction,))
    }
    for direction, rows in results.items():
        print(render(direction, rows, args.samples))
    inputs.write_json(args.json, results)


def in_float32(scores: np.ndarray, video_of_text: np.ndarray, path: str) -> np.ndarray:
    """Scores as the normalisers compute them.

    Raises:
      ValueError: rounding gives more than one text in a hundred another rank.
    """
    rounded = arrays.single(scores, path)
    fine, coarse = (metrics.ranks_of_texts(s, video_of_text) for s in (scores, rounded))
    moved = np.mean((fine.above != coarse.above) | (fine.tied != coarse.tied))
    if moved > 0.01:
        raise InputError(
            f"{path}: in float32, which this command computes in, {100 * moved:.0f} % of the texts "
            "get another rank; subtract what the scores have in common, or scale them"
        )
    return rounded


def render(direction: str, rows: dict[str, Any], samples: int) -> str:
    """The table as Markdown, inductive and transductive apart, plain first."""
    way = "Text to video" if direction == "t2v" else "Video to text"
    lines = [f"{way}, {samples} bank samples, ties averaged"
             + ("" if direction == "t2v" else ", rule group_max"), ""]
    plain = np.asarray(rows["none"]["R@1"])
    for kind in ("inductive", "transductive"):
        lines += [f"| {kind} | R@1 | gain over plain (95 %) | R@5 | R@10 | MdR | most chosen |",
                  "|---|---|---|---|---|---|---|"]
        for name, row in rows.items():
            if name != "recommendation" and row["kind"] == kind:
                lines.append(_line(name, row, plain))
        lines.append("")
    return "\n".join([*lines, rows["recommendation"], ""])


def _line(name: str, row: dict[str, Any], plain: np.ndarray) -> str:
    gain = np.asarray(row["R@1"]) - plain
    margin = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
    chosen, times = row["settings"].most_common(1)[0]
    cells = [
        name,
        f"{np.mean(row['R@1']):.1f} ± {np.std(row['R@1']):.1f}",
        "" if name == "none" else f"{gain.mean():+.2f} ± {margin:.2f}",
        *(f"{np.mean(row[m]):.1f}" for m in ("R@5", "R@10", "MdR")),
        f"{chosen or '-'} ({times}/{len(gain)})",
    ]
    return "| " + " | ".join(cells) + " |"


def _parser() -> Parser:
    parser = Parser(prog="python -m ncl_jax.cli.normalize", description=__doc__)
    inputs.add_arguments(parser, bank=True)
    parser.add_argument("--direction", choices=("t2v", "v2t", "both"), default="both")
    parser.add_argument("--samples", type=int, default=20, help="bank samples (default 20)")
    parser.add_argument("--json", help="also write all numbers here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
