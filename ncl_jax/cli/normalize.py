"""Every normaliser on your embeddings, in one table, with a recommendation.

    python -m ncl_jax.cli.normalize --text T.npy --video V.npy
    python -m ncl_jax.cli.normalize --text T.npy --video V.npy \\
        --bank-text BT.npy --bank-video BV.npy --save biases.npz
    python -m ncl_jax.cli.normalize --scores S.npy
    python -m ncl_jax.cli.normalize --embeddings WORKDIR/embeddings.npz --full --online

Needs no model, training or config: give the embeddings of any model (of any length; they are
brought to unit norm), its score matrix [text, video], or the file that a training run saved. Row i
of the texts describes row i of the videos, or row `--video-of-text[i]`.

Without a bank, half of the videos with their texts serve as bank and the gallery is cut to the
other half, once for each sample. With a bank, every sample is a random half of it, and a warning
says where the bank is unlike the test set. Temperatures and other settings are chosen on the bank
alone. The quick look takes 3 samples, `--full` 20. `--online` adds a row of its own: what `auto`
chose, fitted anew after every 100 test queries, or `--online N`, on the bank and the queries
answered so far, which arrive in a random order.

`--save` writes what is recommended, fitted on the whole bank: `video_bias` [video] and `text_bias`
[text] with `video_scale` and `text_scale`. Rank videos by `video_scale * text @ video.T +
video_bias`, and texts by `text_scale * video @ text.T + text_bias`.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ncl_jax.cli import exits, inputs
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError
from ncl_jax.files import replaced
from ncl_jax.progress import Estimate, Steps, duration

if TYPE_CHECKING:
    from ncl_jax.normalizers.comparison import Pairs, Step

QUICK, FULL = 3, 20
EVERY = 100
"""Queries between two refits of `--online`."""
SIDES = {"t2v": ("video", "text to video"), "v2t": ("text", "video to text")}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; its exit code, see `exits`."""
    args = _parser().parse_args(argv)
    return exits.run_cli(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Files -> one table per direction, and the biases where they are asked for."""
    if args.online is not None and args.online < 1:
        raise InputError(f"--online: expected at least 1 query between refits, got {args.online}")
    if args.samples < 1:
        raise InputError(f"--samples must be at least 1, got {args.samples}")
    if args.save and not (args.bank_text or args.embeddings):
        raise InputError("--save needs a bank of training pairs to fit the biases on; give "
                         "--bank-text and --bank-video, or --embeddings of a run")  # fmt: skip
    test, bank = inputs.load(args)
    from ncl_jax.normalizers.comparison import table, work

    if args.scores:
        test = test._replace(text=in_float32(test.text, test.video_of_text, args.scores))
    dual = args.scores is None
    directions = ("t2v", "v2t") if args.direction == "both" else (args.direction,)
    online = args.online or 0
    with _steps(work(dual, online, len(test.text)), directions, args.samples) as steps:
        results = {
            d: table(test, bank, d, args.samples, dual, steps[d], online) for d in directions
        }
    for direction, rows in results.items():
        print(render(direction, rows, args.samples))
    inputs.write_json(args.json, results)
    if args.save and bank is not None:
        print(save(args.save, test, bank, {d: r["recommended"] for d, r in results.items()}))


@contextlib.contextmanager
def _steps(
    work: dict[str, float], directions: Sequence[str], samples: int
) -> "Iterator[dict[str, Step]]":
    """What tells each direction's steps on stderr; at the end, how long more samples would take."""
    planned = [f"{d} {name}" for d in directions for name in work] * samples
    estimate = Estimate({f"{d} {name}": w for d in directions for name, w in work.items()}, planned)
    steps = Steps(estimate, sys.stderr)

    def of(direction: str) -> "Step":
        way = SIDES[direction][1]
        return lambda sample, name: steps.step(
            f"{way}, sample {sample + 1} of {samples}: {name}", f"{direction} {name}"
        )

    yield {direction: of(direction) for direction in directions}
    if samples < FULL:
        print(f"{samples} samples took {duration(estimate.spent)}; --full takes {FULL}, about "
              f"{duration(estimate.spent * FULL / samples)}", file=sys.stderr)  # fmt: skip


def save(path: str, test: "Pairs", bank: "Pairs", recommended: dict[str, str]) -> str:
    """Writes the recommended biases of each direction, fitted on the whole bank; says which."""
    from ncl_jax.normalizers import NORMALIZERS

    arrays: dict[str, Any] = {}
    said = []
    for direction, name in recommended.items():
        side, way = SIDES[direction]
        gallery = test.video if direction == "t2v" else test.text
        fitted = NORMALIZERS[name]().fit(bank.bank(direction), gallery)
        choice = getattr(fitted, "evidence", {}).get("choice", name)
        arrays |= {f"{side}_bias": fitted.bias, f"{side}_scale": np.float32(fitted.scale),
                   f"{side}_choice": choice}  # fmt: skip
        said.append(f"{way} {'plain, no bias' if choice == 'none' else choice}")
    try:
        with replaced(path) as stream:
            np.savez(stream, **arrays)
    except OSError as error:
        raise InputError(f"cannot write --save {path}: {error}") from error
    return f"{path}: {'; '.join(said)}"


def in_float32(scores: np.ndarray, video_of_text: np.ndarray, path: str) -> np.ndarray:
    """Scores as the normalisers compute them.

    Raises:
      ValueError: rounding gives more than one text in a hundred another rank.
    """
    from ncl_jax import arrays, metrics

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
    """The table as Markdown: inductive, transductive and online rows apart, plain first."""
    quick = f" (quick; --full takes {FULL})" if samples < FULL else ""
    lines = [f"{SIDES[direction][1].capitalize()}, {samples} bank samples{quick}, ties averaged"
             + ("" if direction == "t2v" else ", rule group_max"), ""]  # fmt: skip
    for kind in ("inductive", "transductive", "online"):
        members = [name for name, row in rows.items()
                   if isinstance(row, dict) and row.get("kind") == kind]  # fmt: skip
        if not members:
            continue
        lines += [f"| {kind} | R@1 | gain over plain (95 %) | R@5 | R@10 | MdR | most chosen |",
                  "|---|---|---|---|---|---|---|"]
        lines += [*(_line(name, rows) for name in members), ""]
    return "\n".join([*lines, rows["recommendation"], *_bank(rows), ""])


def _line(name: str, rows: dict[str, Any]) -> str:
    from ncl_jax.normalizers.comparison import gain

    row, (mean, margin) = rows[name], gain(rows, name)
    chosen, times = row["settings"].most_common(1)[0]
    cells = [
        name,
        f"{np.mean(row['R@1']):.1f} ± {np.std(row['R@1']):.1f}",
        "" if name == "none" else f"{mean:+.2f}" + ("" if np.isnan(margin) else f" ± {margin:.2f}"),
        *(f"{np.mean(row[m]):.1f}" for m in ("R@5", "R@10", "MdR")),
        f"{chosen or '-'} ({times}/{len(row['R@1'])})",
    ]
    return "| " + " | ".join(cells) + " |"


def _bank(rows: dict[str, Any]) -> Iterator[str]:
    """The bank beside the test set, where one was given."""
    if "bank" not in rows:
        return
    bank = rows["bank"]
    hubs = "" if bank["hubs"] is None else f", correlation of hubs {bank['hubs']:.2f}"
    yield (
        "Cosines of bank and test queries with the test's items: mean {0[0]:.3f} and {0[1]:.3f}, "
        "spread {1[0]:.3f} and {1[1]:.3f}{2}.".format(bank["mean"], bank["spread"], hubs)
    )
    if bank["differences"]:
        yield (
            f"Warning: the bank is unlike the test set: {', '.join(bank['differences'])}. Biases "
            "fitted on it may hurt; a bank should be of the same kind, embedded by the same model, "
            "and not memorised by it."
        )


def _parser() -> Parser:
    parser = Parser(prog="python -m ncl_jax.cli.normalize", description=__doc__)
    inputs.add_arguments(parser, bank=True)
    parser.add_argument("--direction", choices=("t2v", "v2t", "both"), default="both")
    count = parser.add_mutually_exclusive_group()
    count.add_argument("--samples", type=int, default=QUICK,
                       help=f"bank samples (default {QUICK}, a quick look)")
    count.add_argument("--full", action="store_const", const=FULL, dest="samples",
                       help=f"as --samples {FULL}")
    parser.add_argument("--online", type=int, nargs="?", const=EVERY, metavar="N",
                        help="also biases refitted with the queries answered so far, after every "
                             f"N of them (default {EVERY})")
    parser.add_argument("--json", help="also write all numbers here")
    parser.add_argument("--save", metavar="FILE.npz",
                        help="also write the recommended biases, fitted on the whole bank")
    return parser


if __name__ == "__main__":
    sys.exit(main())
