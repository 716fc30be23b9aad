"""How a model scores captions against clips: by the cosine of vectors, or pair by pair.

Everything that evaluation needs of the difference is in these two classes. A `Fit` has the scores
of both directions under one normaliser; *inductive* ones treat every test query alone, with biases
fitted on a bank, *transductive* ones look at all test queries together, *online* ones at those
before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ncl_jax import normalizers, sinkhorn
from ncl_jax.errors import InputError
from ncl_jax.evaluation.banks import Banks
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.normalizers import BiasFitted
from ncl_jax.normalizers.auto import choose_bank
from ncl_jax.normalizers.online import OnlineFitted
from ncl_jax.scores import logits
from ncl_jax.types import Biases

ORDER = 0
"""Seed of the order in which test queries arrive where they are answered online."""


class Fit(NamedTuple):
    """Scores of a test split under one normaliser.

    Attributes:
      by_text: [text, video], which may be computed as it is read.
      by_video: [video, text], likewise.
      evidence: of the biases of either side, {"video", "text"}; None where there are none. In
        those of the bank, `source` is its name.
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

    def fits(
        self, test: Embedded, banks: Banks, iterations: int, online: int = 0
    ) -> Iterator[tuple[str, Fit]]:
        """(name, fit) of every row of a result: "plain" first, then "inductive" and so on.

        Args:
          test: what is ranked.
          banks: of both directions; of several, `auto` chooses, and the fixed row keeps to it.
          iterations: of Sinkhorn, for the fixed rows.
          online: queries between two refits; 0 for no such row.
        """
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

    def fits(
        self, test: Embedded, banks: Banks, iterations: int, online: int = 0
    ) -> Iterator[tuple[str, Fit]]:
        found = [choose_bank(side.pairs, side.queries) for side in banks]
        names = [name for name, _, _ in found]
        given = [normalizers.Bank(side.of(n)) for side, n in zip(banks, names, strict=True)]
        chosen = [choice.normalizer for _, choice, _ in found]
        told = [{"source": name} | evidence for name, _, evidence in found]
        source = [{"source": name} for name in names]

        def fit(rules: Sequence[Any], told: Sequence[dict[str, Any]]) -> Fit:
            items = test.video, test.text
            video, text = (n.fit(*x) for n, *x in zip(rules, given, items, strict=True))
            return self._fit(video, text, test, told)

        yield "plain", fit([normalizers.Plain(scale=self.scale)] * 2, [{}, {}])
        fixed = normalizers.Ncl(scale=self.scale, iterations=iterations)
        yield "inductive", fit([fixed] * 2, source)
        yield "inductive_auto", fit(chosen, told)
        everyone = normalizers.SinkhornTest(scale=self.scale, iterations=iterations)
        yield "transductive", fit([everyone] * 2, [{}, {}])
        if online:
            yield "online", fit([normalizers.Online(online, n, ORDER) for n in chosen], source)

    def normaliser(self, iterations: int) -> str:
        return f"ncl, {iterations} iterations, scale {self.scale:.4g}"

    def _fit(
        self, video_side: Any, text_side: Any, test: Embedded, told: Sequence[dict[str, Any]]
    ) -> Fit:
        evidence = biases = None
        if isinstance(video_side, BiasFitted | OnlineFitted):
            evidence = {
                "video": video_side.evidence | told[0], "text": text_side.evidence | told[1]
            }  # fmt: skip
            # Normalisation errors compare at one temperature only, the model's.
            video_side, text_side = video_side.at_scale(self.scale), text_side.at_scale(self.scale)
        if isinstance(video_side, BiasFitted) and video_side.bank_bias is not None:
            biases = Biases(video_side.bank_bias, video_side.bias)
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

    def fits(
        self, test: Embedded, banks: Banks, iterations: int, online: int = 0
    ) -> Iterator[tuple[str, Fit]]:
        names = [list(side.queries) for side in banks]
        if online or any(len(name) > 1 for name in names):
            raise InputError(
                "a head that scores pairs has one bank and no online row, got "
                f"{', '.join(names[0])} and online={online}; leave out the others"
            )
        text, video = (side.of(name) for side, (name,) in zip(banks, names, strict=True))
        scores = self.scores(test.text, test.video)
        yield "plain", Fit(scores, scores.T)
        for row, by_text, by_video, told in (
            ("inductive", self.scores(text, test.video), self.scores(test.text, video).T,
             [{"source": name} for (name,) in names]),
            ("transductive", scores, scores.T, [{}, {}]),
        ):  # fmt: skip
            to_video, video_evidence = _balance(by_text, iterations)
            to_text, text_evidence = _balance(by_video, iterations)
            evidence = {"video": video_evidence | told[0], "text": text_evidence | told[1]}
            yield row, Fit(scores + to_video, scores.T + to_text, evidence)

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
