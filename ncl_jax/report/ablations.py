"""What normalisation at training time and at test time is worth, factor by factor.

Test-time factors need no training: they are computed from the embeddings that runs leave.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ncl_jax.evaluation import evaluate
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.normalizers import Bank, BiasFitted, Ncl, Plain, SinkhornTest
from ncl_jax.report.runs import Run

ITERATIONS = (0, 1, 2, 4, 8, 16, 32)
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
BANK_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
MEASURES = {
    "text_to_video": "text to video R@1 (%)",
    "video_to_text": "video to text R@1 (%)",
    "norm_error": "norm. error of the clips",
}


class Opened(Protocol):
    """What a run leaves, as `ncl_jax.experiment.finished.open_run` reads it."""

    @property
    def test(self) -> Embedded: ...
    @property
    def bank(self) -> Embedded: ...
    @property
    def scale(self) -> float: ...


class Trial(NamedTuple):
    """One value of one factor; the others keep the defaults (4 iterations, whole bank, ...)."""

    factor: str
    value: Any
    kind: str  # "plain", "inductive" or "transductive"
    normalizer: Any
    text_bank: np.ndarray  # queries of the normaliser of the clips
    video_bank: np.ndarray  # and of the captions


class Row(NamedTuple):
    """A value of a factor, measured on one or several runs: name -> (mean, sample deviation)."""

    factor: str
    value: Any
    kind: str
    runs: int
    measures: dict[str, tuple[float, float | None]]


def at_test_time(opened: Sequence[Opened], iterations: int = 4, seed: int = 0) -> list[Row]:
    """All test-time factors on the embeddings of runs that differ in their seed only.

    Factors: `iterations` of Sinkhorn; `scale`, the logits per cosine that biases are fitted at, in
    multiples of the model's (less is softer, a higher temperature); `bank size`,
    a share of the training captions and clips (one random draw per run); `bank`, what the bank
    is made of; `strength`.

    Args:
      opened: the runs; their spread is the deviation.
      iterations: where they are not what is varied.
      seed: of the draws of banks.
    """
    found: dict[tuple[str, Any, str], list[dict[str, float]]] = {}
    for number, run in enumerate(opened):
        rng = np.random.default_rng([seed, number])
        for trial in trials(run, iterations, rng):
            key = trial.factor, trial.value, trial.kind
            found.setdefault(key, []).append(measure(trial, run))
    return [Row(*key, len(values), _summary(values)) for key, values in found.items()]


def trials(run: Opened, iterations: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Every value of every factor for one run."""
    test, bank, scale = run.test, run.bank, run.scale
    both = bank.text, bank.video
    usual = Ncl(scale, iterations)
    for k in ITERATIONS:
        yield Trial("iterations", k, "inductive", Ncl(scale, k), *both)
    for factor in SCALES:
        yield Trial("scale", factor, "inductive", Ncl(factor * scale, iterations), *both)
    for strength in STRENGTHS:
        normalizer = Ncl(scale, iterations, strength)
        yield Trial("strength", strength, "inductive", normalizer, *both)
    orders = [rng.permutation(len(side)) for side in both]
    for share in BANK_SHARES:
        parts = [
            side[order[: max(1, round(share * len(order)))]]
            for side, order in zip(both, orders, strict=True)
        ]
        yield Trial("bank size", share, "inductive", usual, *parts)
    first = np.unique(bank.video_of_text, return_index=True)[1]
    yield Trial("bank", "none", "plain", Plain(scale), *both)
    yield Trial("bank", "train split", "inductive", usual, *both)
    yield Trial("bank", "one caption per train clip", "inductive", usual, bank.text[first], both[1])
    yield Trial("bank", "train, of the other side", "inductive", usual, *both[::-1])
    transductive = SinkhornTest(scale, iterations)
    yield Trial("bank", "test queries", "transductive", transductive, test.text, test.video)


def measure(trial: Trial, run: Opened) -> dict[str, float]:
    """R@1 in both directions and, at the model's scale, the normalisation error of the clips."""
    test = run.test
    fitted = (
        trial.normalizer.fit(Bank(trial.text_bank), test.video),
        trial.normalizer.fit(Bank(trial.video_bank), test.text),
    )
    # Normalisation errors compare at one scale only.
    video_side, text_side = (
        side.at_scale(run.scale) if isinstance(side, BiasFitted) else side for side in fitted
    )
    rows = evaluate.score(
        video_side.lazy(test.text), text_side.lazy(test.video), test.video_of_text
    )
    return {
        "text_to_video": rows["text_to_video"]["R@1"],
        "video_to_text": rows["video_to_text"]["R@1"],
        "norm_error": rows["text_to_video"]["norm_error_mean"],
    }


def train_and_test(runs: Sequence[Run]) -> list[Row]:
    """Normalisation in training only, at test time only, in both, and in neither.

    Args:
      runs: results of InfoNCE and NCL runs, any number of seeds; other settings should be equal.
    """
    names = {
        ("infonce", "plain"): "neither",
        ("infonce", "inductive"): "test only",
        ("ncl", "plain"): "training only",
        ("ncl", "inductive"): "both",
        ("infonce", "transductive"): "test only",
        ("ncl", "transductive"): "both",
    }
    rows = []
    for (loss, kind), value in names.items():
        measured = [
            {
                direction: run.metrics[direction][kind]["R@1"]
                for direction in ("text_to_video", "video_to_text")
            }
            | {"norm_error": run.metrics["text_to_video"][kind]["norm_error_mean"]}
            for run in runs
            if run.config["loss"]["name"] == loss
        ]
        if measured:
            rows.append(Row("normalised in", value, kind, len(measured), _summary(measured)))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """One table per factor; inductive and transductive rows are named as such."""
    lines: list[str] = []
    for factor in dict.fromkeys(row.factor for row in rows):
        lines += ["", f"| {factor} | scores | {' | '.join(MEASURES.values())} |"]
        lines.append("|---" * (2 + len(MEASURES)) + "|")
        for row in rows:
            if row.factor == factor:
                cells = [_cell(*row.measures[name], digits=3 if name == "norm_error" else 1)
                         for name in MEASURES]  # fmt: skip
                lines.append(f"| {row.value} | {row.kind} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def _summary(values: Sequence[dict[str, float]]) -> dict[str, tuple[float, float | None]]:
    return {
        name: (
            float(np.mean([v[name] for v in values])),
            float(np.std([v[name] for v in values], ddof=1)) if len(values) > 1 else None,
        )
        for name in MEASURES
    }


def _cell(mean: float, spread: float | None, digits: int) -> str:
    text = f"{mean:.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"
