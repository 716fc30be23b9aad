"""NCL's biases solved on the host by NumPy, for any size: no compilation and few copies.

It makes the same updates as `sinkhorn.solve` in gallery-first order, in row panels:

* `StoredKernel` stores one float32 kernel of 4 * bank * gallery bytes, exp(s_ij - m_i) with m the
  row maxima. If a column nearly vanishes there, the kernel is recomputed with the first item update
  b0 in the exponent: every row then has maximum 1 and every column an entry of at least 1/bank,
  so neither sum can vanish in float32 at any scale. An iteration reads the kernel once.
* `RecomputedKernel` stores nothing and recomputes each panel: one matrix product per iteration.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
from scipy.linalg.blas import sgemv

from ncl_jax.types import CONVERGED, Biases, SinkhornReport

MEMORY = 1e9
"""Bytes that a stored kernel may take by default."""
PANEL = 1 << 22
"""Entries of a panel (16 MB), which is computed or exponentiated at once."""
BLOCK = 1 << 19
"""Entries of a block of the kernel (2 MB), still in cache when its columns are summed."""
FOLDED = 64
"""Rows that are summed in float32 before they are added to the float64 sums."""
SHARED = 1 << 19
"""Entries from which all cores exponentiate a panel together."""
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
    memory: float = MEMORY,
) -> tuple[Biases, SinkhornReport]:
    """Biases of the bank's queries (`text`) and the items (`video`); uniform masses 1 and N/M.

    Args:
      query: [bank, dim] unit norm, float32.
      gallery: [gallery, dim] unit norm, float32.
      scale: logits per cosine, > 0.
      iterations: pairs of updates, >= 0.
      strength: in [0, 1].
      memory: bytes the kernel may take; a larger one is recomputed in each pass.

    Relations: equals `sinkhorn.solve` on `scale * query @ gallery.T` up to rounding.
    """
    make = StoredKernel if 4 * len(query) * len(gallery) <= memory else RecomputedKernel
    log_c = np.log(len(query) / len(gallery))
    source = make(scale * query, gallery, strength, log_c)
    a, b = np.zeros(len(query)), source.first
    for _ in range(iterations):
        a, b = source.update(b)
    error = float(np.abs(np.expm1(a + strength * source.row_lse(b))).max())
    shift = b.mean() if strength == 1 else 0.0
    report = SinkhornReport(*map(jnp.asarray, (error, iterations, error < CONVERGED)))
    return Biases(jnp.asarray(a + shift, jnp.float32), jnp.asarray(b - shift, jnp.float32)), report


class RecomputedKernel:
    """Panels of logits, recomputed in every pass in O((bank + gallery) dim) memory."""

    def __init__(self, query: np.ndarray, gallery: np.ndarray, strength: float, log_c: float):
        self.query, self.gallery = query, gallery
        self.strength, self.log_c = strength, log_c
        self.first = strength * (log_c - self._column_lse())

    def update(self, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One pair: a = -strength lse_j(s + b), then b = strength (log c - lse_i(s + a))."""
        a, columns = np.empty(len(self.query)), ColumnSums(len(b))
        b32 = b.astype(np.float32)
        for rows, panel in self._panels():
            panel += b32
            lse = _exp_rows(panel)  # panel is now softmax_j(s + b) <= 1: needs no column maximum
            a[rows] = -self.strength * lse
            columns.add(a[rows] + lse, panel)
        if columns.total.min() > VANISHING:
            return a, self.strength * (self.log_c - columns.log() + b)
        return a, self.strength * (self.log_c - self._column_lse(a))

    def row_lse(self, b: np.ndarray) -> np.ndarray:
        """lse_j(s + b) of each query."""
        b32 = b.astype(np.float32)
        return np.concatenate([_exp_rows(panel + b32) for _, panel in self._panels()])

    def _panels(self) -> Iterator[tuple[slice, np.ndarray]]:
        for rows in panels(len(self.query), len(self.gallery)):
            yield rows, self.query[rows] @ self.gallery.T

    def _column_lse(self, a: np.ndarray | None = None) -> np.ndarray:
        """lse_i(s + a), accumulated over the panels as a maximum and a sum."""
        top = np.full(len(self.gallery), -np.inf, np.float32)
        total = np.zeros(len(self.gallery), np.float64)
        for rows, panel in self._panels():
            if a is not None:
                panel += a[rows, None].astype(np.float32)
            higher = np.maximum(top, panel.max(axis=0))
            total *= np.exp(top - higher)
            top = higher
            weights = np.exp(np.subtract(panel, top, out=panel), out=panel)
            for few in panels(len(panel), 1, FOLDED):
                total += np.ones(few.stop - few.start, np.float32) @ weights[few]
        return top + np.log(total)


class StoredKernel(RecomputedKernel):
    """One kernel in memory, `exp(s - m_i)` with m the row maxima, exponentiated once.

    If columns vanish relative to the row maxima, which is rare, the kernel is exponentiated a
    second time, also shifted by the first item update.
    """

    def __init__(self, query: np.ndarray, gallery: np.ndarray, strength: float, log_c: float):
        self.kernel = np.empty((len(query), len(gallery)), np.float32)
        self.query, self.gallery = query, gallery
        self.strength, self.log_c = strength, log_c
        self.top, self.origin = np.empty(len(query)), np.zeros(len(gallery))
        columns = ColumnSums(len(gallery))
        np.matmul(query, gallery.T, out=self.kernel)  # one product: BLAS packs the gallery once
        with ThreadPoolExecutor() as threads:
            for rows in panels(*self.kernel.shape):
                panel = self.kernel[rows]
                self.top[rows] = _exp_in_place(panel, threads)
                columns.add(self.top[rows], panel)
        lse = columns.log()
        if columns.total.min() < VANISHING or np.ptp(lse) > TRUSTED:
            lse = self._stabilise()
        self.first = strength * (log_c - lse)

    def _stabilise(self) -> np.ndarray:
        """Recomputes the kernel as `exp(s_ij + b0_j - m_i)`; returns lse_i(s).

        b0 is the first item update at full strength.
        """
        lse = self._column_lse()
        self.origin = self.log_c - lse
        np.matmul(self.query, self.gallery.T, out=self.kernel)
        with ThreadPoolExecutor() as threads:
            for rows in panels(*self.kernel.shape):
                panel = self.kernel[rows]
                panel += self.origin.astype(np.float32)
                self.top[rows] = _exp_in_place(panel, threads)
        return lse

    def update(self, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `RecomputedKernel.update`, with two kernel-vector products, block by block."""
        if np.ptp(b - self.origin) > TRUSTED:
            return super().update(b)
        a, columns, smallest = np.empty(len(self.top)), ColumnSums(len(b)), np.inf
        v, shift = _scaled_exp(b - self.origin)
        for rows in panels(*self.kernel.shape, BLOCK):
            block = self.kernel[rows]
            total = np.maximum(block @ v, np.float32(1e-37))
            smallest = min(smallest, float(total.min()))
            a[rows] = -self.strength * (self.top[rows] + shift + np.log(total))
            columns.add(a[rows] + self.top[rows], block)
        smallest = min(smallest, float(columns.total.min()))
        if np.ptp(a + self.top) > TRUSTED or smallest < VANISHING:
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


class ColumnSums:
    """Running sum of `exp(log_weight) @ panel`, scaled by the largest weight so far."""

    def __init__(self, columns: int):
        self._folded, self._recent = np.zeros(columns), np.zeros(columns, np.float32)
        self._rows, self.most = 0, -np.inf

    def add(self, log_weight: np.ndarray, panel: np.ndarray) -> None:
        most = float(log_weight.max())
        if most > self.most:  # rare after the first panels; a pass over all columns
            self._fold()
            self._folded *= np.exp(self.most - most)
            self.most = most
        weight = np.exp(log_weight - self.most).astype(np.float32)
        for few in panels(len(panel), 1, FOLDED):
            # BLAS adds in place; `weight @ panel` would write its result and read it again.
            self._recent = sgemv(
                1.0, panel[few].T, weight[few], beta=1.0, y=self._recent, overwrite_y=1
            )
            self._rows += few.stop - few.start
            if self._rows >= FOLDED:
                self._fold()

    @property
    def total(self) -> np.ndarray:
        self._fold()
        return self._folded

    def log(self) -> np.ndarray:
        return self.most + np.log(np.maximum(self.total, 1e-30))

    def _fold(self) -> None:
        self._folded += self._recent
        self._recent[:] = 0
        self._rows = 0


def _scaled_exp(x: np.ndarray) -> tuple[np.ndarray, float]:
    """`exp(x - shift)` in float32, and the shift, which is the maximum."""
    shift = float(x.max())
    return np.exp(x - shift).astype(np.float32), shift


def _exp_in_place(panel: np.ndarray, threads: ThreadPoolExecutor) -> np.ndarray:
    """Replaces each row by `exp(row - maximum)`; returns the maxima. NumPy itself uses one core."""
    cores = os.cpu_count() or 1 if panel.size >= SHARED else 1
    parts = np.array_split(panel, min(len(panel), cores))

    def one(part: np.ndarray) -> np.ndarray:
        top = part.max(axis=1, keepdims=True)
        np.exp(np.subtract(part, top, out=part), out=part)
        return top[:, 0]

    return np.concatenate(list(map(one, parts) if len(parts) == 1 else threads.map(one, parts)))


def panels(rows: int, columns: int, entries: int = PANEL) -> list[slice]:
    """Row slices of at most `entries` entries each, but at least one row."""
    size = max(1, entries // columns)
    return [slice(s, min(s + size, rows)) for s in range(0, rows, size)]


def _exp_rows(panel: np.ndarray) -> np.ndarray:
    """Replaces each row by its softmax, in place; returns its logsumexp."""
    top = panel.max(axis=1, keepdims=True)
    np.exp(np.subtract(panel, top, out=panel), out=panel)
    total = panel.sum(axis=1, keepdims=True)
    panel /= total
    return (top + np.log(total))[:, 0].astype(np.float64)
