"""Choosing a normaliser on held-out training pairs, and plain scores when nothing helps there.

No test query and no test item takes part in the choice. The training pairs are their own test:
a fold of the queries is held out, and ranks *all* sampled training items with biases fitted on
the other queries. A bank query never counts for its own item (that cosine is masked), because
at test time no bank query belongs to a gallery item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ncl_jax.errors import InputError
from ncl_jax.normalizers.base import Bank, BiasFitted, Kind, checked
from ncl_jax.normalizers.biases import Ncl, Plain, items_of

FOLDS = 5
ITEMS = 500
"""Training items that stand in for the gallery, at most."""
BANK = 1500
"""Training queries that stand in for the bank, at most."""
FEWEST = 20
"""Below this many training pairs nothing can be learnt about the choice: plain."""

SHARPNESS = (1.5, 2.5)
"""Scales tried, times the spread of the cosines: temperatures that leave about as many
competitors per item on every model, whatever the unit of its scores."""
STRENGTHS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
CAUTION = 0.5
"""Standard errors that the gain over plain must exceed."""


class Trial(NamedTuple):
    """One held-out fold, posed as scores: gallery `eye(item)`, so `query @ gallery.T = query`."""

    bank: Bank
    query: np.ndarray
    right: np.ndarray


class Choice(NamedTuple):
    """A candidate: its name for the evidence, and the normaliser."""

    name: str
    normalizer: Any


@dataclass(frozen=True)
class Auto:
    """Chooses plain scores or NCL, its temperature and its strength, on held-out training pairs.

    The criterion is the mean margin of the held-out queries: own item's score minus the best
    other score. It moves far less by chance than R@1, which sees only the queries whose margin
    is near 0. Of NCL at two temperatures and several strengths, the one with the largest mean
    margin is taken if its gain over plain exceeds half a standard error, and plain otherwise.

    Args:
      seed: of the sample of training pairs.

    `fit` returns a `BiasFitted`, so every choice folds into an index. `evidence` holds the choice,
    its gain in margin over plain with the standard error, both in units of the spread of a query's
    cosines, its held-out R@1 beside plain's, and the same of every candidate.

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
        fitted = choice.normalizer.fit(bank, gallery)
        return BiasFitted(
            gallery, fitted.bias, fitted.scale, fitted.evidence | evidence, fitted.kind
        )


def choose(
    bank: Bank, seed: int = 0, other: np.ndarray | None = None
) -> tuple[Choice, dict[str, Any]]:
    """(winner, evidence) for the pairs of `bank`; see `Auto`.

    In a job of several processes all must call, and process 0 chooses.

    Args:
      bank: the pairs.
      seed: of the sample of pairs.
      other: queries of other items [other, dim], on which the candidates are fitted in place of
        the pairs' own.

    Raises:
      ValueError: the bank has no items, or ids that do not fit.
    """
    plain = Choice("none", Plain(1.0))
    folds, spread = trials(bank, seed, other)
    if not folds:
        return plain, {"choice": "none", "reason": f"fewer than {FEWEST} training pairs"}
    choices = [plain, *_candidates(spread)]
    margins = np.stack([held_out_margins(c, folds) for c in choices]) / spread
    over = margins - margins[0]
    gain, error = over.mean(1), over.std(1) / np.sqrt(over.shape[1])
    best = int(np.argmax(gain))
    best = _of_first_process(best if gain[best] > CAUTION * error[best] else 0)
    table = {
        c.name: {"R@1": 100 * float(np.mean(m > 0)), "gain": float(g), "error": float(e)}
        for c, m, g, e in zip(choices, margins, gain, error, strict=True)
    }
    winner = choices[best]
    return winner, {
        "choice": winner.name,
        "spread": spread,
        "held_out_queries": margins.shape[1],
        "held_out_gain": float(gain[best]),
        "held_out_error": float(error[best]),
        "held_out_R@1": table[winner.name]["R@1"],
        "held_out_plain_R@1": table["none"]["R@1"],
        "table": table,
    }


def choose_bank(
    pairs: Bank, banks: Mapping[str, np.ndarray | None], seed: int = 0
) -> tuple[str, Choice, dict[str, Any]]:
    """(name of the bank, winner, evidence): the bank whose best candidate gains most on `pairs`.

    All banks are tried on the same held-out queries of `pairs` against the same items, so their
    gains compare. Pairs that were held out of training show what a memorised bank is worth; pairs
    that were trained on do not.

    Args:
      pairs: queries and items with ids, as for `Auto`.
      banks: queries [bank, dim] by name, of other items than those of `pairs`; None for the
        queries of `pairs` themselves, of which each fold is fitted on the others.
      seed: of the samples.

    Returns:
      As `choose`, with `evidence["banks"]` where there are several: of each its best candidate,
      the gain over plain and the error, in units of the spread. With fewer than 20 pairs the first
      bank is taken, and plain scores.

    Raises:
      ValueError: no bank; pairs without items, or ids that do not fit.

    Example:
      >>> rows = np.eye(3, dtype=np.float32)
      >>> choose_bank(Bank(rows, rows), {"own": None, "other": rows})[0]
      'own'
    """
    if not banks:
        raise InputError("banks: expected at least one, got none")
    tried = {name: choose(pairs, seed, other) for name, other in banks.items()}
    best = {name: _best_of(evidence) for name, (_, evidence) in tried.items()}
    names = list(banks)
    place = int(np.argmax([best[name]["gain"] for name in names]))
    name = names[_of_first_process(place) if len(names) > 1 else 0]
    choice, evidence = tried[name]
    return name, choice, evidence | ({"banks": best} if len(banks) > 1 else {})


def _best_of(evidence: dict[str, Any]) -> dict[str, Any]:
    table = {n: row for n, row in evidence.get("table", {}).items() if n != "none"}
    if not table:
        return {"candidate": "none", "gain": 0.0, "error": 0.0}
    name = max(table, key=lambda n: table[n]["gain"])
    return {"candidate": name, "gain": table[name]["gain"], "error": table[name]["error"]}


def trials(
    bank: Bank, seed: int = 0, other: np.ndarray | None = None
) -> tuple[list[Trial], float]:
    """(folds of held-out training pairs, standard deviation of a query's cosines).

    `other` [other, dim]: queries of other items, the bank of all held-out queries at once.
    """
    rng = np.random.default_rng(seed)
    query, item, query_id, item_id = _sample(bank, rng)
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
    if other is not None:  # one fit serves all: no query of theirs belongs to these items
        other = checked(other, "bank queries", item.shape[1])
        theirs = other[rng.permutation(len(other))[:BANK]] @ item.T
        held = np.argsort(fold[:pairs], kind="stable")
        return [Trial(Bank(theirs), cosine[held], held)], spread
    folds = []
    for f in range(FOLDS):
        held = np.flatnonzero(fold[:pairs] == f)
        others = np.flatnonzero(fold != f)[:rest]
        part = Bank(masked[others], among[np.arange(pairs) % FOLDS != f])
        folds.append(Trial(part, cosine[held], held))
    return folds, spread


def held_out_margins(choice: Choice, folds: Sequence[Trial]) -> np.ndarray:
    """Own score minus best other score of each held-out query, in units of the cosine."""
    parts = []
    for bank, query, right in folds:
        gallery = np.eye(query.shape[1], dtype=np.float32)
        fitted = choice.normalizer.fit(bank, gallery)
        scores = np.array(fitted.score(query)) / getattr(fitted, "scale", 1.0)
        rows = np.arange(len(right))
        own = scores[rows, right]
        scores[rows, right] = -np.inf
        parts.append(own - scores.max(axis=1))
    return np.concatenate(parts)


def _candidates(spread: float) -> list[Choice]:
    return [
        Choice(f"ncl scale={u:g}/spread strength={s:g}", Ncl(u / spread, strength=s))
        for u in SHARPNESS
        for s in STRENGTHS
    ]


def _of_first_process(number: int) -> int:
    """Hosts may round apart, and all must take part in the same fit, which can be a shared one."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


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
