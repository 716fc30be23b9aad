"""Whether the queries of a bank treat a gallery as the test queries do.

Biases take from an item what the bank's queries give it too much of. Where the test queries have
other hubs, other cosines or another spread, these biases answer a question that nobody asks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

QUERIES, ITEMS = 1000, 5000
"""Queries of each side and items that are compared, at most."""
SHARPNESS = 2.5
"""Scale of the shares times the spread of the cosines, as in `auto`."""
SHIFT, SPREAD, HUBS = 0.5, 1.3, 0.4
"""Beyond these a bank is unlike: means in spreads, ratio of spreads, correlation of shares."""
CHANCE = 0.2
"""Correlation of two halves of the test queries below which their hubs are taken for chance."""


class BankCheck(NamedTuple):
    """The bank's queries beside the test queries, both against the test's items.

    Attributes:
      mean: cosine of a query and an item that is not its own, (bank, test).
      spread: standard deviation of a query's cosines, (bank, test).
      hubs: rank correlation of how often the items come up, corrected for the chance of the test
        sample: 1 where the same items are hubs; None where the test queries agree on none.
    """

    mean: tuple[float, float]
    spread: tuple[float, float]
    hubs: float | None

    @property
    def differences(self) -> list[str]:
        """In words, in what the bank is unlike the test set; empty where it is like it."""
        spread = max(self.spread[1], 1e-12)
        shift, ratio = abs(self.mean[0] - self.mean[1]) / spread, self.spread[0] / spread
        found = [
            (shift > SHIFT, f"its mean cosine is {shift:.1f} spreads away"),
            (not 1 / SPREAD < ratio < SPREAD, f"its cosines spread {ratio:.2f} times as far"),
            (self.hubs is not None and self.hubs < HUBS,
             f"its hubs are others (correlation {self.hubs or 0:.2f})"),
        ]
        return [words for differs, words in found if differs]


def check(
    bank: Float[np.ndarray, "bank dim"],
    query: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "item dim"],
    own: Bool[np.ndarray, "query item"],
    seed: int = 0,
) -> BankCheck:
    """Compares the queries of a bank with those of a test set.

    Args:
      bank: training queries, unit norm as all rows.
      query: test queries, at least one of which does not own all items.
      gallery: the test's items.
      own: which items belong to a query; they are left out, as no bank query has one here.
      seed: of the samples where there are more than `QUERIES` or `ITEMS`, and of the halves that
        tell what of the shares is chance.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> x = rng.normal(size=(300, 8))
      >>> hub = np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True), np.ones((300, 1))], 1)
      >>> found = check(hub[:100], hub[100:200], hub[200:], np.zeros((100, 100), bool))
      >>> found.differences
      []
    """
    rng = np.random.default_rng(seed)
    b, q = (rng.permutation(len(rows))[:QUERIES] for rows in (bank, query))
    items = rng.permutation(len(gallery))[:ITEMS]
    theirs = bank[b] @ gallery[items].T
    q = q[~own[q].all(axis=1)]
    tests = np.where(own[np.ix_(q, items)], np.nan, query[q] @ gallery[items].T)
    mean, spread = zip(*map(_mean_and_spread, (theirs, tests)), strict=True)
    scale = SHARPNESS / (spread[1] or 1.0)
    half = len(tests) // 2
    within = _correlation(*(_shares(part, scale) for part in (tests[:half], tests[half:])))
    if within < CHANCE:
        return BankCheck(mean, spread, None)
    whole = 2 * within / (1 + within)  # Spearman and Brown: of a sample of twice the size
    between = _correlation(_shares(theirs, scale), _shares(tests, scale))
    return BankCheck(mean, spread, float(np.clip(between / np.sqrt(whole), -1, 1)))


def _mean_and_spread(cosines: np.ndarray) -> tuple[float, float]:
    """Of all cosines; NaN ones do not count."""
    rest = cosines - np.nanmean(cosines, axis=1, keepdims=True)
    return float(np.nanmean(cosines)), float(np.nanstd(rest))


def _shares(cosines: np.ndarray, scale: float) -> np.ndarray:
    """Summed probability of each item."""
    logit = np.where(np.isnan(cosines), -np.inf, scale * cosines)
    weight = np.exp(logit - logit.max(axis=1, keepdims=True))
    return (weight / weight.sum(axis=1, keepdims=True)).sum(axis=0)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of ranks; 0 where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(stats.spearmanr(a, b).statistic)
