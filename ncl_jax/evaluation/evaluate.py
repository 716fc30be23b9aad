"""Score an embedded split, plain and normalised, in both directions, and rank.

Plain scores always come first; inductive and transductive rows are separate everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ncl_jax import metrics, sinkhorn
from ncl_jax.evaluation.banks import Banks
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.evaluation.scorers import Scorer
from ncl_jax.types import Biases

TIE_RULE: metrics.TieRule = "average"
VIDEO_RULE: metrics.VideoRule = "group_max"
IN_BATCH_BATCHES = 20
HUB_LISTS = (1, 10)
HELD = 1 << 26
"""Scores up to which a matrix is held (256 MB); beyond, every metric computes it in blocks."""


class Evaluated(NamedTuple):
    """Metrics of a split, and the biases of its inductive row.

    Attributes:
      metrics: {"text_to_video", "video_to_text"}, each {"plain", "inductive", "inductive_auto",
        "transductive"} and, where it is asked for, "online", each with R@1, R@5, R@10, R@50
        (percent), MdR, MnR, norm_error_mean, norm_error_max, and `hubness` {"k=1", "k=10"};
        "video_to_text_best_caption" with the same rows by the other public rule; `fit`: evidence of
        the biases of both sides by row, for `inductive_auto` also what was chosen and why; `bank`:
        of each direction `source`, its name, and `queries`, how many; `rules` and `counts`.
      biases: of the bank's texts and of the test videos; None where pairs are scored.
    """

    metrics: dict[str, Any]
    biases: Biases | None


def evaluate(
    test: Embedded, banks: Banks, scorer: Scorer, iterations: int, online: int = 0
) -> Evaluated:
    """Retrieval metrics of a split, plain and normalised.

    Args:
      test: the split under evaluation.
      banks: what the normalisers are fitted on, see `banks.bank_of`.
      scorer: the model's.
      iterations: of Sinkhorn, for the fixed normalisers of both kinds.
      online: queries between two refits of the row "online", in a random order; 0 for none.

    Raises:
      ValueError: a clip that does not count exactly once, by name.
    """
    metrics.check_ids(test.video_ids, sorted(set(test.video_ids)))
    found: dict[str, Any] = {
        "text_to_video": {}, "video_to_text": {}, "video_to_text_best_caption": {}, "fit": {},
    }  # fmt: skip
    biases = None
    for name, fit in scorer.fits(test, banks, iterations, online):
        biases = biases or fit.biases
        if fit.evidence is not None:
            found["fit"][name] = fit.evidence
        rows = score(fit.by_text, fit.by_video, test.video_of_text)
        for direction, row in rows.items():
            found[direction][name] = row
    found["bank"] = bank = {
        direction: {"source": (of := found["fit"]["inductive"][side])["source"],
                    "queries": of["bank"]}
        for direction, side in (("text_to_video", "video"), ("video_to_text", "text"))
    }  # fmt: skip
    found["rules"] = {
        "ties": TIE_RULE,
        "video_to_text": VIDEO_RULE,
        "video_to_text_best_caption": "best_caption",
        "column_mass": "texts / videos for every video",
        "normaliser": scorer.normaliser(iterations),
    }
    found["counts"] = {
        "test": {"texts": len(test.text), "videos": len(test.video)},
        "bank": {"texts": bank["text_to_video"]["queries"],
                 "videos": bank["video_to_text"]["queries"]},
    }  # fmt: skip
    return Evaluated(found, biases)


def score(by_text: Any, by_video: Any, video_of_text: Int[np.ndarray, " text"]) -> dict[str, Any]:
    """One row of each direction from scores [text, video] and, transposed, [video, text]."""
    by_text, by_video = (x[:] if np.prod(x.shape) <= HELD else x for x in (by_text, by_video))
    balance = _balance(by_text), _balance(by_video)
    return {
        "text_to_video": metrics.text_to_video(by_text, video_of_text, TIE_RULE) | balance[0],
        "video_to_text": balance[1]
        | metrics.video_to_text(by_video.T, video_of_text, TIE_RULE, VIDEO_RULE),
        "video_to_text_best_caption": metrics.video_to_text(
            by_video.T, video_of_text, TIE_RULE, "best_caption"
        ),
    }


def plain_recall(split: Embedded, scorer: Scorer) -> dict[str, float]:
    """R@1 of plain scores in both directions: the cheap number watched during training."""
    scores = scorer.scores(split.text, split.video)
    t2v = metrics.text_to_video(scores, split.video_of_text, TIE_RULE)
    v2t = metrics.video_to_text(scores, split.video_of_text, TIE_RULE, VIDEO_RULE)
    return {"text_to_video_R@1": t2v["R@1"], "video_to_text_R@1": v2t["R@1"]}


def in_batch_error(
    train: Embedded, scorer: Scorer, batch_size: int, iterations: int, seed: int
) -> dict[str, float]:
    """Normalisation error inside random training batches, mean over both sides.

    Returns:
      `plain`: of the raw scores (what InfoNCE trains on); `normalised`: of the scores with the
      batch's own Sinkhorn biases (what NCL trains on).
    """
    plain, normalised = [], []
    for pick in _batches(len(train.text), batch_size, seed):
        text, video = train.text[pick], train.video[train.video_of_text[pick]]
        scores = jnp.asarray(scorer.scores(text, video))
        ones = jnp.ones(len(pick))
        biases, _ = sinkhorn.solve(scores, ones, ones, iterations=iterations)
        biased = scores + biases.text[:, None] + biases.video[None, :]
        plain.append(_both_sides(scores))
        normalised.append(_both_sides(biased))
    return {"plain": float(np.mean(plain)), "normalised": float(np.mean(normalised))}


def order_accuracy(
    test: Embedded,
    pairs: Sequence[tuple[int, int]],
    video: Float[np.ndarray, "video ..."],
    scorer: Scorer,
) -> dict[str, float]:
    """How often a caption prefers its clip to the twin that shows the same frames reordered.

    Args:
      test: gives the texts.
      pairs: indices of twins.
      video: what the encoder gives for the test clips.
      scorer: the model's.

    Returns:
      `accuracy` in percent (a tie counts one half, chance is 50) over `texts` captions.
    """
    twin = dict(pairs) | {b: a for a, b in pairs}
    texts = np.flatnonzero(np.isin(test.video_of_text, list(twin)))
    own = test.video_of_text[texts]
    other = np.asarray([twin[v] for v in own])
    margin = scorer.margin(test.text[texts], video, own, other)
    won = np.mean(margin > 0) + np.mean(margin == 0) / 2
    return {"accuracy": 100 * float(won), "texts": len(texts)}


def _batches(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of random batches, none of them in two."""
    order = np.random.default_rng(seed).permutation(count)
    size = min(batch_size, count)
    for first in range(0, min(IN_BATCH_BATCHES * size, count - size + 1), size):
        yield order[first : first + size]


def _balance(scores: Any) -> dict[str, Any]:
    """Normalisation error and hubness of the gallery of scores [query, gallery]."""
    queries, items = scores.shape
    # The same equal shares that the normaliser is fitted to: only so can the error reach 0.
    error = metrics.normalization_error(scores, np.ones(queries), np.full(items, queries / items))
    # Rows are queries here, so the gallery is on the side of the columns.
    return {
        "norm_error_mean": error["video_mean"],
        "norm_error_max": error["video_max"],
        "hubness": {f"k={k}": metrics.hubness(scores, k) for k in HUB_LISTS if k <= items},
    }


def _both_sides(scores: Any) -> float:
    """Mean normalisation error of a square score matrix, over both sides."""
    ones = np.ones(scores.shape[0])
    error = metrics.normalization_error(np.asarray(scores), ones, ones)
    return (error["video_mean"] + error["text_mean"]) / 2
