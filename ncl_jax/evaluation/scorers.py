"""How a model scores captions against clips: by the cosine of vectors, or pair by pair.

Everything that evaluation needs of the difference is in these two classes. A `Fit` has the scores
of both directions under one normaliser; *inductive* ones treat every test query alone, with biases
fitted on the train bank, *transductive* ones look at all test queries together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ncl_jax import normalizers, sinkhorn
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.normalizers import BiasFitted
from ncl_jax.scores import logits
from ncl_jax.types import Biases


class Fit(NamedTuple):
    """Scores of a test split under one normaliser.

    Attributes:
      by_text: [text, video], which may be computed as it is read.
      by_video: [video, text], likewise.
      evidence: of the biases of either side, {"video", "text"}; None where there are none.
      biases: of the bank's texts and of the test videos, where these are vectors to be searched.
    """

    by_text: Any
    by_video: Any
    evidence: dict[str, Any] | None = None
    biases: Biases | None = None


@runtime_checkable
class Scorer(Protocol):
    """Scores of a model, in logits."""

    def scores(self, text: np.ndarray, video: np.ndarray) -> Float[np.ndarray, "text video"]:
        """Of all pairs of what the model's encoders give."""
        ...

    def margin(
        self, text: np.ndarray, video: np.ndarray, own: np.ndarray, other: np.ndarray
    ) -> Float[np.ndarray, " text"]:
        """By how much each text prefers the video numbered `own` to the one numbered `other`."""
        ...

    def fits(self, test: Embedded, bank: Embedded, iterations: int) -> Iterator[tuple[str, Fit]]:
        """(name, fit) of every row of a result: "plain" first, then "inductive" and so on."""
        ...

    def normaliser(self, iterations: int) -> str:
        """In words, which normaliser the fixed rows have."""
        ...


@dataclass(frozen=True)
class CosineScorer:
    """`scale * cosine`, with `scale` logits per cosine."""

    scale: float

    def scores(self, text: np.ndarray, video: np.ndarray) -> Float[np.ndarray, "text video"]:
        return np.asarray(logits(jnp.asarray(text), jnp.asarray(video), self.scale))

    def margin(
        self, text: np.ndarray, video: np.ndarray, own: np.ndarray, other: np.ndarray
    ) -> Float[np.ndarray, " text"]:
        return np.sum(text * (video[own] - video[other]), axis=1)

    def fits(self, test: Embedded, bank: Embedded, iterations: int) -> Iterator[tuple[str, Fit]]:
        ids = np.arange(len(bank.video))
        by_text = normalizers.Bank(bank.text, bank.video, bank.video_of_text, ids)
        by_video = normalizers.Bank(bank.video, bank.text, ids, bank.video_of_text)
        for name, normalizer in (
            ("plain", normalizers.Plain(scale=self.scale)),
            ("inductive", normalizers.Ncl(scale=self.scale, iterations=iterations)),
            ("inductive_auto", normalizers.Auto()),
            ("transductive", normalizers.SinkhornTest(scale=self.scale, iterations=iterations)),
        ):
            sides = normalizer.fit(by_text, test.video), normalizer.fit(by_video, test.text)
            yield name, self._fit(*sides, test)

    def normaliser(self, iterations: int) -> str:
        return f"ncl, {iterations} iterations, scale {self.scale:.4g}"

    def _fit(self, video_side: Any, text_side: Any, test: Embedded) -> Fit:
        evidence = biases = None
        if isinstance(video_side, BiasFitted) and isinstance(text_side, BiasFitted):
            evidence = {"video": video_side.evidence, "text": text_side.evidence}
            if video_side.bank_bias is not None:
                biases = Biases(video_side.bank_bias, video_side.bias)
            # Normalisation errors compare at one temperature only, the model's.
            video_side, text_side = video_side.at_scale(self.scale), text_side.at_scale(self.scale)
        return Fit(video_side.lazy(test.text), text_side.lazy(test.video), evidence, biases)


class PairScorer:
    """A head that reads caption and clip together; biases are fitted to its scores.

    Cost: (bank texts + test texts) x test videos + test texts x bank videos pairs.
    """

    def __init__(self, score: Callable[..., Array], size: int):
        """`score`: (text, video) -> logits of all pairs, compiled for `size` x `size`."""
        self._score, self._size = score, size

    def scores(self, text: np.ndarray, video: np.ndarray) -> Float[np.ndarray, "text video"]:
        """Equal captions are scored once, so that they tie exactly."""
        different, place = np.unique(text, axis=0, return_inverse=True)
        size, rows = self._size, []
        for t in range(0, len(different), size):
            own = different[t : t + size]
            parts = [
                np.asarray(self._score(_padded(own, size), _padded(video[v : v + size], size)))
                for v in range(0, len(video), size)
            ]
            rows.append(np.concatenate(parts, axis=1)[: len(own), : len(video)])
        return np.concatenate(rows)[place]

    def margin(
        self, text: np.ndarray, video: np.ndarray, own: np.ndarray, other: np.ndarray
    ) -> Float[np.ndarray, " text"]:
        scores, place = self.scores(text, video), np.arange(len(text))
        return scores[place, own] - scores[place, other]

    def fits(self, test: Embedded, bank: Embedded, iterations: int) -> Iterator[tuple[str, Fit]]:
        scores = self.scores(test.text, test.video)
        yield "plain", Fit(scores, scores.T)
        for name, by_text, by_video in (
            ("inductive", self.scores(bank.text, test.video), self.scores(test.text, bank.video).T),
            ("transductive", scores, scores.T),
        ):
            video, video_evidence = _balance(by_text, iterations)
            text, text_evidence = _balance(by_video, iterations)
            evidence = {"video": video_evidence, "text": text_evidence}
            yield name, Fit(scores + video, scores.T + text, evidence)

    def normaliser(self, iterations: int) -> str:
        return f"ncl, {iterations} iterations, on the head's logits"


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
