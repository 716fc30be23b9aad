"""Ranks -> recalls under a named tie rule, and the check that every id counts once."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ncl_jax.errors import InputError

TieRule = Literal["average", "average_border", "pessimistic", "optimistic", "clip4clip"]
TIE_RULES: tuple[TieRule, ...] = (
    "average",
    "average_border",
    "pessimistic",
    "optimistic",
    "clip4clip",
)
RECALLS = (1, 5, 10, 50)


class Ranks(NamedTuple):
    """Per query: candidates `above` the right answer, and others `tied` with it, both [query].

    Example:
      >>> ranks = Ranks(above=np.array([0, 2]), tied=np.array([0, 1]))
      >>> (ranks.above + ranks.tied / 2 + 1).tolist()
      [1.0, 3.5]
    """

    above: np.ndarray
    tied: np.ndarray


def summarize(ranks: Ranks, tie_rule: TieRule = "average") -> dict[str, float]:
    """Ranks -> recalls, median and mean rank, by a tie rule.

    `average`: a tied answer gets the mean of the places it shares; neither the order of the items
    nor chance plays a part. A half place beyond k is a miss: 5.5 does not count for R@5.
    `average_border`: the same mean, as CE, MMT and QB-Norm count it: a half place at the border is
    a hit, so that 5.5 does count for R@5, but only the first place, alone, for R@1. Median and mean
    rank are those of `average`. `optimistic`, `pessimistic`: the best, the worst of these places.
    `clip4clip`: every shared place is an entry of its own, in the numerator and in the
    denominator, as in the `compute_metrics` of CLIP4Clip and its descendants.

    Args:
      ranks: arrays [query], from 0.
      tie_rule: one of `TIE_RULES`.

    Returns:
      `R@1`, `R@5`, `R@10`, `R@50` in percent; `MdR`, `MnR`, ranks that start at 1.

    Raises:
      ValueError: no query, or an unknown tie rule.

    Example:
      >>> ranks = Ranks(np.array([0, 0]), np.array([0, 1]))
      >>> [summarize(ranks, rule)["R@1"] for rule in ("average", "optimistic")]
      [50.0, 100.0]
    """
    above, tied = np.asarray(ranks.above), np.asarray(ranks.tied)
    if above.size == 0:
        raise InputError("cannot evaluate 0 queries; give at least one text with its video")
    if tie_rule == "clip4clip":
        start = np.cumsum(tied + 1) - (tied + 1)
        rank = np.repeat(above - start, tied + 1) + np.arange(np.sum(tied + 1)) + 1.0
    elif tie_rule in TIE_RULES:
        share = {"pessimistic": 1.0, "optimistic": 0.0}.get(tie_rule, 0.5)
        rank = above + share * tied + 1.0
    else:
        raise InputError(f"tie rule must be one of {TIE_RULES}, got {tie_rule!r}")
    beyond = 0.5 if tie_rule == "average_border" else 0.0
    hits = {k: int(np.count_nonzero(rank <= k + beyond * (k > 1))) for k in RECALLS}
    recalls = {f"R@{k}": 100 * hit / rank.size for k, hit in hits.items()}
    return recalls | {"MdR": float(np.median(rank)), "MnR": float(np.mean(rank))}


def ndcg(ranks: Ranks, k: int = 10) -> float:
    """Normalised discounted cumulative gain at `k`, in percent, of queries with one right answer.

    An answer in place p counts 1 / log2(p + 1), and 0 beyond place k; a tied answer counts the mean
    over the places it shares. Where nothing is tied this is the nDCG of `pytrec_eval` and `mteb`.

    Args:
      ranks: arrays [query], from 0, as from `ranks_of_texts`.
      k: places that count, >= 1.

    Raises:
      ValueError: no query, or a `k` below 1.

    Example:
      >>> round(ndcg(Ranks(np.array([0, 1]), np.array([0, 0]))), 2)
      81.55
    """
    above, tied = np.asarray(ranks.above), np.asarray(ranks.tied)
    if above.size == 0:
        raise InputError("cannot evaluate 0 queries; give at least one text with its video")
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])
    shared = gains[np.minimum(above + tied + 1, k)] - gains[np.minimum(above, k)]
    return 100 * float(np.mean(shared / (tied + 1)))


def check_ids(seen: Sequence[str], expected: Sequence[str]) -> None:
    """Stops an evaluation that does not count every id exactly once.

    Raises:
      ValueError: naming up to ten of the missing, doubled and unknown ids of each sort.

    Example:
      >>> check_ids(["a", "b"], expected=["b", "a"])
      >>> try:
      ...     check_ids(["a", "a"], expected=["a", "b"])
      ... except ValueError as error:
      ...     print(error)
      every id must count exactly once: expected 2, got 2; 1 missing (b); 1 doubled (a)
    """
    names, counts = np.unique(np.asarray(seen, dtype=object).astype(str), return_counts=True)
    wanted = set(map(str, expected))
    faults = {
        "missing": sorted(wanted - set(names)),
        "doubled": sorted(names[counts > 1]),
        "unknown": sorted(set(names) - wanted),
    }
    said = [
        f"{len(ids)} {what} ({', '.join(ids[:10])}{', ...' if len(ids) > 10 else ''})"
        for what, ids in faults.items()
        if ids
    ]
    if said:
        raise InputError(
            f"every id must count exactly once: expected {len(wanted)}, got {len(seen)}; "
            + "; ".join(said)
        )
