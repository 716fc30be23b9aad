"""Every normaliser on your embeddings, in one table, with a recommendation.

    python -m ncl_jax.cli.normalize --text T.npy --video V.npy
    python -m ncl_jax.cli.normalize --text T.npy --video V.npy \\
        --bank-text BT.npy --bank-video BV.npy
    python -m ncl_jax.cli.normalize --scores S.npy

No model, no training, no config: any model's embeddings do (any length, they are brought to unit
norm), or its score matrix [text, video]. Row i of the texts describes row i of the videos, or
row `--video-of-text[i]`.

Without a bank, half of the videos with their texts serve as bank and the gallery is cut to the
other half, `--samples` times. With a bank, every sample is a random half of it. Temperatures and
other settings are chosen on the bank alone.
"""

import argparse
import json
import pathlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncl_jax import metrics
from ncl_jax.normalizers import NORMALIZERS, Bank, auto

NEEDS_ITEMS = ("dual_is", "dual_dis")
SHARPNESS = (1.0, 1.5, 2.5, 4.0)
"""Temperatures tried, as multiples of 1 / spread of the bank's cosines (see `auto`)."""


class Pairs(NamedTuple):
    """Texts, videos and which video each text describes."""

    text: np.ndarray
    video: np.ndarray
    video_of_text: np.ndarray

    def take(self, videos: np.ndarray) -> "Pairs":
        """These videos with their texts."""
        place = np.full(len(self.video), -1)
        place[videos] = np.arange(len(videos))
        texts = np.flatnonzero(place[self.video_of_text] >= 0)
        return Pairs(
            self.text[texts], self.video[videos], place[self.video_of_text[texts]]
        )

    def bank(self, direction: str) -> Bank:
        ids = np.arange(len(self.video))
        if direction == "t2v":
            return Bank(self.text, self.video, self.video_of_text, ids)
        return Bank(self.video, self.text, ids, self.video_of_text)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 0, or 2 after one sentence about bad input."""
    args = _parser().parse_args(argv)
    try:
        test, bank = _load(args)
        if args.samples < 1:
            raise ValueError(f"--samples must be at least 1, got {args.samples}")
        results = {
            direction: table(test, bank, direction, args.samples, dual=args.scores is None)
            for direction in (("t2v", "v2t") if args.direction == "both" else (args.direction,))
        }
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for direction, rows in results.items():
        print(render(direction, rows, args.samples))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
    return 0


def table(
    test: Pairs, bank: Pairs | None, direction: str, samples: int, dual: bool = True
) -> dict[str, Any]:
    """Rows by normaliser name: `kind`, `settings` (how often each was chosen), `R@1` per sample,
    `R@5`, `R@10`, `MdR`, `MnR`; and under `"recommendation"` a sentence.
    """
    rows: dict[str, Any] = {}
    for seed, (part, gallery) in enumerate(_samples(test, bank, samples)):
        material = part.bank(direction)
        folds, spread = auto.trials(material, seed)
        for name, grid in settings(spread).items():
            if name in NEEDS_ITEMS and not dual:
                continue
            label, normalizer = _choose(grid, folds)
            row = rows.setdefault(name, {"kind": normalizer.kind, "settings": Counter()})
            scores, found = _scores(normalizer, material, gallery, direction)
            row["settings"][found.get("choice", label)] += 1
            rank = metrics.text_to_video if direction == "t2v" else metrics.video_to_text
            for metric, value in rank(scores, gallery.video_of_text).items():
                row.setdefault(metric, []).append(value)
    rows["recommendation"] = _recommendation(rows)
    return rows


def settings(spread: float) -> dict[str, list[tuple[str, Any]]]:
    """The settings tried for each normaliser, as (label, normaliser)."""

    def grid(name: str, **choices: Sequence[float]) -> list[tuple[str, Any]]:
        combined: list[dict[str, Any]] = [{}]
        for key, values in choices.items():
            combined = [c | {key: v} for c in combined for v in values]
        return [(_label(c), NORMALIZERS[name](**_absolute(c, spread))) for c in combined]

    return {
        "none": grid("none"),
        "ncl": grid("ncl", scale=SHARPNESS),
        "inverted_softmax": grid("inverted_softmax", beta=SHARPNESS),
        "csls": grid("csls", k=(5, 10, 32)),
        "nnn": grid("nnn", k=(8, 32, 128), alpha=(0.25, 0.5, 0.75)),
        "qb_norm": grid("qb_norm", beta=SHARPNESS),
        "dual_is": grid("dual_is", beta=(1.5, 2.5), item_beta=(0.25, 1.0, 2.5)),
        "dual_dis": grid("dual_dis", beta=(1.5, 2.5), item_beta=(0.25, 1.0, 2.5)),
        "sinkhorn_single": grid("sinkhorn_single", scale=(1.5, 2.5)),
        "auto": grid("auto"),
        "dsl": grid("dsl", scale=SHARPNESS),
        "sinkhorn_test": grid("sinkhorn_test", scale=SHARPNESS),
    }


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


def _recommendation(rows: dict[str, Any]) -> str:
    """What `auto` says, from training pairs alone; the table's test columns have no vote."""
    choice, times = rows["auto"]["settings"].most_common(1)[0]
    total = sum(rows["auto"]["settings"].values())
    if sum(n for c, n in rows["auto"]["settings"].items() if c == "none") * 2 > total:
        return "Recommended: plain scores; nothing helps on held-out training pairs."
    gain = np.mean(np.asarray(rows["auto"]["R@1"]) - np.asarray(rows["none"]["R@1"]))
    return (f"Recommended: auto (most often {choice}, {times} of {total} samples); "
            f"its mean gain here is {gain:+.2f} R@1.")  # fmt: skip


def _choose(grid: list[tuple[str, Any]], folds: list[auto.Trial]) -> tuple[str, Any]:
    """The setting with the most held-out training queries answered; the first if there are none."""
    if len(grid) == 1 or not folds:
        return grid[0]
    hits = [np.mean(auto.held_out_margins(auto.Choice(*g), folds) > 0) for g in grid]
    return grid[int(np.argmax(hits))]


def _scores(
    normalizer: Any, bank: Bank, test: Pairs, direction: str
) -> tuple[Any, dict[str, Any]]:
    """(scores [text, video], evidence of the fit)."""
    query, items = (test.text, test.video) if direction == "t2v" else (test.video, test.text)
    fitted = normalizer.fit(bank, items)
    scores = fitted.lazy(query)
    return scores if direction == "t2v" else scores.T, getattr(fitted, "evidence", {})


def _samples(test: Pairs, bank: Pairs | None, samples: int) -> Iterator[tuple[Pairs, Pairs]]:
    """(bank, test) pairs of each sample."""
    for seed in range(samples):
        of = len((bank or test).video)
        order = np.random.default_rng(seed).permutation(of)
        half = of // 2
        if bank is None:
            yield test.take(order[:half]), test.take(order[half:])
        else:
            yield bank.take(order[: max(1, half)]), test


def _load(args: argparse.Namespace) -> tuple[Pairs, Pairs | None]:
    if (args.scores is None) == (args.text is None or args.video is None):
        raise ValueError("give either --text and --video, or --scores")
    if args.scores:
        if args.bank_text or args.bank_video:
            raise ValueError("--bank-text and --bank-video go with --text and --video")
        text = _matrix(args.scores)
        video = np.eye(text.shape[1], dtype=np.float32)  # text @ video.T is the matrix again
    else:
        text, video = _unit(_matrix(args.text)), _unit(_matrix(args.video))
    test = _pairs(text, video, args.video_of_text)
    if (args.bank_text is None) != (args.bank_video is None):
        raise ValueError("--bank-text and --bank-video go together")
    if args.bank_text is None:
        return test, None
    bank_text, bank_video = _unit(_matrix(args.bank_text)), _unit(_matrix(args.bank_video))
    if bank_text.shape[1] != text.shape[1]:
        raise ValueError(f"the bank has width {bank_text.shape[1]}, the test {text.shape[1]}; "
                         "embed both with one model")  # fmt: skip
    return test, _pairs(bank_text, bank_video, args.bank_video_of_text)


def _pairs(text: np.ndarray, video: np.ndarray, path: str | None) -> Pairs:
    if text.shape[1] != video.shape[1]:
        raise ValueError(f"texts have width {text.shape[1]}, videos {video.shape[1]}; they must "
                         "come from one model")  # fmt: skip
    of = np.arange(len(text)) if path is None else _array(path)
    if path is None and len(text) != len(video):
        raise ValueError(f"{len(text)} texts and {len(video)} videos: row i must describe row i, "
                         "or give --video-of-text")  # fmt: skip
    if of.shape != (len(text),) or of.min() < 0 or of.max() >= len(video):
        raise ValueError(f"video-of-text must be {len(text)} numbers in [0, {len(video)}), got "
                         f"shape {of.shape}")  # fmt: skip
    return Pairs(text, video, of.astype(np.int64))


def _array(path: str) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path} as a .npy array: {error}") from error


def _matrix(path: str) -> np.ndarray:
    matrix = _array(path)
    if matrix.ndim != 2 or matrix.shape[0] < 2 or not np.issubdtype(matrix.dtype, np.number):
        raise ValueError(f"{path} must hold a matrix of numbers with at least 2 rows, got "
                         f"{matrix.dtype} of shape {matrix.shape}")  # fmt: skip
    if not np.isfinite(matrix).all():
        raise ValueError(f"{path} must be finite, it holds NaN or infinity; repair these rows")
    return matrix.astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(f"row {int(np.argmin(length))} of an embedding file is zero; drop it")
    return rows / length


TEMPERATURES = ("scale", "beta", "item_beta")


def _absolute(setting: dict[str, float], spread: float) -> dict[str, float]:
    return {k: v / spread if k in TEMPERATURES else v for k, v in setting.items()}


def _label(setting: dict[str, float]) -> str:
    return " ".join(
        f"{k}={v:g}" + ("/spread" if k in TEMPERATURES else "") for k, v in setting.items()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ncl_jax.cli.normalize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", help=".npy [text, dim]")
    parser.add_argument("--video", help=".npy [video, dim]")
    parser.add_argument("--scores", help=".npy [text, video] instead of embeddings")
    parser.add_argument("--video-of-text", help=".npy ints [text]; default: row i describes row i")
    parser.add_argument("--bank-text", help=".npy [bank text, dim], training captions")
    parser.add_argument("--bank-video", help=".npy [bank video, dim], training clips")
    parser.add_argument("--bank-video-of-text", help=".npy ints [bank text]")
    parser.add_argument("--direction", choices=("t2v", "v2t", "both"), default="both")
    parser.add_argument("--samples", type=int, default=20, help="bank samples (default 20)")
    parser.add_argument("--json", help="also write all numbers here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
