"""`evaluate` for a model that reads captions and clips together: scores are computed, not cosines.

The head gives every score: of the test split, and of the bank against it. Biases are fitted to
these and added on top, inductive and transductive kept apart as in `evaluate`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ncl_jax import metrics, sinkhorn
from ncl_jax.evaluation.evaluate import (
    IN_BATCH_BATCHES,
    TIE_RULE,
    VIDEO_RULE,
    Embedded,
    both_sides,
    rules_and_counts,
)
from ncl_jax.evaluation.evaluate import score as one_row

Score = Callable[[np.ndarray, np.ndarray], Float[np.ndarray, "text video"]]
"""(text, video), as a `Towers`' encoders give them -> logits of all pairs."""


def in_blocks(score: Callable[..., Array], size: int) -> Score:
    """A score of any number of captions and clips from one of `size` x `size` (compiled once).

    Equal captions are scored once, so that they tie exactly.
    """

    def whole(text: np.ndarray, video: np.ndarray) -> Float[np.ndarray, "text video"]:
        different, place = np.unique(text, axis=0, return_inverse=True)
        rows = []
        for t in range(0, len(different), size):
            own = different[t : t + size]
            parts = [
                np.asarray(score(_padded(own, size), _padded(video[v : v + size], size)))
                for v in range(0, len(video), size)
            ]
            rows.append(np.concatenate(parts, axis=1)[: len(own), : len(video)])
        return np.concatenate(rows)[place]

    return whole


def evaluate(test: Embedded, bank: Embedded, score: Score, iterations: int) -> dict[str, Any]:
    """What `evaluate.evaluate` returns, from scores of pairs; without `inductive_auto`.

    Cost: (bank texts + test texts) x test videos + test texts x bank videos pairs.
    """
    scores = score(test.text, test.video)
    fits = {
        "plain": (None, None),
        "inductive": (
            _balance(score(bank.text, test.video), iterations),
            _balance(score(test.text, bank.video).T, iterations),
        ),
        "transductive": (_balance(scores, iterations), _balance(scores.T, iterations)),
    }
    found: dict[str, Any] = {
        "text_to_video": {}, "video_to_text": {}, "video_to_text_best_caption": {}, "fit": {},
    }  # fmt: skip
    for name, (video_fit, text_fit) in fits.items():
        by_text, by_video = scores, scores.T
        if video_fit and text_fit:
            by_text, by_video = scores + video_fit[0], scores.T + text_fit[0]
            found["fit"][name] = {"video": video_fit[1], "text": text_fit[1]}
        for direction, row in one_row(by_text, by_video, test.video_of_text).items():
            found[direction][name] = row
    normaliser = f"ncl, {iterations} iterations, on the head's logits"
    return found | rules_and_counts(test, bank, normaliser)


def plain_recall(split: Embedded, score: Score) -> dict[str, float]:
    """R@1 in both directions: the number watched during training."""
    scores = score(split.text, split.video)
    t2v = metrics.text_to_video(scores, split.video_of_text, TIE_RULE)
    v2t = metrics.video_to_text(scores, split.video_of_text, TIE_RULE, VIDEO_RULE)
    return {"text_to_video_R@1": t2v["R@1"], "video_to_text_R@1": v2t["R@1"]}


def in_batch_error(
    train: Embedded, score: Score, batch_size: int, iterations: int, seed: int
) -> dict[str, float]:
    """As `evaluate.in_batch_error`."""
    order = np.random.default_rng(seed).permutation(len(train.text))
    count = min(batch_size, len(order))
    plain, normalised = [], []
    for first in range(0, min(IN_BATCH_BATCHES * count, len(order) - count + 1), count):
        pick = order[first : first + count]
        scores = jnp.asarray(score(train.text[pick], train.video[train.video_of_text[pick]]))
        ones = jnp.ones(count)
        biases, _ = sinkhorn.solve(scores, ones, ones, iterations=iterations)
        plain.append(both_sides(scores))
        normalised.append(both_sides(scores + biases.text[:, None] + biases.video[None, :]))
    return {"plain": float(np.mean(plain)), "normalised": float(np.mean(normalised))}


def order_accuracy(
    test: Embedded, pairs: Sequence[tuple[int, int]], video: np.ndarray, score: Score
) -> dict[str, float]:
    """As `evaluate.order_accuracy`."""
    twin = dict(pairs) | {b: a for a, b in pairs}
    texts = np.flatnonzero(np.isin(test.video_of_text, list(twin)))
    own: Int[np.ndarray, " text"] = test.video_of_text[texts]
    scores, place = score(test.text[texts], video), np.arange(len(texts))
    margin = scores[place, own] - scores[place, [twin[v] for v in own]]
    won = np.mean(margin > 0) + np.mean(margin == 0) / 2
    return {"accuracy": 100 * float(won), "texts": len(texts)}


def _balance(
    scores: Float[np.ndarray, "query gallery"], iterations: int
) -> tuple[Float[np.ndarray, " gallery"], dict[str, Any]]:
    """Biases of the gallery that give every item an equal share of the queries, and evidence."""
    queries, items = scores.shape
    biases, report = sinkhorn.solve(
        jnp.asarray(scores), jnp.ones(queries), jnp.full(items, queries / items),
        iterations=iterations,
    )  # fmt: skip
    evidence = {
        "error": float(report.error),
        "iterations": int(report.iterations),
        "converged": bool(report.converged),
        "bank": queries,
        "mass": "uniform",
    }
    return np.asarray(biases.video), evidence


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    return np.pad(rows, [(0, count - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
