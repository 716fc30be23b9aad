"""Normalisers that are one bias per gallery item: free at query time, foldable into an index.

In the formulas `s` is the cosine of query q (test), q' (bank) or g' (bank item) with gallery
item j, `lse` is log-sum-exp. All are inductive: no test query is seen at the fit.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ncl_jax import metrics, sinkhorn
from ncl_jax.errors import InputError
from ncl_jax.normalizers.base import Bank, BiasFitted, Kind, checked, first_of_each
from ncl_jax.scores import logits
from ncl_jax.sinkhorn import numpy_solver, sharded
from ncl_jax.types import MAX_SCALE, Biases, SinkhornReport

LARGE = 1 << 26
"""Scores from which a fit is shared by all devices, or, with one, done on the host (256 MB)."""


@dataclass(frozen=True)
class Plain:
    """No normalisation: `scale * s`. Needs no bank.

    Args:
      scale: logits per cosine, > 0; it does not change the ranking.

    Example:
      >>> Plain(scale=10.0).fit(None, np.eye(2)).score(np.eye(2)).tolist()
      [[10.0, 0.0], [0.0, 10.0]]
    """

    scale: float = MAX_SCALE
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank | None, gallery: np.ndarray) -> BiasFitted:
        """Biases of 0 for the items of `gallery` [item, dim]; `bank` is not used.

        Raises:
          ValueError: the gallery is empty, not a matrix or not finite.
        """
        gallery = checked(gallery, "gallery")
        return BiasFitted(gallery, np.zeros(len(gallery), np.float32), self.scale)


@dataclass(frozen=True)
class Ncl:
    """Sinkhorn biases of the bank's queries against the gallery; the bank's own are dropped.

    `score = scale * s + b`, where b balances `exp(scale * s(bank, gallery) + a + b)` to one unit
    of mass per bank query and an equal share per item; mean bias 0 at strength 1.

    Args:
      scale: logits per cosine, > 0 (the model's `exp(logit_scale)`; 100 if it is not known).
      iterations: pairs of updates after the first item update; 4 as in the paper's descendants.
      strength: in [0, 1]; each Sinkhorn update is multiplied by it (unbalanced transport).
      memory: bytes that the host may keep for one kernel of 4 * bank * gallery bytes; a larger one
        is computed anew in every iteration, at the price of a matrix product. None: half of what
        is free.
      host: solve in NumPy panels on the host (module `host`) instead of by `sinkhorn.solve` on
        the device. None: where there is no accelerator, which saves compiling every shape.
        Problems too large to copy about always go there, unless there are several devices: these
        share the fit (`sinkhorn.spread`), in which all processes of a job take part.

    Relations: 0 iterations rank as `InvertedSoftmax(beta=scale)`; strength 0 ranks as `Plain`.
    Source: Park et al., EMNLP 2022; the iteration from public code that credits its authors.

    Example:
      >>> fitted = Ncl(scale=10.0).fit(Bank(np.eye(3)), np.eye(3))
      >>> fitted.evidence["converged"], np.abs(fitted.bias).max() < 1e-5
      (True, np.True_)
    """

    scale: float = MAX_SCALE
    iterations: int = sinkhorn.PAPER_ITERATIONS
    strength: float = 1.0
    memory: float | None = None
    host: bool | None = None
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank, gallery: np.ndarray) -> BiasFitted:
        """Biases [item] of `gallery` [item, dim] that balance `bank.query` [bank, dim] over it.

        Returns:
          The fitted scorer; `evidence` has the error reached, iterations and the bank's size.

        Raises:
          ValueError: options out of range; rows that are empty, of different widths or not finite.
        """
        gallery = checked(gallery, "gallery")
        query = checked(bank.query, "bank queries", gallery.shape[1])
        biases, report = self.balance(query, gallery)
        bias = np.asarray(biases.video)[first_of_each(gallery)]  # equal items tie exactly
        evidence = {
            "error": float(report.error),
            "iterations": int(report.iterations),
            "converged": bool(report.converged),
            "bank": len(query),
            "mass": "uniform",
        }
        bank_bias = np.asarray(biases.text)
        return BiasFitted(gallery, bias, self.scale, evidence, bank_bias=bank_bias)

    def balance(self, query: np.ndarray, gallery: np.ndarray) -> tuple[Biases, SinkhornReport]:
        """Biases of the bank queries (`text`) and of the gallery items (`video`), and evidence.

        Args:
          query: bank queries [bank, dim], unit norm.
          gallery: items [item, dim], unit norm.

        Returns:
          `Biases` in logits, `text` [bank] and `video` [item], and a `SinkhornReport`.

        Raises:
          ValueError: scale, iterations or strength out of range.

        Example:
          >>> biases, report = Ncl(scale=10.0).balance(np.eye(3), np.eye(3))
          >>> np.shape(biases.video), bool(report.converged)
          ((3,), True)
        """
        if not (self.scale > 0 and self.iterations >= 0 and 0 <= self.strength <= 1):
            raise InputError(
                "expected scale > 0, iterations >= 0 and strength in [0, 1], got "
                f"{self.scale:g}, {self.iterations} and {self.strength:g}"
            )
        queries, items = len(query), len(gallery)
        on_host = jax.default_backend() == "cpu" if self.host is None else self.host
        large = queries * items > LARGE
        if large and not on_host and jax.device_count() > 1:
            return sharded.balance(
                query, gallery, self.scale, iterations=self.iterations, strength=self.strength
            )
        if on_host or large:
            return numpy_solver.balance(
                query, gallery, self.scale, self.iterations, self.strength, self.memory
            )
        biases, report = sinkhorn.solve(
            logits(jnp.asarray(query), jnp.asarray(gallery), self.scale),
            jnp.ones(queries),
            jnp.full(items, queries / items),
            iterations=self.iterations,
            strength=self.strength,
        )
        return biases, report


class _PerItem:
    """Normalisers whose bias of an item depends on that item alone: fitted a few items a time."""

    kind: ClassVar[Kind] = "inductive"

    @property
    def logits_per_cosine(self) -> float:
        raise NotImplementedError

    def fit(self, bank: Bank, gallery: np.ndarray) -> BiasFitted:
        """Biases [item] of `gallery` [item, dim], from its cosines with `bank.query` [bank, dim].

        Raises:
          ValueError: rows that are empty, of different widths or not finite.
        """
        gallery = checked(gallery, "gallery")
        bias = per_item(self.bias, bank.query, gallery, "bank queries")
        return BiasFitted(gallery, bias, self.logits_per_cosine, {"bank": len(bank.query)})

    def bias(self, cosine: np.ndarray) -> np.ndarray:
        """Biases [item] in logit units from the cosines [item, bank]."""
        raise NotImplementedError


@dataclass(frozen=True)
class InvertedSoftmax(_PerItem):
    """`log[exp(beta s_qj) / sum_q' exp(beta s_q'j)] = beta s_qj - lse_q'(beta s_q'j)`.

    Args:
      beta: logits per cosine, > 0. Default 20 as in the QB-Norm code (10 and 30 are used too).

    Source: Smith et al. 2017, in the form of `ioanacroi/qb-norm` and `fastText_multilingual`.

    Example:
      >>> InvertedSoftmax(beta=20.0).fit(Bank(np.eye(2)), np.eye(2)).bias.round(3).tolist()
      [-20.0, -20.0]
    """

    beta: float = 20.0

    @property
    def logits_per_cosine(self) -> float:
        """Factor of the cosine in the score."""
        return self.beta

    def bias(self, cosine: np.ndarray) -> np.ndarray:
        """Biases [item] in logit units from the cosines [item, bank].

        Example:
          >>> InvertedSoftmax(beta=1.0).bias(np.zeros((2, 4))).round(3).tolist()
          [-1.386, -1.386]
        """
        logit = self.beta * cosine
        top = logit.max(axis=1, keepdims=True)
        return -(top[:, 0] + np.log(np.exp(logit - top).sum(axis=1, dtype=np.float64)))


@dataclass(frozen=True)
class Csls(_PerItem):
    """`2 s_qj - r_j`, with r_j the mean of item j's `k` largest cosines in the bank.

    The full formula also subtracts the query's own neighbourhood mean. That is one constant per
    query and cannot change its ranking, so it is left out.

    Args:
      k: neighbours in the bank, >= 1; all of a smaller bank.

    Example:
      >>> Csls(k=1).fit(Bank(np.eye(2)), np.eye(2)).bias.tolist()
      [-1.0, -1.0]

    Source: `facebookresearch/MUSE`, `src/evaluation/word_translation.py` (k = 10).
    """

    k: int = 10
    logits_per_cosine: ClassVar[float] = 2.0

    def bias(self, cosine: np.ndarray) -> np.ndarray:
        """Biases [item] in units of 2 cosines from the cosines [item, bank].

        Example:
          >>> Csls(k=2).bias(np.array([[0.5, 0.25, 0.0]])).tolist()
          [-0.375]
        """
        return -mean_of_largest(cosine, self.k)


@dataclass(frozen=True)
class Nnn(_PerItem):
    """Nearest-neighbour normalisation: `s_qj - alpha * r_j`, r_j as in `Csls`.

    Args:
      k: neighbours in the bank, >= 1; all of a smaller bank.
      alpha: weight of the neighbours' mean.

    Example:
      >>> Nnn(k=1, alpha=0.75).fit(Bank(np.eye(2)), np.eye(2)).bias.tolist()
      [-0.75, -0.75]

    Source: `multimodal-interpretability/nnn`; its README uses k = 128, alpha = 0.75.
    Relations: `alpha = 0.5` ranks as `Csls` with the same k.
    """

    k: int = 128
    alpha: float = 0.75
    logits_per_cosine: ClassVar[float] = 1.0

    def bias(self, cosine: np.ndarray) -> np.ndarray:
        """Biases [item] in units of the cosine from the cosines [item, bank].

        Example:
          >>> Nnn(k=2, alpha=0.5).bias(np.array([[0.5, 0.25, 0.0]])).tolist()
          [-0.1875]
        """
        return -self.alpha * mean_of_largest(cosine, self.k)


@dataclass(frozen=True)
class DualIs:
    """DBNorm's Dual-IS: inverted softmax over the query bank times one over a gallery bank.

    `(beta + item_beta) s_qj - lse_q'(beta s_q'j) - lse_g'(item_beta s_g'j)`, with g' the bank's
    items (training videos against test videos).

    Args:
      beta: logits per cosine of the queries' factor; 100/1.99, the public 1/1.99 on 100-fold
        logits.
      item_beta: the same of the items' factor; 300, the public 3.

    Source: `yimuwangcs/Better_Cross_Modal_Retrieval`, `DBNorm/dbnorm.py`. The function there
    normalises the gallery-bank matrix in place of the test matrix; the test matrix is meant.

    Example:
      >>> fitted = DualIs().fit(Bank(np.eye(2), item=np.eye(2)), np.eye(2))
      >>> fitted.bias.shape, round(fitted.scale, 3)
      ((2,), 350.251)
    """

    beta: float = 100 / 1.99
    item_beta: float = 300.0
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank, gallery: np.ndarray) -> BiasFitted:
        """Biases [item] of `gallery` [item, dim] from `bank.query` and `bank.item` [row, dim].

        Raises:
          ValueError: no `bank.item`; rows that are empty, of different widths or not finite.
        """
        gallery = checked(gallery, "gallery")
        by_query = per_item(InvertedSoftmax(self.beta).bias, bank.query, gallery, "bank queries")
        by_item = per_item(
            InvertedSoftmax(self.item_beta).bias, items_of(bank), gallery, "bank items"
        )
        return BiasFitted(gallery, by_query + by_item, self.beta + self.item_beta)


def items_of(bank: Bank) -> np.ndarray:
    """The bank's items, or a sentence for the caller who forgot them."""
    if bank.item is None:
        raise InputError(
            "this normaliser needs training items beside training queries; give Bank(item=...)"
        )
    return bank.item


def mean_of_largest(cosine: np.ndarray, k: int) -> np.ndarray:
    """Mean of the `k` largest values of each row (of all, where there are fewer)."""
    k = min(k, cosine.shape[1])
    return np.partition(cosine, -k, axis=1)[:, -k:].mean(axis=1)


def per_item(bias: Any, bank: np.ndarray, gallery: np.ndarray, what: str) -> np.ndarray:
    """`bias(cosines [item, bank])` for all items, a block of cosines at a time."""
    bank = checked(bank, what, gallery.shape[1])
    size = max(1, metrics.blocks.BLOCK // len(bank))
    parts = [bias(gallery[s : s + size] @ bank.T) for s in range(0, len(gallery), size)]
    return np.concatenate(parts).astype(np.float32)[first_of_each(gallery)]
