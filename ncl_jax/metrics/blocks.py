"""Reading a score matrix a block of rows at a time."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from ncl_jax import arrays
from ncl_jax.errors import InputError

BLOCK = 1 << 22
"""Elements of a score matrix looked at together (16 MB of float32)."""

Rows = slice | np.ndarray


@runtime_checkable
class Scores(Protocol):
    """What a score matrix [text, video] must offer; `np.ndarray` does.

    Example:
      >>> scores: Scores = np.eye(3)
      >>> scores.shape, scores.T[0:1].tolist()
      ((3, 3), [[1.0, 0.0, 0.0]])
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def T(self) -> "Scores": ...
    def __getitem__(self, rows: slice, /) -> ArrayLike: ...


@runtime_checkable
class OwnBlocks(Protocol):
    """Scores that know a better way through their rows than from top to bottom.

    Every row comes once, in any order, `most` elements at a time; `rows` may be indices.
    """

    def blocks(self, most: int) -> Iterable[tuple[Rows, np.ndarray]]: ...


def row_blocks(scores: Scores) -> Iterator[tuple[Rows, np.ndarray]]:
    """(rows, block) pairs that cover `scores`, about `BLOCK` elements at a time.

    A block is of the type that `compared_in` names.

    Args:
      scores: [row, column].

    Yields:
      The rows, a slice or indices [block_row], and their scores [block_row, column].

    Raises:
      ValueError: NaN scores, or others than real numbers.

    Example:
      >>> [(rows, block.shape) for rows, block in row_blocks(np.eye(3))]
      [(slice(0, 3, None), (3, 3))]
    """
    for rows, block in scores.blocks(BLOCK) if isinstance(scores, OwnBlocks) else _slices(scores):
        if block.size and np.isnan(block.min()):
            raise InputError(
                f"scores must not be NaN, got NaN in {_named(rows)}; check the embeddings for "
                "NaN and zero vectors"
            )
        yield rows, block


def _slices(scores: Scores) -> Iterator[tuple[slice, np.ndarray]]:
    size = max(1, BLOCK // max(1, scores.shape[1]))
    for start in range(0, scores.shape[0], size):
        rows = slice(start, min(start + size, scores.shape[0]))
        block = arrays.real(scores[rows], "scores")
        yield rows, block.astype(_exact(block.dtype), copy=False)


def compared_in(scores: Scores) -> np.dtype:
    """The type that tells scores apart: float64 where theirs says more than float32 can hold."""
    return _exact(np.dtype(getattr(scores, "dtype", np.float32)))


def _exact(dtype: np.dtype) -> np.dtype:
    fine = dtype.kind in "fiu" and np.result_type(dtype, np.float32) != np.float32
    return np.dtype(np.float64 if fine else np.float32)


def _named(rows: Rows) -> str:
    if isinstance(rows, slice):
        return f"rows {rows.start} to {rows.stop - 1}"
    return f"some of the rows {rows.min()} to {rows.max()}"
