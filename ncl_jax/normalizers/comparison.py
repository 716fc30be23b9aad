"""All normalisers side by side on the same pairs, settings chosen on the bank alone."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ncl_jax import metrics
from ncl_jax.normalizers import NORMALIZERS, auto, bank_check
from ncl_jax.normalizers.base import Bank
from ncl_jax.normalizers.online import Online

NEEDS_ITEMS = ("dual_is", "dual_dis")
SHARPNESS = (1.0, 1.5, 2.5, 4.0)
"""Temperatures tried, as multiples of 1 / spread of the bank's cosines (see `auto`)."""
TEMPERATURES = ("scale", "beta", "item_beta")
ONLINE = "online"
"""Name of the row of `Online`."""
TRIALS = "held-out pairs"
"""The step of a sample that prepares the choice of all settings."""

Step = Callable[[int, str], contextlib.AbstractContextManager[None]]
"""(number of the sample, what is done) -> what it is done in."""


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


def work(dual: bool = True, online: int = 0, queries: int = 0) -> dict[str, float]:
    """The steps of one sample, and about how much work each is; see `table`."""
    grids = {n: len(g) + 2.0 for n, g in settings(1.0).items() if dual or n not in NEEDS_ITEMS}
    return {TRIALS: 2.0} | grids | ({ONLINE: 4.0 + queries / online} if online else {})


def table(
    test: Pairs,
    bank: Pairs | None,
    direction: str,
    samples: int,
    dual: bool = True,
    step: Step = lambda *_: contextlib.nullcontext(),
    online: int = 0,
) -> dict[str, Any]:
    """Every normaliser on `samples` random banks.

    Args:
      test: what is ranked.
      bank: training pairs; without any, half of the test pairs are the bank of the others.
      direction: "t2v" or "v2t".
      samples: at least 1.
      dual: whether the normalisers that need the items' own cosines are tried.
      step: told of every step as it begins, see `work`.
      online: queries between two refits of the row "online", the test queries of each sample in a
        random order; 0 for no such row.

    Returns:
      Rows by normaliser name: `kind`, `settings` (how often each was chosen), `R@1` per sample,
      `R@5`, `R@10`, `MdR`, `MnR`; `"recommendation"`, a sentence; `"recommended"`, "auto" or
      "none"; and, of a bank that was given, `"bank"`: see `bank_check.BankCheck`.
    """
    rows: dict[str, Any] = {}
    for seed, (part, gallery) in enumerate(_samples(test, bank, samples)):
        material = part.bank(direction)
        with step(seed, TRIALS):
            folds, spread = auto.trials(material, seed)
        grids = settings(spread)
        if online:
            grids[ONLINE] = [(f"every={online}", Online(online, order=seed, seed=seed))]
        for name, grid in grids.items():
            if name in NEEDS_ITEMS and not dual:
                continue
            with step(seed, name):
                label, normalizer = _choose(grid, folds)
                row = rows.setdefault(name, {"kind": normalizer.kind, "settings": Counter()})
                scores, found = _scores(normalizer, material, gallery, direction)
                row["settings"][found.get("choice", label)] += 1
                rank = metrics.text_to_video if direction == "t2v" else metrics.video_to_text
                for metric, value in rank(scores, gallery.video_of_text).items():
                    row.setdefault(metric, []).append(value)
    recommended, sentence = recommend(rows)
    more: dict[str, Any] = {"recommended": recommended, "recommendation": sentence}
    if bank is not None and len(test.video) > 1:
        checked = compare(test, bank, direction)
        more["bank"] = checked._asdict() | {"differences": checked.differences}
    return rows | more


def compare(test: Pairs, bank: Pairs, direction: str) -> bank_check.BankCheck:
    """Whether the queries of the bank treat the test's gallery as the test queries do."""
    if direction == "t2v":
        own = test.video_of_text[:, None] == np.arange(len(test.video))
        return bank_check.check(bank.text, test.text, test.video, own)
    own = np.arange(len(test.video))[:, None] == test.video_of_text
    return bank_check.check(bank.video, test.video, test.text, own)


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


def recommend(rows: dict[str, Any]) -> tuple[str, str]:
    """("auto" or "none", a sentence): what `auto` chose on training pairs, unless it lost here."""
    choice, times = rows["auto"]["settings"].most_common(1)[0]
    total = sum(rows["auto"]["settings"].values())
    if sum(n for c, n in rows["auto"]["settings"].items() if c == "none") * 2 > total:
        return "none", "Recommended: plain scores; nothing helps on held-out training pairs."
    chosen = f"most often {choice}, {times} of {total} samples"
    mean, margin = gain(rows, "auto")
    if mean < 0:
        return "none", (
            f"Recommended: plain scores. On held-out training pairs auto would win ({chosen}), but "
            f"on these test pairs it loses: {mean:+.2f} R@1 in the mean."
        )
    error = "" if np.isnan(margin) else f" ± {margin:.2f}"
    return "auto", f"Recommended: auto ({chosen}); its mean gain here is {mean:+.2f}{error} R@1."


def gain(rows: dict[str, Any], name: str) -> tuple[float, float]:
    """(mean, half of its 95 % interval) of the gain in R@1 over plain; Student's t over samples.

    The half is NaN for a single sample.
    """
    gains = np.asarray(rows[name]["R@1"]) - np.asarray(rows["none"]["R@1"])
    if len(gains) < 2:
        return float(gains.mean()), float("nan")
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return float(gains.mean()), float(special.stdtrit(len(gains) - 1, 0.975) * error)


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
