"""Retrieval metrics of a score matrix or embeddings, by every public rule side by side.

    python -m ncl_jax.cli.metrics --scores S.npy
    python -m ncl_jax.cli.metrics --text T.npy --video V.npy [--video-of-text OF.npy]
    python -m ncl_jax.cli.metrics --embeddings WORKDIR/embeddings.npz

Scores are [text, video], higher is better. Tied candidates share places: `average` counts their
mean, `average_border` too but a half place at the border as a hit (CE, MMT, QB-Norm), `optimistic`
and `pessimistic` the best and the worst, `clip4clip` every one of them as a
query of its own. Video to text: a clip's group of captions scores as its best one (`group_max`,
CLIP4Clip), or all captions compete (`best_caption`, CE and MMT). Where captions repeat, the
rules can differ by tens of points, so name the rule beside a number.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from ncl_jax import metrics
from ncl_jax.cli import exits, inputs
from ncl_jax.cli.parsing import Parser

Tables = dict[str, dict[str, dict[str, float]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; its exit code, see `exits`."""
    args = _parser().parse_args(argv)
    return exits.run_cli(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Files -> tables."""
    pairs, _ = inputs.load(args)
    from ncl_jax.normalizers import LazyScores

    found = table(pairs.text if args.scores else LazyScores(pairs.text, pairs.video, 1.0),
                  pairs.video_of_text)
    print(f"{len(pairs.text):,} texts, {len(pairs.video):,} videos")
    for title, rows in found.items():
        print(render(title, rows))
    inputs.write_json(args.json, found)


def table(scores: metrics.Scores, video_of_text: np.ndarray) -> Tables:
    """{"text to video", "video to text, RULE"} -> tie rule -> recalls, median and mean rank."""
    ranks = {"text to video": metrics.ranks_of_texts(scores, video_of_text)} | {
        f"video to text, {rule}": metrics.ranks_of_videos(scores, video_of_text, rule)
        for rule in metrics.VIDEO_RULES
    }
    return {
        title: {rule: metrics.summarize(found, rule) for rule in metrics.TIE_RULES}
        for title, found in ranks.items()
    }


def render(title: str, rows: dict[str, dict[str, float]]) -> str:
    """One Markdown table, a row per tie rule."""
    names = list(next(iter(rows.values())))
    lines = [f"\n{title}\n", f"| ties | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for rule, row in rows.items():
        lines.append(f"| {rule} | " + " | ".join(f"{row[n]:.2f}" for n in names) + " |")
    return "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(prog="python -m ncl_jax.cli.metrics", description=__doc__)
    inputs.add_arguments(parser, bank=False)
    parser.add_argument("--json", help="also write all numbers here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
