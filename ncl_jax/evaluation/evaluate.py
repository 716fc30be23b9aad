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
from etils import epath
from jaxtyping import Array, Float, Int

from ncl_jax import metrics, normalizers, sinkhorn
from ncl_jax.errors import InputError
from ncl_jax.files import replaced
from ncl_jax.normalizers import BiasFitted
from ncl_jax.scores import logits

TIE_RULE: metrics.TieRule = "average"
VIDEO_RULE: metrics.VideoRule = "group_max"
IN_BATCH_BATCHES = 20
HUB_LISTS = (1, 10)
HELD = 1 << 26
"""Scores up to which a matrix is held (256 MB); beyond, every metric computes it in blocks."""


class Embedded(NamedTuple):
    """A split in the shared space: one row per caption and per clip, unit norm, float32."""

    text: Float[np.ndarray, "text dim"]
    video: Float[np.ndarray, "video dim"]
    video_of_text: Int[np.ndarray, " text"]
    video_ids: Sequence[str]
    captions: Sequence[str] = ()  # the words of `text`, where they are known


def embed(
    encode: Callable[..., tuple[Array, Array]],
    batches: Iterable[tuple[np.ndarray, ...]],
    count: int,
) -> Float[np.ndarray, "row dim"]:
    """All items of a split in order, whichever process or device embedded them.

    Args:
      encode: (ids, *rest of a batch) -> (ids, embeddings) of all processes; id -1 is padding.
      batches: with the ids 0 to count - 1, each exactly once over all processes.
      count: of items.

    Raises:
      ValueError: an id is missing or came twice.
    """
    seen = np.zeros(count, int)
    rows = np.zeros((count, 0), np.float32)
    for batch in batches:
        ids, found = (np.asarray(x) for x in encode(*batch))
        live = ids >= 0
        if not rows.size:
            rows = np.zeros((count, *found.shape[1:]), found.dtype)
        np.add.at(seen, ids[live], 1)
        rows[ids[live]] = found[live]
    if (seen != 1).any():
        raise InputError(
            f"expected each of {count} rows to be embedded once, got {np.sum(seen == 0)} missing "
            f"and {np.sum(seen > 1)} repeated"
        )
    return rows


def embed_captions(
    captions: Sequence[str], encode: Callable[[list[str]], np.ndarray]
) -> Float[np.ndarray, "text dim"]:
    """Each different string is embedded once, so that equal captions tie exactly."""
    different, place = np.unique(np.asarray(captions, dtype=object).astype(str),
                                 return_inverse=True)
    return encode(different.tolist())[place]


def sample(split: Embedded, clips: int, captions: int, seed: int) -> Embedded:
    """A bank of random clips, and of random captions of each, in the order of the split.

    Args:
      split: to draw from, without replacement.
      clips: how many; 0, or more than there are, for all.
      captions: of each clip; likewise.
      seed: of the draw; the clips do not depend on `captions`.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(split.video))[: clips or None])
    place = np.full(len(split.video), -1)
    place[drawn] = np.arange(len(drawn))
    order = rng.permutation(len(split.text))
    by_clip = order[np.argsort(split.video_of_text[order], kind="stable")]
    of = split.video_of_text[by_clip]
    turn = np.arange(len(of)) - np.searchsorted(of, of)  # a caption's number within its clip
    texts = np.sort(by_clip[(place[of] >= 0) & (turn < (captions or len(of)))])
    return Embedded(
        split.text[texts],
        split.video[drawn],
        place[split.video_of_text[texts]],
        [split.video_ids[i] for i in drawn],
        [split.captions[i] for i in texts] if split.captions else (),
    )


def evaluate(test: Embedded, bank: Embedded, scale: float, iterations: int) -> dict[str, Any]:
    """Retrieval metrics of a split, plain and normalised.

    Args:
      test: the split under evaluation.
      bank: the train split.
      scale: logits per cosine.
      iterations: of Sinkhorn, for the fixed normalisers of both kinds.

    Returns:
      {"text_to_video", "video_to_text"}, each {"plain", "inductive", "inductive_auto",
      "transductive"}, each with R@1, R@5, R@10, R@50 (percent), MdR, MnR, norm_error_mean,
      norm_error_max, and `hubness` {"k=1", "k=10"}; "video_to_text_best_caption" with the same
      rows by the other public rule; `fit`: evidence of the biases of both sides by row, for
      `inductive_auto` also what was chosen and why; `rules` and `counts`.

    Raises:
      ValueError: a clip that does not count exactly once, by name.
    """
    for split in (test, bank):
        metrics.check_ids(split.video_ids, sorted(set(split.video_ids)))
    found: dict[str, Any] = {
        "text_to_video": {}, "video_to_text": {}, "video_to_text_best_caption": {}, "fit": {},
    }  # fmt: skip
    for name, normalizer in (
        ("plain", normalizers.Plain(scale=scale)),
        ("inductive", normalizers.Ncl(scale=scale, iterations=iterations)),
        ("inductive_auto", normalizers.Auto()),
        ("transductive", normalizers.SinkhornTest(scale=scale, iterations=iterations)),
    ):
        ids = np.arange(len(bank.video))
        by_text = normalizers.Bank(bank.text, bank.video, bank.video_of_text, ids)
        by_video = normalizers.Bank(bank.video, bank.text, ids, bank.video_of_text)
        video_side = normalizer.fit(by_text, test.video)
        text_side = normalizer.fit(by_video, test.text)
        if isinstance(video_side, BiasFitted) and isinstance(text_side, BiasFitted):
            found["fit"][name] = {"video": video_side.evidence, "text": text_side.evidence}
            # Normalisation errors compare at one temperature only, the model's.
            video_side, text_side = video_side.at_scale(scale), text_side.at_scale(scale)
        rows = score(video_side.lazy(test.text), text_side.lazy(test.video), test.video_of_text)
        for direction, row in rows.items():
            found[direction][name] = row
    normaliser = f"ncl, {iterations} iterations, scale {scale:.4g}"
    return found | rules_and_counts(test, bank, normaliser)


def rules_and_counts(test: Embedded, bank: Embedded, normaliser: str) -> dict[str, Any]:
    """`rules` and `counts`: by which rules, and of how many items, the metrics are."""
    return {
        "rules": {
            "ties": TIE_RULE,
            "video_to_text": VIDEO_RULE,
            "video_to_text_best_caption": "best_caption",
            "column_mass": "texts / videos for every video",
            "normaliser": normaliser,
        },
        "counts": {
            "test": {"texts": len(test.text), "videos": len(test.video)},
            "bank": {"texts": len(bank.text), "videos": len(bank.video)},
        },
    }


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


def save_embeddings(path: epath.Path, test: Embedded, bank: Embedded, scale: float) -> None:
    """What `python -m ncl_jax.cli.normalize --embeddings` reads: a `.npz`, whole or absent."""
    with replaced(path) as stream:
        np.savez(
            stream,
            text=test.text, video=test.video, video_of_text=test.video_of_text,
            bank_text=bank.text, bank_video=bank.video, bank_video_of_text=bank.video_of_text,
            video_ids=np.asarray(test.video_ids, str), scale=scale,
        )  # fmt: skip


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
        plain.append(both_sides(scores))
        normalised.append(both_sides(biased))
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


def both_sides(scores: jax.Array) -> float:
    """Mean normalisation error of a square score matrix, over both sides."""
    ones = np.ones(scores.shape[0])
    error = metrics.normalization_error(np.asarray(scores), ones, ones)
    return (error["video_mean"] + error["text_mean"]) / 2
