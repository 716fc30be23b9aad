"""Exact top-k of biased logits on the host, straight from a memory map, with nothing to compile.

A first pass scores panels of items by float32 matrix products and keeps what may be among the best:
all within the rounding error of a product from the k-th best. The second pass scores these few
again in float64. So the answer does not depend on the BLAS library, on how many queries are asked
together or on where an item stands: equal items have equal scores, and keep their order.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ncl_jax.errors import InputError

SCORES = 1 << 20
"""Scores of a panel: 4 MB, what the caches hold beside the items."""
QUERIES = 1024
"""Queries searched together at most."""
MANY = 1 << 22
"""Candidates above which those within rounding error of one another are scored exactly at once."""
BEGIN = 4096
"""Items from which the first bar is taken, by a partial sort; few scores of later ones reach it."""
WIDTH = 1024
"""Items of a panel at least: products with fewer columns are slow."""
DAMAGED = "the index has vectors that are not of unit length, so it is damaged; build it again"
_EXACT = 1 << 22
"""Numbers of items that are scored in float64 at a time."""

Part = tuple[Float[np.ndarray, "_ dim"], Float[np.ndarray, " _"]]
"""Unit-norm items [item, dim] and their biases [item] in logits."""


def search(
    query: Float[np.ndarray, "query dim"], parts: Sequence[Part], k: int, scale: float
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The `min(k, items)` best items of each query.

    Args:
      query: unit-norm rows.
      parts: the gallery, in the order of its rows.
      k: >= 0.
      scale: logits per cosine.

    Returns:
      Float32 scores in logits, best first, and rows; of equal scores the lower row comes first.

    Raises:
      InputError: an item has NaN, or one that was found is not of unit length.

    Example:
      >>> found = search(np.eye(2, dtype="f"), [(np.eye(2, dtype="f"), np.zeros(2, "f"))], 1, 5.0)
      >>> found[0].tolist(), found[1].tolist()
      ([[5.0], [5.0]], [[0], [1]])
    """
    k = min(k, sum(len(items) for items, _ in parts))
    scores, rows = np.zeros((len(query), k), np.float32), np.zeros((len(query), k), np.int64)
    if k:
        for start in range(0, len(query), QUERIES):
            few = slice(start, start + QUERIES)
            scores[few], rows[few] = _search(query[few], parts, k, scale)
    return scores, rows


@np.errstate(invalid="ignore", over="ignore")  # numbers of a damaged index; it is refused
def _search(
    query: np.ndarray, parts: Sequence[Part], k: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    kept = _Candidates(query, parts, k, scale)
    scaled = query * np.float32(scale)
    width = max(k, WIDTH, SCORES // len(query))
    begin = max(k, min(width, BEGIN))
    buffer = np.empty(len(query) * width, np.float32)
    for first, items, bias in _panels(parts, begin, width):
        panel = buffer[: len(query) * len(items)].reshape(len(query), len(items))
        np.matmul(scaled, items.T, out=panel)
        panel += bias
        if np.isnan(panel.max()):
            raise InputError(DAMAGED)
        kept.add(panel, first)
    scores, rows = kept.best()
    _check_found(parts, np.unique(rows))
    return scores, rows


def _check_found(parts: Sequence[Part], rows: Int[np.ndarray, " found"]) -> None:
    """Damage that lifts an item to the top is seen; what else there may be is not looked for."""
    first = 0
    for items, _ in parts:
        found = items[rows[(rows >= first) & (rows < first + len(items))] - first]
        if not (np.abs(np.einsum("id,id->i", found, found) - 1) < 1e-3).all():
            raise InputError(DAMAGED)
        first += len(items)


def _slack(dim: int, scale: float, parts: Sequence[Part]) -> float:
    """By how much two float32 scores may stand in the wrong order: twice their rounding error.

    A sum of `dim` products of unit vectors, in whatever order, is off by `dim * 2^-24` at most
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); scaling, the bias
    and the last rounding add some more.
    """
    most = max(float(np.abs(bias).max(initial=0.0)) for _, bias in parts)
    return 2 * (dim + 6) * 2.0**-24 * (scale + most)


def _panels(
    parts: Sequence[Part], begin: int, width: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first row, items, biases) of `begin` items and then of at most `width`."""
    first, size = 0, begin
    for items, bias in parts:
        start = 0
        while start < len(items):
            part = slice(start, start + size)
            yield first + start, items[part], bias[part]
            start, size = start + size, width
        first += len(items)


class _Candidates:
    """Of every query what may be among its k best, as triples (query, row, score)."""

    def __init__(self, query: np.ndarray, parts: Sequence[Part], k: int, scale: float):
        self._query, self._parts, self._k, self._scale = query, parts, k, scale
        self._slack = np.float32(_slack(query.shape[1], scale, parts))
        self._least = np.full(len(query), -np.inf, np.float32)
        self._found: list[tuple[np.ndarray, ...]] = []
        self._panels, self._due = 0, 1

    def add(self, panel: Float[np.ndarray, "query item"], first: int) -> None:
        """What of the panel reaches the bar; the bar rises after 1, 2, 4, 8 ... panels.

        The first half of the gallery leaves about k items of the second half above it.
        """
        width = panel.shape[1]
        if not self._panels and width >= self._k:
            top = np.partition(panel, width - self._k, axis=1)[:, width - self._k]
            self._least = top - self._slack
        hit = np.flatnonzero(panel >= self._least[:, None])
        self._found.append((hit // width, hit % width + first, panel.reshape(-1)[hit]))
        self._panels += 1
        many = sum(len(rows) for _, rows, _ in self._found) > MANY
        if self._panels == self._due or many:
            self._due = max(self._due, 2 * self._panels)
            self._raise_bar()
            if many and len(self._found[0][0]) > MANY // 2:
                self._keep_best()

    def best(self) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
        """Scores and rows, best first."""
        self._raise_bar()
        self._keep_best()
        ((_, rows, scores),) = self._found
        return scores.reshape(-1, self._k), rows.reshape(-1, self._k)

    def _raise_bar(self) -> None:
        """Drops what is certainly not among the k best of its query so far."""
        who, rows, scores = map(np.concatenate, zip(*self._found, strict=True))
        order = np.lexsort((-scores, who))
        first = np.searchsorted(who[order], np.arange(len(self._least) + 1))
        full = np.flatnonzero(np.diff(first) >= self._k)
        self._least[full] = scores[order[first[full] + self._k - 1]] - self._slack
        keep: Bool[np.ndarray, " found"] = scores >= self._least[who]
        self._found = [(who[keep], rows[keep], scores[keep])]

    def _keep_best(self) -> None:
        """The k best of each query by their exact scores, best first; all where there are fewer."""
        ((who, rows, _),) = self._found
        scores = _exact(self._query, who, self._parts, rows, self._scale)
        order = np.lexsort((rows, -scores, who))
        who = who[order]
        rank = np.arange(len(who)) - np.searchsorted(who, who)
        kept = order[rank < self._k]
        self._found = [(who[rank < self._k], rows[kept], scores[kept])]


def _exact(
    query: np.ndarray, who: np.ndarray, parts: Sequence[Part], rows: np.ndarray, scale: float
) -> Float[np.ndarray, " kept"]:
    """Scores in float64, rounded; each sum has the same order wherever its item stands."""
    exact = np.empty(len(rows), np.float32)
    first, step = 0, max(1, _EXACT // query.shape[1])
    for items, bias in parts:
        here = np.flatnonzero((rows >= first) & (rows < first + len(items)))
        for start in range(0, len(here), step):
            some = here[start : start + step]
            row = rows[some] - first
            products = query[who[some]].astype(np.float64) * items[row]
            exact[some] = scale * products.sum(axis=1) + bias[row]
        first += len(items)
    return exact
