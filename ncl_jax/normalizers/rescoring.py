"""Normalisers that are more than a bias: gated ones, Sinkhorn per query, and the transductive.

Notation as in `biases`. The gated ones differ from a bias by a choice per query; the
transductive ones look at all test queries together and are labelled so.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ncl_jax import metrics, sinkhorn
from ncl_jax.normalizers.base import Bank, Kind, LazyRows, LazyScores, checked, first_of_each
from ncl_jax.normalizers.biases import InvertedSoftmax, Ncl, items_of, per_item
from ncl_jax.types import MAX_SCALE


@dataclass(frozen=True)
class GatedFitted:
    """`scale * s_qj + sum of the biases whose gate q opens`; q opens a gate by its top item.

    `bias` [gate, gallery] in logit units, `active` [gate, gallery]: the items that open a gate.
    Scores of different queries are not on one scale: rank rows only, never columns.
    """

    gallery: np.ndarray
    bias: np.ndarray
    active: np.ndarray
    scale: float
    kind: Kind = "inductive"

    def score(self, query: np.ndarray) -> np.ndarray:
        """Logits plus opened biases, float32 [query, gallery]."""
        scores = LazyScores(query, self.gallery, self.scale)[:]
        opened = self.active[:, scores.argmax(axis=1)]  # [gate, query]
        return scores + opened.T.astype(np.float32) @ self.bias

    def lazy(self, query: np.ndarray) -> LazyRows:
        return LazyRows(query, len(self.gallery), self.score)


@dataclass(frozen=True)
class QbNorm:
    """Dynamic inverted softmax: inverted softmax for queries whose top item is in the bank's set.

    The activation set is the union of the bank queries' `k` best gallery items. A query whose
    best item is not in it keeps its plain scores.

    Args:
      beta: logits per cosine; 20 (the authors' default for cosines).
      k: best items per bank query that open the gate, >= 1.

    Source: `ioanacroi/qb-norm`, `dynamic_inverted_softmax.py`.

    Example:
      >>> QbNorm(beta=20.0).fit(Bank(np.eye(2)), np.eye(2)).score(np.eye(2)).shape
      (2, 2)
    """

    beta: float = 20.0
    k: int = 1
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank, gallery: np.ndarray) -> GatedFitted:
        """Gated biases of `gallery` [item, dim] from `bank.query` [bank, dim].

        Raises:
          ValueError: rows that are empty, of different widths or not finite.
        """
        gallery = checked(gallery, "gallery")
        bias = per_item(InvertedSoftmax(self.beta).bias, bank.query, gallery, "bank queries")
        active = activation_set(bank.query, gallery, self.k)
        return GatedFitted(gallery, bias[None], active[None], self.beta)


@dataclass(frozen=True)
class DualDis:
    """DBNorm's Dual-DIS: both factors of `DualIs`, each behind its own gate as in `QbNorm`.

    A closed factor stays `exp(beta s)`; the public code falls back to the raw similarity there,
    which puts the two factors of one product on different scales.

    Args:
      beta: as in `DualIs`.
      item_beta: as in `DualIs`.
      k: as in `QbNorm`.

    Source: as `DualIs`.

    Example:
      >>> fitted = DualDis().fit(Bank(np.eye(2), item=np.eye(2)), np.eye(2))
      >>> fitted.score(np.eye(2)).shape
      (2, 2)
    """

    beta: float = 100 / 1.99
    item_beta: float = 300.0
    k: int = 1
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank, gallery: np.ndarray) -> GatedFitted:
        """Gated biases of `gallery` [item, dim] from `bank.query` and `bank.item` [row, dim].

        Raises:
          ValueError: no `bank.item`; rows that are empty, of different widths or not finite.
        """
        gallery = checked(gallery, "gallery")
        gates = [(bank.query, self.beta, "bank queries"), (items_of(bank), self.item_beta,
                                                           "bank items")]
        bias = [per_item(InvertedSoftmax(beta).bias, rows, gallery, what)
                for rows, beta, what in gates]
        active = [activation_set(rows, gallery, self.k) for rows, _, _ in gates]
        scale = self.beta + self.item_beta
        return GatedFitted(gallery, np.stack(bias), np.stack(active), scale)


@dataclass(frozen=True)
class SinkhornSingle:
    """Sinkhorn with the one query added to the bank; no other test query is seen.

    The query is row `bank + 1` of the problem `Ncl` solves, so its biases answer to it. Formula
    **ours**: the body of arXiv 2311.08143, which proposes a setting without access to other
    queries, could not be read. Costs 2 * iterations products [bank, gallery] per query.

    Args:
      scale: logits per cosine, in (0, 100].
      iterations: pairs of updates, >= 0.

    Example:
      >>> SinkhornSingle(10.0).fit(Bank(np.eye(2)), np.eye(2)).score(np.eye(2)).argmax(1).tolist()
      [0, 1]

    Relations: tends to `Ncl` as the bank grows.
    """

    scale: float = MAX_SCALE
    iterations: int = sinkhorn.PAPER_ITERATIONS
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank, gallery: np.ndarray) -> "SinkhornSingleFitted":
        """Keeps `bank.query` [bank, dim] and `gallery` [item, dim]; each query is solved alone.

        Raises:
          ValueError: rows that are empty, of different widths or not finite.
        """
        gallery = checked(gallery, "gallery")
        query = checked(bank.query, "bank queries", gallery.shape[1])
        return SinkhornSingleFitted(gallery, query, self.scale, self.iterations)


@dataclass(frozen=True)
class SinkhornSingleFitted:
    """See `SinkhornSingle`. float64 and row maxima taken out, so finite at any scale <= 100."""

    gallery: np.ndarray
    bank: np.ndarray
    scale: float
    iterations: int
    kind: Kind = "inductive"

    def score(self, query: np.ndarray) -> np.ndarray:
        """Biased logits [query, gallery]; every row has biases of its own."""
        mass = (len(self.bank) + 1) / len(self.gallery)
        own_logits = LazyScores(query, self.gallery, self.scale)[:]
        bank, bank_top = _stable_exp(LazyScores(self.bank, self.gallery, self.scale)[:])
        own, own_top = _stable_exp(own_logits)
        most = bank_top.max()  # a common factor of the first update, free like any constant
        first = np.exp(bank_top - most)[:, 0] @ bank + np.exp(own_top - most) * own
        item = mass / first  # exp of the item biases, [query, gallery]
        for _ in range(self.iterations):
            text = 1 / (item @ bank.T)  # exp of the bank's biases, [query, bank]
            alone = 1 / np.sum(item * own, axis=1, keepdims=True)
            item = mass / (text @ bank + alone * own)
        return (own_logits + np.log(item)).astype(np.float32)

    def lazy(self, query: np.ndarray) -> LazyRows:
        return LazyRows(query, len(self.gallery), self.score)


@dataclass(frozen=True)
class Dsl:
    """Dual softmax at inference: `S_qj * softmax over the test queries (S_.j / temp)`.

    Transductive; the bank is not used. Negative similarities keep their sign, as in the source.

    Args:
      scale: logits per cosine, > 0: S = scale * s.
      temp: temperature of the softmax over the queries, > 0.

    Source: `metrics.py` of TS2-Net (scale 100, temp 1).

    Example:
      >>> Dsl(scale=10.0).fit(None, np.eye(2)).score(np.eye(2)).round(3).tolist()
      [[10.0, 0.0], [0.0, 10.0]]
    """

    scale: float = MAX_SCALE
    temp: float = 1.0
    kind: ClassVar[Kind] = "transductive"

    def fit(self, bank: Bank | None, gallery: np.ndarray) -> "DslFitted":
        """Keeps `gallery` [item, dim]; all else waits for the queries.

        Raises:
          ValueError: the gallery is empty, not a matrix or not finite.
        """
        return DslFitted(checked(gallery, "gallery"), self.scale, self.temp)


@dataclass(frozen=True)
class DslFitted:
    """See `Dsl`: a first pass over all queries finds the softmax sums, the second scores."""

    gallery: np.ndarray
    scale: float
    temp: float
    kind: Kind = "transductive"

    def score(self, query: np.ndarray) -> np.ndarray:
        """Products of logit and probability, float32 [query, gallery]."""
        return self.lazy(query)[:]

    def lazy(self, query: np.ndarray) -> LazyRows:
        everyone = per_item(
            InvertedSoftmax(self.scale / self.temp).bias, query, self.gallery, "test queries"
        )

        def rows(some: np.ndarray) -> np.ndarray:
            scores = LazyScores(some, self.gallery, self.scale)[:]
            return scores * np.exp(scores / self.temp + everyone)

        return LazyRows(query, len(self.gallery), rows)


@dataclass(frozen=True)
class SinkhornTest:
    """`Ncl` with the test queries as bank: transductive. The given bank is not used.

    Args:
      scale: logits per cosine, > 0.
      iterations: pairs of updates, >= 0.

    Example:
      >>> SinkhornTest(10.0).fit(None, np.eye(2)).score(np.eye(2)).shape
      (2, 2)
    """

    scale: float = MAX_SCALE
    iterations: int = sinkhorn.PAPER_ITERATIONS
    kind: ClassVar[Kind] = "transductive"

    def fit(self, bank: Bank | None, gallery: np.ndarray) -> "SinkhornTestFitted":
        """Keeps `gallery` [item, dim]; the biases are fitted when the queries arrive.

        Raises:
          ValueError: the gallery is empty, not a matrix or not finite.
        """
        return SinkhornTestFitted(checked(gallery, "gallery"), Ncl(self.scale, self.iterations))


@dataclass(frozen=True)
class SinkhornTestFitted:
    """See `SinkhornTest`; the biases are fitted when the queries arrive."""

    gallery: np.ndarray
    normalizer: Ncl
    kind: Kind = "transductive"

    def score(self, query: np.ndarray) -> np.ndarray:
        return self.lazy(query)[:]

    def lazy(self, query: np.ndarray) -> LazyScores:
        return self.normalizer.fit(Bank(query), self.gallery).lazy(query)


def activation_set(bank: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    """Which gallery items are among the `k` best of at least one bank row, bool [gallery].

    Identical items count as one place and are active together.
    """
    first = first_of_each(gallery)
    kept = np.unique(first)
    k = min(k, len(kept))
    active = np.zeros(len(gallery), bool)
    for _, block in metrics.row_blocks(LazyScores(bank, gallery[kept], 1.0)):
        active[kept[np.argpartition(-block, k - 1, axis=1)[:, :k]]] = True
    return active[first]


def _stable_exp(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`exp(scores - row maximum)` in float64, and the row maxima [row, 1]."""
    top = scores.max(axis=1, keepdims=True).astype(np.float64)
    return np.exp(scores - top), top
