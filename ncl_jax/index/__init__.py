"""A searchable gallery with its normalisation: build, add, remove, save, load, search, export."""

from ncl_jax.index.retrieval_index import (
    DRIFT_ALLOWED,
    RetrievalIndex,
    SearchResult,
    fold_query,
)

__all__ = ["DRIFT_ALLOWED", "RetrievalIndex", "SearchResult", "fold_query"]
