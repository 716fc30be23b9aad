"""Choosing a normaliser on held-out training pairs, and plain scores when nothing helps there.

No test query and no test item takes part in the choice. The training pairs are their own test:
a fold of the queries is held out, and ranks *all* sampled training items with biases fitted on
the other queries. A bank query never counts for its own item (that cosine is masked), because
at test time no bank query belongs to a gallery item.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ncl_jax.errors import InputError
from ncl_jax.normalizers.base import Bank, BiasFitted, Kind, checked
from ncl_jax.normalizers.biases import InvertedSoftmax, Ncl, Nnn, Plain, items_of

FOLDS = 5
ITEMS = 500
"""Training items that stand in for the gallery, at most."""
BANK = 1500
"""Training queries that stand in for the bank, at most."""
FEWEST = 20
"""Below this many training pairs nothing can be learnt about the choice: plain."""

SHARPNESS = 2.5
"""Reference scale times the spread of the cosines: the temperature that leaves about as many
competitors per item on every model, whatever the unit of its scores."""
STRENGTHS = (0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
CAUTION_PLAIN = 1.5
"""Standard errors by which the gain over plain is marked down."""
CAUTION_OTHER = 2.0
"""Standard errors by which another method must beat the reference family to displace it."""


class Trial(NamedTuple):
    """One held-out fold, posed as scores: gallery `eye(item)`, so `query @ gallery.T = query`."""

    bank: Bank
    query: np.ndarray
    right: np.ndarray


class Choice(NamedTuple):
    """A candidate: its name for the evidence, the normaliser, the share of the bank it uses."""

    name: str
    normalizer: Any
    bank_share: float = 1.0


@dataclass(frozen=True)
class Auto:
    """Chooses normaliser, temperature, strength and bank size on held-out training pairs.

    The criterion is a smooth R@1: the mean over held-out queries of
    `sigmoid((own item's score - best other score) / spread)`, which moves far less by chance
    than R@1 itself. Two steps keep the luck of the draw out: (1) of plain and NCL at the
    reference temperature with several strengths, the best after 1.5 standard errors are taken
    off the gain over plain; (2) if that is not plain, another temperature, a smaller bank,
    inverted softmax or nearest-neighbour normalisation may displace it, by 2 standard errors.

    Args:
      seed: of the sample of training pairs.

    `fit` returns a `BiasFitted`, so every choice folds into an index; `evidence` holds the
    choice, its held-out R@1 beside plain's, and the whole table.

    Example:
      >>> fitted = Auto().fit(Bank(np.eye(3), np.eye(3)), np.eye(3))
      >>> fitted.evidence["choice"], fitted.evidence["reason"]
      ('none', 'fewer than 20 training pairs')
    """

    seed: int = 0
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank, gallery: np.ndarray) -> BiasFitted:
        """Biases [item] of `gallery` [item, dim] by the choice made on the pairs of `bank`.

        Args:
          bank: `query` [bank, dim] and `item` [bank_item, dim], with ids unless row i of each is
            a pair.
          gallery: items [item, dim], unit norm.

        Raises:
          ValueError: the bank has no items, or ids or rows that do not fit.
        """
        gallery = checked(gallery, "gallery")
        choice, evidence = choose(bank, self.seed)
        part = share_of(bank, choice.bank_share, self.seed)
        fitted = choice.normalizer.fit(part, gallery)
        return BiasFitted(
            gallery, fitted.bias, fitted.scale, fitted.evidence | evidence, fitted.kind
        )


def choose(bank: Bank, seed: int = 0) -> tuple[Choice, dict[str, Any]]:
    """(winner, evidence) for the pairs of `bank`; see `Auto`.

    In a job of several processes all must call, and process 0 chooses.

    Raises:
      ValueError: the bank has no items, or ids that do not fit.
    """
    plain = Choice("none", Plain(1.0))
    folds, spread = trials(bank, seed)
    if not folds:
        return plain, {"choice": "none", "reason": f"fewer than {FEWEST} training pairs"}
    family, others = _candidates(spread)
    names = [plain, *family, *others]
    margins = np.stack([held_out_margins(c, folds, seed) for c in names]) / spread
    worth = 1 / (1 + np.exp(-np.clip(margins, -50, 50)))
    best = _best(worth[: 1 + len(family)], worth[0], CAUTION_PLAIN)
    if best:
        other = len(family) + 1 + _best(worth[len(family) + 1 :], worth[best], CAUTION_OTHER)
        best = other if _lead(worth[other], worth[best], CAUTION_OTHER) > 0 else best
    best = _of_first_process(best)
    table = {
        c.name: {"R@1": 100 * float(np.mean(m > 0)), "smooth": float(np.mean(w))}
        for c, m, w in zip(names, margins, worth, strict=True)
    }
    winner = names[best]
    return winner, {
        "choice": winner.name,
        "spread": spread,
        "bank_share": winner.bank_share,
        "held_out_queries": margins.shape[1],
        "held_out_R@1": table[winner.name]["R@1"],
        "held_out_plain_R@1": table["none"]["R@1"],
        "table": table,
    }


def trials(bank: Bank, seed: int = 0) -> tuple[list[Trial], float]:
    """(folds of held-out training pairs, standard deviation of a query's cosines)."""
    query, item, query_id, item_id = _sample(bank, np.random.default_rng(seed))
    pairs = len(item_id)
    if pairs < FEWEST:
        return [], 1.0
    cosine = query @ item.T
    own = query_id[:, None] == item_id[None, :]
    centred = np.where(own, np.nan, cosine)
    spread = float(np.nanstd(centred - np.nanmean(centred, axis=1, keepdims=True))) or 1.0
    far = cosine.min() - 1000 * spread
    masked = np.where(own, far, cosine).astype(np.float32)
    among = np.where(np.eye(pairs, dtype=bool), far, item @ item.T).astype(np.float32)
    fold_of = dict(zip(item_id.tolist(), (np.arange(pairs) % FOLDS).tolist(), strict=True))
    fold = np.asarray([fold_of.get(i, -1) for i in query_id.tolist()])
    rest = min(np.count_nonzero(fold != f) for f in range(FOLDS))  # one shape, one compilation
    folds = []
    for f in range(FOLDS):
        held = np.flatnonzero(fold[:pairs] == f)
        others = np.flatnonzero(fold != f)[:rest]
        part = Bank(masked[others], among[np.arange(pairs) % FOLDS != f])
        folds.append(Trial(part, cosine[held], held))
    return folds, spread


def held_out_margins(choice: Choice, folds: Sequence[Trial], seed: int = 0) -> np.ndarray:
    """Own score minus best other score of each held-out query, in units of the cosine."""
    parts = []
    for bank, query, right in folds:
        gallery = np.eye(query.shape[1], dtype=np.float32)
        fitted = choice.normalizer.fit(share_of(bank, choice.bank_share, seed), gallery)
        scores = np.array(fitted.score(query)) / getattr(fitted, "scale", 1.0)
        rows = np.arange(len(right))
        own = scores[rows, right]
        scores[rows, right] = -np.inf
        parts.append(own - scores.max(axis=1))
    return np.concatenate(parts)


def share_of(bank: Bank, share: float, seed: int) -> Bank:
    """A random share of the bank's queries (its items stay)."""
    if share == 1:
        return bank
    count = max(1, round(share * len(bank.query)))
    keep = np.random.default_rng(seed).permutation(len(bank.query))[:count]
    return Bank(bank.query[np.sort(keep)], bank.item)


def _candidates(spread: float) -> tuple[list[Choice], list[Choice]]:
    """(the reference family, what may displace its best member)."""

    def ncl(sharpness: float, strength: float, share: float = 1.0) -> Choice:
        name = f"ncl scale={sharpness:g}/spread strength={strength:g}"
        name += "" if share == 1 else f" bank={share:g}"
        return Choice(name, Ncl(sharpness / spread, strength=strength), share)

    family = [ncl(SHARPNESS, strength) for strength in STRENGTHS]
    others = [ncl(u, strength) for u in (1.5, 4.0) for strength in (0.5, 0.8, 1.0)]
    others += [ncl(SHARPNESS, strength, 0.5) for strength in (0.5, 0.8)]
    others.append(Choice("inverted_softmax beta=2/spread", InvertedSoftmax(2 / spread)))
    others += [Choice(f"nnn k=10 alpha={a:g}", Nnn(10, a)) for a in (0.25, 0.5, 0.75)]
    return family, others


def _of_first_process(number: int) -> int:
    """Hosts may round apart, and all must take part in the same fit, which can be a shared one."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _lead(
    worth: np.ndarray, over: np.ndarray, caution: float
) -> np.ndarray | np.floating[Any]:
    """Mean paired gain minus `caution` standard errors, over the last axis."""
    gain = worth - over
    return gain.mean(-1) - caution * gain.std(-1) / np.sqrt(gain.shape[-1])


def _best(worth: np.ndarray, over: np.ndarray, caution: float) -> int:
    return int(np.argmax(_lead(worth, over, caution)))


def _sample(bank: Bank, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Queries, items and their ids; the first len(items) queries are the items' own, in order."""
    query, item = checked(bank.query, "bank queries"), items_of(bank)
    item = checked(item, "bank items", query.shape[1])
    query_id = np.arange(len(query)) if bank.query_id is None else np.asarray(bank.query_id)
    item_id = np.arange(len(item)) if bank.item_id is None else np.asarray(bank.item_id)
    if (len(query_id), len(item_id)) != (len(query), len(item)):
        raise InputError(
            f"expected one id per bank row, got {len(query_id)} ids for {len(query)} queries and "
            f"{len(item_id)} for {len(item)} items"
        )
    q, i = rng.permutation(len(query)), rng.permutation(len(item))
    ids, first_q, first_i = _paired(query_id[q], item_id[i])
    keep = rng.permutation(len(ids))[:ITEMS]
    own = q[first_q[keep]]
    extra = np.setdiff1d(q, own)
    extra = rng.permutation(extra)[: max(0, BANK - len(own))]
    queries = np.concatenate([own, extra])
    items = i[first_i[keep]]
    return query[queries], item[items], query_id[queries], item_id[items]


def _paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values in both, and where each stands first in `a` and in `b`."""
    values_a, first_a = np.unique(a, return_index=True)
    values_b, first_b = np.unique(b, return_index=True)
    both, in_a, in_b = np.intersect1d(values_a, values_b, return_indices=True)
    return both, first_a[in_a], first_b[in_b]
