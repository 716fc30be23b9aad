"""Embed a split once, score it plain and normalised, in both directions.

Plain scores always come first. An *inductive* row fits its biases on the train bank and treats
every test query alone; a *transductive* row looks at all test queries together. The two are kept
apart everywhere.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ncl_jax import metrics, normalizers, sinkhorn
from ncl_jax.normalizers import BiasFitted
from ncl_jax.scores import logits

TIE_RULE: metrics.TieRule = "average"
VIDEO_RULE: metrics.VideoRule = "group_max"
IN_BATCH_BATCHES = 20


class Embedded(NamedTuple):
    """A split in the shared space: one row per caption and per clip, unit norm, float32."""

    text: Float[np.ndarray, "text dim"]
    video: Float[np.ndarray, "video dim"]
    video_of_text: Int[np.ndarray, " text"]


def embed(
    encode: Callable[..., Array], batches: Iterable[tuple[np.ndarray, ...]], count: int
) -> Float[np.ndarray, "row dim"]:
    """Rows of all batches in order, cut to `count`: only the last batch may be padded."""
    rows = [np.asarray(encode(*batch)) for batch in batches]
    found = sum(map(len, rows))
    if not rows or not found - len(rows[-1]) < count <= found:
        raise ValueError(f"expected {count} rows to embed, the input has {found}")
    return np.concatenate(rows)[:count]


def embed_captions(
    captions: Sequence[str], encode: Callable[[list[str]], np.ndarray]
) -> Float[np.ndarray, "text dim"]:
    """Each different string is embedded once, so that equal captions tie exactly."""
    different, place = np.unique(np.asarray(captions, dtype=object).astype(str),
                                 return_inverse=True)
    return encode(different.tolist())[place]


def evaluate(test: Embedded, bank: Embedded, scale: float, iterations: int) -> dict[str, Any]:
    """Retrieval metrics of a split, plain and normalised.

    Args:
      test: the split under evaluation.
      bank: the train split.
      scale: logits per cosine.
      iterations: of Sinkhorn, for both kinds of normalisation.

    Returns:
      `fit`: evidence of the biases (error, iterations, converged) of both sides, by row; and
      {"text_to_video", "video_to_text"}, each {"plain", "inductive", "transductive"}, each with
      R@1, R@5, R@10, R@50 (percent), MdR, MnR and norm_error_mean, norm_error_max; and the rules
      by which these were computed.
    """
    rows: dict[str, Any] = {"text_to_video": {}, "video_to_text": {}}
    fit: dict[str, Any] = {}
    for name, normalizer in (
        ("plain", normalizers.Plain(scale=scale)),
        ("inductive", normalizers.Ncl(scale=scale, iterations=iterations)),
        ("transductive", normalizers.SinkhornTest(scale=scale, iterations=iterations)),
    ):
        video_side = normalizer.fit(normalizers.Bank(bank.text), test.video)
        text_side = normalizer.fit(normalizers.Bank(bank.video), test.text)
        by_text, by_video = video_side.lazy(test.text), text_side.lazy(test.video).T
        if isinstance(video_side, BiasFitted) and isinstance(text_side, BiasFitted):
            fit[name] = {"video": video_side.evidence, "text": text_side.evidence}
        of = test.video_of_text
        rows["text_to_video"][name] = metrics.text_to_video(
            by_text, of, TIE_RULE
        ) | _norm_error(by_text, "video")
        rows["video_to_text"][name] = metrics.video_to_text(
            by_video, of, TIE_RULE, VIDEO_RULE
        ) | _norm_error(by_video, "text")
    return rows | {
        "fit": fit,
        "rules": {
            "ties": TIE_RULE,
            "video_to_text": VIDEO_RULE,
            "column_mass": "texts / videos for every video",
            "normaliser": f"ncl, {iterations} iterations, scale {scale:.4g}",
        },
        "counts": {
            "test": {"texts": len(test.text), "videos": len(test.video)},
            "bank": {"texts": len(bank.text), "videos": len(bank.video)},
        },
    }


def plain_recall(split: Embedded) -> dict[str, float]:
    """R@1 of plain cosines in both directions: the cheap number watched during training."""
    scores = np.asarray(logits(jnp.asarray(split.text), jnp.asarray(split.video), 1.0))
    t2v = metrics.text_to_video(scores, split.video_of_text, TIE_RULE)
    v2t = metrics.video_to_text(scores, split.video_of_text, TIE_RULE, VIDEO_RULE)
    return {"text_to_video_R@1": t2v["R@1"], "video_to_text_R@1": v2t["R@1"]}


def in_batch_error(
    train: Embedded, scale: float, batch_size: int, iterations: int, seed: int
) -> dict[str, float]:
    """Normalisation error inside random training batches, mean over both sides.

    Returns:
      `plain`: of the raw scores (what InfoNCE trains on); `normalised`: of the scores with the
      batch's own Sinkhorn biases (what NCL trains on).
    """
    order = np.random.default_rng(seed).permutation(len(train.text))
    count = min(batch_size, len(order))
    plain, normalised = [], []
    for first in range(0, min(IN_BATCH_BATCHES * count, len(order) - count + 1), count):
        pick = order[first : first + count]
        text, video = train.text[pick], train.video[train.video_of_text[pick]]
        scores = logits(jnp.asarray(text), jnp.asarray(video), scale)
        ones = jnp.ones(count)
        biases, _ = sinkhorn.solve(scores, ones, ones, iterations=iterations)
        biased = scores + biases.text[:, None] + biases.video[None, :]
        plain.append(_both_sides(scores))
        normalised.append(_both_sides(biased))
    return {"plain": float(np.mean(plain)), "normalised": float(np.mean(normalised))}


def order_accuracy(
    test: Embedded, pairs: Sequence[tuple[int, int]], video: Float[np.ndarray, "video dim"]
) -> dict[str, float]:
    """How often a caption prefers its clip to the twin that shows the same frames reordered.

    Args:
      test: gives the texts.
      pairs: indices of twins.
      video: embeddings of the test clips.

    Returns:
      `accuracy` in percent (a tie counts one half, chance is 50) over `texts` captions.
    """
    twin = dict(pairs) | {b: a for a, b in pairs}
    texts = np.flatnonzero(np.isin(test.video_of_text, list(twin)))
    own = test.video_of_text[texts]
    other = np.asarray([twin[v] for v in own])
    margin = np.sum(test.text[texts] * (video[own] - video[other]), axis=1)
    won = np.mean(margin > 0) + np.mean(margin == 0) / 2
    return {"accuracy": 100 * float(won), "texts": len(texts)}


def _norm_error(scores: Any, side: str) -> dict[str, float]:
    texts, videos = scores.shape
    # The same equal shares that the normaliser is fitted to: only so can the error reach 0.
    error = metrics.normalization_error(scores, np.ones(texts), np.full(videos, texts / videos))
    return {f"norm_error_{kind}": error[f"{side}_{kind}"] for kind in ("mean", "max")}


def _both_sides(scores: jax.Array) -> float:
    ones = np.ones(scores.shape[0])
    error = metrics.normalization_error(np.asarray(scores), ones, ones)
    return (error["video_mean"] + error["text_mean"]) / 2
