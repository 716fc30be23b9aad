"""From embeddings to what is worth looking at: balance, hubs, telling queries, convergence.

Score matrices are [text, video] in logit units, read a few rows at a time, as everywhere.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncl_jax import metrics
from ncl_jax.normalizers import Bank, Ncl, SinkhornTest

TOP = 5
"""Clips shown per query."""
LIST = 10
"""Length of the lists in which appearances are counted."""


class Search(NamedTuple):
    """What every text of a split retrieves."""

    best: np.ndarray  # [text, TOP] clips, best first
    rank: np.ndarray  # [text] of the right clip, from 1; ties get the mean of their places
    lead: np.ndarray  # [text] score of the right clip minus the best other, logits
    share: np.ndarray  # [video] summed retrieval probability / fair share
    lists: np.ndarray  # [video] captions that have it among their LIST best
    firsts: np.ndarray  # [video] captions that have it in first place


class Query(NamedTuple):
    """One text, and why it is shown."""

    text: int
    why: str


def search(scores: metrics.Scores, video_of_text: np.ndarray) -> Search:
    """Everything the report says about one kind of scores [text, video]."""
    texts, videos = scores.shape
    right = np.asarray(video_of_text)
    lists, firsts = np.zeros(videos, int), np.zeros(videos, int)
    best, lead = np.zeros((texts, min(TOP, videos)), int), np.zeros(texts, np.float32)
    for rows, block in metrics.row_blocks(scores):
        order = _best(block, min(max(LIST, TOP), videos))
        lists += np.bincount(order[:, :LIST].ravel(), minlength=videos)
        firsts += np.bincount(order[:, 0], minlength=videos)
        best[rows] = order[:, :TOP]
        at = np.arange(len(block)), right[rows]
        own = block[at]
        others = block.copy()
        others[at] = -np.inf
        lead[rows] = own - others.max(axis=1)
    ranks = metrics.ranks_of_texts(scores, right)
    return Search(
        best=best,
        rank=ranks.above + ranks.tied / 2 + 1,
        lead=lead,
        share=shares(scores),
        lists=lists,
        firsts=firsts,
    )


def shares(scores: metrics.Scores) -> np.ndarray:
    """Summed retrieval probability over fair share of each column, 1 is fair."""
    rows, columns = scores.shape
    total = np.zeros(columns)
    for _, block in metrics.row_blocks(scores):
        p = np.exp(block - block.max(axis=1, keepdims=True).astype(np.float64))
        total += (p / p.sum(axis=1, keepdims=True)).sum(axis=0)
    return total * columns / rows


def telling_queries(
    before: Search, after: Search, video_of_text: np.ndarray, count: int = 3
) -> list[Query]:
    """The best and the worst queries after normalisation, and those that it moved most.

    No clip is asked for twice, and no query is shown twice.
    """
    move = np.log(before.rank) - np.log(after.rank)  # from 2 to 1 counts as from 20 to 10
    groups = (
        ("best after normalisation: the right clip leads by most", after.lead, None),
        ("worst after normalisation: the right clip trails by most", -after.lead, None),
        ("gained most by normalisation", move, move > 0),
        ("lost most by normalisation", -move, move < 0),
    )
    seen: set[int] = set()
    shown: list[Query] = []
    for why, value, allowed in groups:
        taken = 0
        for text in np.argsort(-value, kind="stable").tolist():
            video = int(video_of_text[text])
            if taken == count or (allowed is not None and not allowed[text]):
                break
            if video not in seen:
                seen.add(video)
                shown.append(Query(text, why))
                taken += 1
    return shown


def hubs(before: Search, count: int = 6) -> list[int]:
    """The clips that stand in most lists before normalisation, most first."""
    return np.argsort(-before.lists, kind="stable")[:count].tolist()


def never_first(before: Search, count: int = 6) -> list[int]:
    """Clips that come first for no caption before normalisation; those in fewest lists first."""
    missing = np.flatnonzero(before.firsts == 0)
    order = np.lexsort((before.share[missing], before.lists[missing]))
    return missing[order][:count].tolist()


def recall_curve(rank: np.ndarray, up_to: int = 50) -> tuple[Sequence[float], list[float]]:
    """(k, share of queries in percent whose right clip stands among the k best)."""
    places = list(range(1, up_to + 1))
    return places, [100 * float(np.mean(rank <= k)) for k in places]


def convergence(
    text: np.ndarray,
    video: np.ndarray,
    bank: np.ndarray,
    scale: float,
    iterations: Iterable[int] = (0, 1, 2, 4, 8, 16, 32),
) -> list[dict[str, float]]:
    """Normalisation error of the clips against Sinkhorn iterations.

    Returns:
      One row per count: `iterations`; `bank`: error of the bank's captions, on which the biases
      were fitted; `test`: error of the test captions under the same biases (inductive);
      `test_fitted`: under biases fitted on the test captions themselves (transductive).
    """
    rows = []
    for count in iterations:
        inductive = Ncl(scale, count).fit(Bank(bank), video)
        transductive = SinkhornTest(scale, count).fit(None, video)
        rows.append({
            "iterations": count,
            "bank": video_error(inductive.lazy(bank)),
            "test": video_error(inductive.lazy(text)),
            "test_fitted": video_error(transductive.lazy(text)),
        })
    return rows


def video_error(scores: metrics.Scores) -> float:
    """Mean |summed retrieval probability / fair share - 1| over the clips."""
    texts, videos = scores.shape
    masses = np.ones(texts), np.full(videos, texts / videos)
    return metrics.normalization_error(scores, *masses)["video_mean"]


def differences(configs: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """(key, value in each) of flat configs, where not all are equal."""
    keys = sorted({key for config in configs for key in config})
    found = [(key, [config.get(key) for config in configs]) for key in keys]
    return [(key, values) for key, values in found if len(set(map(str, values))) > 1]


def _best(block: np.ndarray, count: int) -> np.ndarray:
    """The `count` best columns of each row, best first; ties in order of columns."""
    some = np.sort(np.argpartition(-block, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(block, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
