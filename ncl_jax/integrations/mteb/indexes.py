"""What mteb hands all documents to before it searches: its `IndexEncoderSearchProtocol`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ncl_jax import metrics
from ncl_jax.errors import InputError
from ncl_jax.integrations.rows import rows_of, unit
from ncl_jax.normalizers import Fitted

LENGTH = 1e-3
"""How far from 1 the length of an embedding may be where the similarity is the inner product."""


class KeptRows:
    """An index of mteb that keeps what it is given and finds nothing."""

    items: np.ndarray
    queries: np.ndarray

    def add_documents(self, embeddings: Any, idxs: Sequence[str]) -> None:
        self.items = rows_of(embeddings, "bank items")

    def search(self, embeddings: Any, *args: Any, **kwargs: Any) -> tuple[list[Any], list[Any]]:
        self.queries = rows_of(embeddings, "bank queries")
        nothing: list[Any] = [[]] * len(self.queries)
        return nothing, nothing

    def clear(self) -> None:
        """Nothing: the embeddings are what it is for."""


class FittedIndex:
    """An index of mteb whose scores are those of a normaliser that is fitted to its documents."""

    def __init__(self, fit: Callable[[np.ndarray], Fitted], unit_only: bool):
        self._fit, self._unit_only = fit, unit_only
        self.fitted: Fitted | None = None
        self.ids: list[str] = []

    def add_documents(self, embeddings: Any, idxs: Sequence[str]) -> None:
        self.fitted, self.ids = self._fit(self._unit(embeddings, "documents")), list(idxs)

    def search(
        self, embeddings: Any, top_k: int, similarity_fn: Any, top_ranked: Any = None,
        query_idx_to_id: dict[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:  # fmt: skip
        """The best scores of each query and where they stand: in the corpus, or among its own."""
        assert self.fitted is not None
        scores = self.fitted.lazy(self._unit(embeddings, "queries"))
        place = {name: n for n, name in enumerate(self.ids)}
        values: list[list[float]] = [[]] * len(embeddings)
        found: list[list[int]] = [[]] * len(embeddings)
        for rows, block in metrics.row_blocks(scores):
            for query, row in zip(np.arange(len(embeddings))[rows].tolist(), block, strict=True):
                if top_ranked is not None:
                    ranked = top_ranked.get((query_idx_to_id or {})[query]) or []
                    row = row[[place[name] for name in ranked]]
                best = _largest(row, top_k)
                values[query], found[query] = row[best].tolist(), best.tolist()
        return values, found

    def clear(self) -> None:
        self.fitted = None

    def _unit(self, embeddings: Any, what: str) -> np.ndarray:
        rows = rows_of(embeddings, what)
        length = np.linalg.norm(rows, axis=1)
        if self._unit_only and np.abs(length - 1).max(initial=0) > LENGTH:
            raise InputError(
                f"{what}: expected embeddings of length 1, got lengths from {length.min():.3g} to "
                f"{length.max():.3g}: this encoder's similarity is the inner product, which is "
                "normalised only where it is the cosine"
            )
        return unit(rows)


def _largest(row: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest values, in any order."""
    if count >= len(row):
        return np.arange(len(row))
    return np.argpartition(-row, count)[:count]
