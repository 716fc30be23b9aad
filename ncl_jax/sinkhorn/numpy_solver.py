"""NCL's biases solved on the host by NumPy, for any size: no compilation and few copies.

It makes the same updates as `sinkhorn.solve` in gallery-first order:

* `StoredKernel` stores one float32 kernel of 4 * bank * gallery bytes, exp(s_ij - m_i) with m the
  row maxima. If a column nearly vanishes there, the kernel is recomputed with the first item update
  b0 in the exponent: every row then has maximum 1 and every column an entry of at least 1/bank,
  so neither sum can vanish in float32 at any scale. An iteration reads the kernel twice.
* `RecomputedKernel` stores some rows at a time and recomputes them: one matrix product per
  iteration.

Products and sums over rows are made of hundreds of rows at a time: with few rows BLAS spends its
time on packing and on starting threads.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np

from ncl_jax.sinkhorn.free_memory import free_memory
from ncl_jax.types import CONVERGED, Biases, SinkhornReport

ROWS = 512
"""Rows of the kernel that are made and summed together."""
TILE = 4096
"""Columns of the first pass, whose maxima are taken by column: with `ROWS` a tile takes 8 MB."""
LEAST = 1 << 28
"""Bytes (256 MB) of rows that are recomputed together, whatever memory is given."""
SLICE = 1 << 21
"""Entries (8 MB) that are exponentiated together, in cache between the steps of it."""
TRUSTED = 60.0
"""Largest spread of the log weights at which the stored kernel is used. Beyond it, float32 entries
that vanished (below e^-87) could matter, and the pass recomputes the logits; this happens only far
below strength 1."""
VANISHING = float(np.exp(-TRUSTED))
"""Smallest sum, relative to the largest weight, that vanished entries cannot have changed."""


def balance(
    query: np.ndarray,
    gallery: np.ndarray,
    scale: float,
    iterations: int,
    strength: float = 1.0,
    memory: float | None = None,
) -> tuple[Biases, SinkhornReport]:
    """Biases of the bank's queries (`text`) and the items (`video`); uniform masses 1 and N/M.

    Args:
      query: [bank, dim] unit norm, float32.
      gallery: [gallery, dim] unit norm, float32.
      scale: logits per cosine, > 0.
      iterations: pairs of updates, >= 0.
      strength: in [0, 1].
      memory: bytes the kernel may take; a larger one is recomputed in each pass. None: half of what
        is free now.

    Relations: equals `sinkhorn.solve` on `scale * query @ gallery.T` up to rounding.
    """
    memory = free_memory() / 2 if memory is None else memory
    make = StoredKernel if 4 * len(query) * len(gallery) <= memory else RecomputedKernel
    log_c = np.log(len(query) / len(gallery))
    source = make(np.float32(scale) * query, gallery, strength, log_c, memory)
    a, b = np.zeros(len(query)), source.first
    for _ in range(iterations):
        a, b = source.update(b)
    error = float(np.abs(np.expm1(a + strength * source.row_lse(b))).max())
    shift = b.mean() if strength == 1 else 0.0
    report = SinkhornReport(*map(jnp.asarray, (error, iterations, error < CONVERGED)))
    return Biases(jnp.asarray(a + shift, jnp.float32), jnp.asarray(b - shift, jnp.float32)), report


class RecomputedKernel:
    """Rows of logits, recomputed in every pass in O((bank + gallery) dim) memory."""

    def __init__(
        self, query: np.ndarray, gallery: np.ndarray, strength: float, log_c: float, memory: float
    ):
        self.query, self.gallery = query, gallery
        self.strength, self.log_c = strength, log_c
        size = max(1, int(max(memory, LEAST) // (4 * len(gallery))))
        self.rows = slices(len(query), min(size, ROWS))
        self.first = strength * (log_c - self._column_lse())

    def update(self, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One pair: a = -strength lse_j(s + b), then b = strength (log c - lse_i(s + a))."""
        a, columns = np.empty(len(self.query)), ColumnSums(len(b))
        for rows, panel in self._panels():
            top = _exp_in_place(panel, b)
            total = _row_sums(panel)  # at least 1: no row vanishes
            lse = top + np.log(total)
            a[rows] = -self.strength * lse
            # The sums of softmax_j(s + b), weighted: no column has a maximum above 1.
            columns.add(a[rows] + lse - np.log(total), panel)
        if columns.total.min() > VANISHING:
            return a, self.strength * (self.log_c - columns.log() + b)
        return a, self.strength * (self.log_c - self._column_lse(a))

    def row_lse(self, b: np.ndarray) -> np.ndarray:
        """lse_j(s + b) of each query."""
        panels = (panel for _, panel in self._panels())
        return np.concatenate([_exp_in_place(x, b) + np.log(_row_sums(x)) for x in panels])

    def _panels(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Some rows of s at a time, in one place."""
        space = np.empty((self.rows[0].stop, len(self.gallery)), np.float32)
        for rows in self.rows:
            panel = space[: rows.stop - rows.start]
            yield rows, np.matmul(self.query[rows], self.gallery.T, out=panel)

    def _column_lse(self, a: np.ndarray | None = None) -> np.ndarray:
        """lse_i(s + a), accumulated over tiles as a maximum and a sum."""
        top = np.full(len(self.gallery), -np.inf, np.float32)
        total = np.zeros(len(self.gallery))
        space = np.empty((ROWS, TILE), np.float32)
        for columns in slices(len(self.gallery), TILE):
            for rows in slices(len(self.query), ROWS):
                x = self.query[rows], self.gallery[columns]
                tile = space[: len(x[0]), : len(x[1])]
                np.matmul(x[0], x[1].T, out=tile)
                if a is not None:
                    tile += a[rows, None].astype(np.float32)
                higher = np.maximum(top[columns], tile.max(axis=0))
                np.exp(np.subtract(tile, higher, out=tile), out=tile)
                total[columns] *= np.exp(top[columns] - higher)
                total[columns] += np.ones(len(tile), np.float32) @ tile
                top[columns] = higher
        return top + np.log(total)


class StoredKernel(RecomputedKernel):
    """One kernel in memory, `exp(s - m_i)` with m the row maxima, exponentiated once.

    If columns vanish relative to the row maxima, which is rare, the kernel is exponentiated a
    second time, also shifted by the first item update.
    """

    def __init__(
        self, query: np.ndarray, gallery: np.ndarray, strength: float, log_c: float, memory: float
    ):
        self.kernel = np.empty((len(query), len(gallery)), np.float32)
        self.query, self.gallery = query, gallery
        self.strength, self.log_c = strength, log_c
        self.rows, self.origin = slices(len(query), ROWS), np.zeros(len(gallery))
        self._exponentiate()
        columns = self._column_sums(self.top)
        lse = columns.log()
        if columns.total.min() < VANISHING or np.ptp(lse) > TRUSTED:
            lse = self._column_lse()
            self.origin = log_c - lse  # the first item update at full strength
            self._exponentiate()
        self.first = strength * (log_c - lse)

    def _exponentiate(self) -> None:
        """Makes the kernel `exp(s_ij + origin_j - m_i)`."""
        tops = []
        for rows in self.rows:
            panel = np.matmul(self.query[rows], self.gallery.T, out=self.kernel[rows])
            tops.append(_exp_in_place(panel, self.origin if self.origin.any() else None))
        self.top = np.concatenate(tops)

    def update(self, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `RecomputedKernel.update`, with two kernel-vector products."""
        if np.ptp(b - self.origin) > TRUSTED:
            return super().update(b)
        v, shift = _scaled_exp(b - self.origin)
        total = np.maximum(self.kernel @ v, np.float32(1e-37))
        a = -self.strength * (self.top + shift + np.log(total))
        if np.ptp(a + self.top) > TRUSTED or total.min() < VANISHING:
            return super().update(b)
        columns = self._column_sums(a + self.top)
        if columns.total.min() < VANISHING:
            return super().update(b)
        return a, self.strength * (self.log_c - columns.log() + self.origin)

    def row_lse(self, b: np.ndarray) -> np.ndarray:
        if np.ptp(b - self.origin) > TRUSTED:
            return super().row_lse(b)
        v, shift = _scaled_exp(b - self.origin)
        total = self.kernel @ v
        if total.min() < VANISHING:
            return super().row_lse(b)
        return self.top + shift + np.log(total)

    def _column_sums(self, log_weight: np.ndarray) -> "ColumnSums":
        columns = ColumnSums(len(self.gallery))
        for rows in self.rows:
            columns.add(log_weight[rows], self.kernel[rows])
        return columns


class ColumnSums:
    """Running float64 sum of `exp(log_weight) @ panel`, scaled by the largest weight so far."""

    def __init__(self, columns: int):
        self.total, self.most = np.zeros(columns), -np.inf

    def add(self, log_weight: np.ndarray, panel: np.ndarray) -> None:
        """Adds the rows of a panel."""
        most = max(self.most, float(log_weight.max()))
        self.total *= np.exp(self.most - most)
        self.total += np.exp(log_weight - most).astype(np.float32) @ panel
        self.most = most

    def log(self) -> np.ndarray:
        """Log of the sums."""
        return self.most + np.log(np.maximum(self.total, 1e-30))


def _scaled_exp(x: np.ndarray) -> tuple[np.ndarray, float]:
    """`exp(x - shift)` in float32, and the shift, which is the maximum."""
    shift = float(x.max())
    return np.exp(x - shift).astype(np.float32), shift


def _exp_in_place(panel: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """Replaces rows, plus `b`, by `exp(row - maximum)`; returns the maxima. All cores take part."""
    added = None if b is None else b.astype(np.float32)

    def one(rows: slice) -> np.ndarray:
        part = panel[rows]
        if added is not None:
            part += added
        top = part.max(axis=1, keepdims=True)
        np.exp(np.subtract(part, top, out=part), out=part)
        return top[:, 0]

    size = max(1, min(SLICE // panel.shape[1], -(-len(panel) // (os.cpu_count() or 1))))
    parts = slices(len(panel), size)
    if panel.size < SLICE:
        return np.concatenate([one(rows) for rows in parts]).astype(np.float64)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return np.concatenate(list(threads.map(one, parts))).astype(np.float64)


def _row_sums(panel: np.ndarray) -> np.ndarray:
    return (panel @ np.ones(panel.shape[1], np.float32)).astype(np.float64)


def slices(count: int, size: int) -> list[slice]:
    """Consecutive slices of `size`, the last one of what is left."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
