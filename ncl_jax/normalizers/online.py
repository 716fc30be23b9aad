"""Biases that follow the traffic: fitted on the bank and on the queries already answered.

Neither inductive nor transductive. A query is scored by what was seen before it, never by itself or
by a later one; once answered, it joins the bank. Its score depends on the queries before it, so a
row of these scores stands by itself, labelled "online".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from ncl_jax.errors import InputError
from ncl_jax.normalizers.auto import choose
from ncl_jax.normalizers.base import Bank, BiasFitted, Kind, LazyScores, TurnedRows, checked

EVERY = 100
"""Queries between two refits by default."""


@dataclass(frozen=True)
class Online:
    """A normaliser of biases, fitted anew after every `every` queries that were answered.

    Query i, counted from 0, is scored with biases of the bank and of the first
    `every * floor(i / every)` queries.

    Args:
      every: queries between two refits, >= 1.
      normalizer: of the kind that `fit(bank, gallery)` gives a `BiasFitted`; None: plain scores or
        NCL, as `Auto` chooses on the bank's pairs, once, before the first query.
      order: seed of the order in which the queries of one call arrive; None: as they stand. Where
        the texts of one video stand together, their order is not that of traffic.
      seed: of `Auto`'s sample.

    Cost: a refit is a fit to bank + answered queries, and every answered query is kept. A query
    that was answered counts as one of the bank although its item may be in the gallery.

    Relations: the first `every` queries rank as `normalizer` alone does. `SinkhornTest` sees all
    queries at once.

    Example:
      >>> from ncl_jax.normalizers import Ncl
      >>> fitted = Online(every=2, normalizer=Ncl(10.0)).fit(Bank(np.eye(3)), np.eye(3))
      >>> fitted.kind, fitted.score(np.eye(3)).shape
      ('online', (3, 3))
    """

    every: int = EVERY
    normalizer: Any = None
    order: int | None = None
    seed: int = 0
    kind: ClassVar[Kind] = "online"

    def fit(self, bank: Bank, gallery: np.ndarray) -> "OnlineFitted":
        """The state before the first query; `gallery` [item, dim], unit norm as the bank.

        Raises:
          ValueError: `every` below 1, and all that the normaliser refuses; the bank has no items
            where `Auto` is to choose.
        """
        if self.every < 1:
            raise InputError(f"every: expected at least 1 query between refits, got {self.every}")
        gallery = checked(gallery, "gallery")
        normalizer, evidence = self.normalizer, dict[str, Any]()
        if normalizer is None:
            choice, evidence = choose(bank, self.seed)
            normalizer = choice.normalizer
        first = normalizer.fit(bank, gallery)
        evidence = first.evidence | evidence | {"every": self.every}
        return OnlineFitted(bank.query, normalizer, first, self.every, self.order, evidence)


@dataclass(frozen=True)
class OnlineFitted:
    """See `Online`. Every call of `score` or `lazy` starts from the bank; `stream` remembers.

    Example:
      >>> from ncl_jax.normalizers import Ncl
      >>> fitted = Online(every=1, normalizer=Ncl(10.0)).fit(Bank(np.eye(3)), np.eye(3))
      >>> stream = fitted.stream()
      >>> found = np.concatenate([stream.answer(np.eye(3)[:1]), stream.answer(np.eye(3)[1:])])
      >>> np.array_equal(found, fitted.score(np.eye(3)))
      True
    """

    bank: np.ndarray
    normalizer: Any
    first: BiasFitted
    every: int
    order: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "online"

    def stream(self) -> "Stream":
        """One that answers blocks of queries as they come."""
        return Stream(self)

    def refitted(self, answered: np.ndarray) -> BiasFitted:
        """The scorer after these queries [answered, dim]."""
        if not len(answered):
            return self.first
        bank = Bank(np.concatenate([self.bank, answered]))
        fitted = self.normalizer.fit(bank, self.first.gallery)
        return replace(fitted.at_scale(self.first.scale), evidence={})

    def at_scale(self, scale: float) -> "OnlineFitted":
        """The same ranking with `scale` logits per cosine."""
        return replace(self, first=self.first.at_scale(scale))

    def score(self, query: np.ndarray) -> np.ndarray:
        """Scores of queries [query, dim] in the order of arrival, float32 [query, gallery]."""
        return self.lazy(query)[:]

    def lazy(self, query: np.ndarray) -> "OnlineScores":
        """`score(query)`, computed as it is read; the refits are made now."""
        query = checked(query, "queries", self.first.gallery.shape[1])
        arrival = np.arange(len(query))
        if self.order is not None:
            arrival = np.random.default_rng(self.order).permutation(len(query))
        starts = range(0, len(query), self.every)
        bias = np.stack([self.refitted(query[arrival[:start]]).bias for start in starts])
        fit_of = np.empty(len(query), int)
        fit_of[arrival] = np.arange(len(query)) // self.every
        return OnlineScores(LazyScores(query, self.first.gallery, self.first.scale), bias, fit_of)


class Stream:
    """Answers queries as they come, and learns from those it has answered.

    Attributes:
      answered: how many queries have been answered.
      refits: how often the biases were fitted anew.
    """

    def __init__(self, fitted: OnlineFitted):
        self._fitted, self._scorer = fitted, fitted.first
        self._seen: list[np.ndarray] = []
        self.answered = self.refits = 0

    def answer(self, query: np.ndarray) -> np.ndarray:
        """Scores of the next queries [query, dim], float32 [query, gallery], in this order.

        How the queries are cut into calls does not change their scores.

        Raises:
          ValueError: queries of another width than the gallery's, or not finite.
        """
        query = checked(query, "queries", self._fitted.first.gallery.shape[1])
        parts: list[np.ndarray] = []
        while len(query):
            every = self._fitted.every
            if self.answered and self.answered % every == 0:
                self._refit()
            room = every - self.answered % every
            parts.append(self._scorer.score(query[:room]))
            self._seen.append(query[:room])
            self.answered += len(parts[-1])
            query = query[room:]
        return np.concatenate(parts)

    def _refit(self) -> None:
        self._seen = [np.concatenate(self._seen)]
        self._scorer = self._fitted.refitted(self._seen[0])
        self.refits += 1


@dataclass(frozen=True)
class OnlineScores:
    """Scores [query, gallery] whose biases differ from block to block of the queries' arrival.

    Args:
      plain: scores without bias [query, gallery].
      bias: of every fit, [fit, gallery], in the units of `plain`.
      fit_of: which fit each query is scored with, [query].

    Example:
      >>> plain = LazyScores(np.eye(2), np.eye(2), 1.0)
      >>> OnlineScores(plain, np.array([[0.0, 0.0], [0.0, 5.0]]), np.array([1, 0]))[:].tolist()
      [[1.0, 5.0], [0.0, 1.0]]
    """

    plain: LazyScores
    bias: np.ndarray
    fit_of: Sequence[int] | np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(queries, items)."""
        return self.plain.shape

    @property
    def row(self) -> np.ndarray:
        """The queries [query, dim]."""
        return self.plain.row

    @property
    def columns(self) -> int:
        """How many items there are."""
        return self.plain.shape[1]

    @property
    def T(self) -> TurnedRows:
        """The transpose, [gallery, query]."""
        return TurnedRows(self)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.plain[rows] + self.bias[np.asarray(self.fit_of)[rows]].astype(np.float32)
