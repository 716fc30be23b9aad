"""What every normaliser has in common: bank in, fitted scorer out, scores row by row.

The words are `query` and `gallery`, because every normaliser serves both directions: for text to
video the queries are texts and the gallery videos, for video to text the reverse. A fitted
normaliser scores `[query, gallery]`; metrics take `[text, video]`, so video to text is

    metrics.video_to_text(fitted.lazy(video).T, video_of_text)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ncl_jax import arrays, metrics
from ncl_jax.errors import InputError
from ncl_jax.types import MAX_SCALE

Kind = Literal["inductive", "transductive", "online"]


class Bank(NamedTuple):
    """Training material a normaliser may look at; all embeddings have unit norm.

    `query` [bank, dim]: training queries (captions for text to video, clips for video to text).
    `item` [bank_item, dim]: training items of the gallery's side; `dual_*` and `auto` use it.
    `query_id` [bank], `item_id` [bank_item]: equal ids belong together (a clip and its captions).
    Without ids, query `i` and item `i` are a pair. Only `auto` looks at them.

    Example:
      >>> bank = Bank(query=np.eye(3), item=np.eye(3)[:2], query_id=[0, 1, 1], item_id=[0, 1])
      >>> len(bank.query), len(bank.item)
      (3, 2)
    """

    query: np.ndarray
    item: np.ndarray | None = None
    query_id: np.ndarray | None = None
    item_id: np.ndarray | None = None


class Fitted(Protocol):
    """A normaliser that has seen its bank and its gallery.

    `kind`: `inductive` scores a query the same whatever the other queries are; `transductive`
    looks at all queries of one call together; `online` looks at those before it. Never report two
    of them in one column.

    Example:
      >>> fitted = BiasFitted(np.eye(2), np.zeros(2), scale=10.0)
      >>> fitted.score(np.eye(2)).shape, fitted.lazy(np.eye(2)).shape
      ((2, 2), (2, 2))
    """

    kind: Kind

    def score(self, query: np.ndarray) -> np.ndarray:
        """Scores [query, gallery] of unit-norm queries [query, dim]; higher is better.

        Raises:
          ValueError: queries of another width than the gallery's.
        """
        ...

    def lazy(self, query: np.ndarray) -> Any:
        """The same scores [query, gallery], computed a few rows at a time while `metrics` reads."""
        ...


@dataclass(frozen=True)
class BiasFitted:
    """Scores that differ from plain ones by a constant per item: `scale * cosine + bias`.

    `bias` [gallery] is in logit units, so `bias / scale` is the extra coordinate that carries it
    into any inner-product engine. `evidence` says how good the fit is. `bank_bias` [bank], where
    there is one, belongs to the bank's queries and is no part of the score.

    Example:
      >>> fitted = BiasFitted(np.eye(2), np.array([0.0, 1.0]), scale=10.0)
      >>> fitted.score(np.eye(2)).tolist()
      [[10.0, 1.0], [0.0, 11.0]]
      >>> fitted.at_scale(5.0).score(np.eye(2)).tolist()
      [[5.0, 0.5], [0.0, 5.5]]
      >>> fitted.lazy(np.eye(2)).shape
      (2, 2)
    """

    gallery: np.ndarray
    bias: np.ndarray
    scale: float = MAX_SCALE
    evidence: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "inductive"
    bank_bias: np.ndarray | None = None

    def score(self, query: np.ndarray) -> np.ndarray:
        """Logits plus bias, float32 [query, gallery], of unit-norm queries [query, dim]."""
        return np.asarray(self.lazy(query)[:])

    def at_scale(self, scale: float) -> "BiasFitted":
        """The same ranking with `scale` logits per cosine: `bias` [gallery] times a constant."""
        return replace(self, bias=self.bias * (scale / self.scale), scale=scale)

    def lazy(self, query: np.ndarray) -> "LazyScores":
        """`score(query)` [query, gallery] as a `LazyScores`."""
        return LazyScores(query, self.gallery, self.scale, column_bias=self.bias)


class LazyScores:
    """`scale * row @ column.T + row_bias + column_bias` that is computed when rows are read.

    Args:
      row: embeddings [row, dim].
      column: embeddings [column, dim].
      scale: factor of the product.
      row_bias: [row], or one number.
      column_bias: [column], or one number.

    Raises:
      ValueError: biases that do not fit.

    Memory is that of the embeddings plus the rows asked for. Identical columns (repeated
    captions) are scored once and so tie exactly, whatever the matrix product rounds to; so do
    identical rows where `blocks` reads them.

    Example:
      >>> LazyScores(np.eye(2), np.eye(2), 10.0, column_bias=[0.0, 1.0])[0:1].tolist()
      [[10.0, 1.0]]
    """

    def __init__(
        self,
        row: np.ndarray,
        column: np.ndarray,
        scale: float = MAX_SCALE,
        row_bias: Any = 0.0,
        column_bias: Any = 0.0,
    ):
        self.row, self.column = np.asarray(row, np.float32), np.asarray(column, np.float32)
        self.scale = float(scale)
        self.row_bias = np.broadcast_to(np.asarray(row_bias, np.float32), len(self.row))
        self.column_bias = np.broadcast_to(np.asarray(column_bias, np.float32), len(self.column))
        self.shape = (len(self.row), len(self.column))
        self._distinct: tuple[np.ndarray, np.ndarray | None] | None = None

    @property
    def T(self) -> "LazyScores":
        """The transpose, [column, row]."""
        return LazyScores(self.column, self.row, self.scale, self.column_bias, self.row_bias)

    def __getitem__(self, rows: slice) -> np.ndarray:
        distinct, place = self._distinct = self._distinct or _distinct(self.column)
        row = self.scale * self.row[rows]
        if 4 * len(row) < len(self.column):  # the long side outermost: its moves are whole lines
            scores = distinct @ row.T
            scores = (scores if place is None else scores[place]).T
        else:
            scores = row @ distinct.T
            scores = scores if place is None else scores[:, place]
        scores += self.row_bias[rows, None]
        scores += self.column_bias
        return scores


    def blocks(self, most: int) -> Iterator[tuple[slice | np.ndarray, np.ndarray]]:
        """(rows, scores [row, column]), each row once, about `most` scores at a time.

        Identical rows are scored once.
        """
        distinct, place = _distinct(self.row)
        step = max(1, most // max(1, len(self.column)))
        if place is None:
            for start in range(0, len(self.row), step):
                rows = slice(start, min(start + step, len(self.row)))
                yield rows, self[rows]
            return
        once = LazyScores(distinct, self.column, self.scale, column_bias=self.column_bias)
        order = np.argsort(place, kind="stable")
        for start in range(0, len(order), step):
            some = order[start : start + step]
            low, high = place[some[0]], place[some[-1]] + 1
            block = once[low:high][place[some] - low]
            block += self.row_bias[some, None]
            yield some, block


@runtime_checkable
class RowWise(Protocol):
    """Scores [row, column] that are computed row by row, as those of `LazyRows`."""

    @property
    def row(self) -> np.ndarray: ...
    @property
    def columns(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def __getitem__(self, rows: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class LazyRows:
    """Scores whose rows come from a function of the queries; the bias-free kin of `LazyScores`.

    Args:
      row: queries [row, dim].
      columns: width of a row of scores.
      rows: queries [some, dim] -> scores [some, column].

    Example:
      >>> scores = LazyRows(np.eye(3), 3, lambda query: 10 * query)
      >>> scores.shape, scores[1:2].tolist()
      ((3, 3), [[0.0, 10.0, 0.0]])
    """

    row: np.ndarray
    columns: int
    rows: Callable[[np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.row), self.columns

    @property
    def T(self) -> "TurnedRows":
        """The transpose, [column, row]."""
        return TurnedRows(self)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.rows(self.row[rows])


@dataclass(frozen=True)
class TurnedRows:
    """The transpose of `LazyRows`. Its rows need every query, so each slice costs a full pass."""

    T: "RowWise"

    @property
    def shape(self) -> tuple[int, int]:
        return self.T.shape[::-1]

    def __getitem__(self, rows: slice) -> np.ndarray:
        size = max(1, metrics.blocks.BLOCK // max(1, self.T.columns))
        parts = range(0, len(self.T.row), size)
        return np.concatenate([self.T[s : s + size][:, rows] for s in parts]).T


def first_of_each(rows: np.ndarray) -> np.ndarray:
    """Index of the first row that is bit-identical to each row, [row].

    Example:
      >>> first_of_each(np.array([[1.0], [2.0], [1.0]])).tolist()
      [0, 1, 0]
    """
    rows = np.asarray(rows)
    if rows.size == 0:
        return np.arange(len(rows))
    odd = rows.shape[1] * rows.dtype.itemsize % 8 // rows.dtype.itemsize
    words = np.ascontiguousarray(np.pad(rows, ((0, 0), (0, odd))) if odd else rows).view(np.uint64)
    weights = np.random.default_rng(0).integers(1 << 63, size=words.shape[1], dtype=np.uint64)
    _, first, inverse = np.unique(words @ (2 * weights + 1), return_index=True, return_inverse=True)
    found = first[inverse]
    if (words == words[found]).all():
        return found
    keys = words.view(np.dtype((np.void, words.itemsize * words.shape[1])))[:, 0]  # a collision
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]


def _distinct(column: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Different rows of `column`, and where each row of `column` stands among them."""
    kept, place = np.unique(first_of_each(column), return_inverse=True)
    return (column, None) if len(kept) == len(column) else (column[kept], place)


def checked(rows: np.ndarray, what: str, dim: int | None = None) -> np.ndarray:
    """`rows` as float32 [row, dim], or a sentence that says what is wrong with them.

    Raises:
      ValueError: no real numbers, not a matrix, empty, of another width than `dim`, or not finite.
    """
    rows = arrays.single(rows, what)
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"{what} must be a non-empty matrix [row, dim], got shape {rows.shape}")
    if dim is not None and rows.shape[1] != dim:
        raise InputError(f"{what} must have width {dim} like the gallery, got {rows.shape[1]}")
    if not np.isfinite(rows).all():
        raise InputError(f"{what} must be finite, got NaN or infinity; drop or repair these rows")
    return rows
