"""All normalisers side by side on the same pairs, settings chosen on the bank alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncl_jax import metrics
from ncl_jax.normalizers import NORMALIZERS, auto
from ncl_jax.normalizers.base import Bank

NEEDS_ITEMS = ("dual_is", "dual_dis")
SHARPNESS = (1.0, 1.5, 2.5, 4.0)
"""Temperatures tried, as multiples of 1 / spread of the bank's cosines (see `auto`)."""
TEMPERATURES = ("scale", "beta", "item_beta")


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


def _absolute(setting: dict[str, float], spread: float) -> dict[str, float]:
    return {k: v / spread if k in TEMPERATURES else v for k, v in setting.items()}


def _label(setting: dict[str, float]) -> str:
    return " ".join(
        f"{k}={v:g}" + ("/spread" if k in TEMPERATURES else "") for k, v in setting.items()
    )
