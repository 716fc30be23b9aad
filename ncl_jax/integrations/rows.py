"""What both packages hand over: embeddings of NumPy or torch, and which texts belong together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from ncl_jax import arrays
from ncl_jax.errors import InputError

SHORTEST = 1e-12
"""Lengths below count as this much, as in torch's `normalize`: a row of zeros stays one."""


def rows_of(embeddings: Any, what: str) -> np.ndarray:
    """Embeddings [row, dim] as float32 of NumPy; those of torch may be on any device.

    Args:
      embeddings: an array or a tensor with one row per text or video.
      what: name for the message.

    Raises:
      ValueError: several vectors per row, sparse ones, or no numbers.

    Example:
      >>> rows_of(np.eye(2, dtype=np.float16), "queries").dtype.name
      'float32'
    """
    if getattr(embeddings, "is_sparse", False):
        raise InputError(f"{what}: expected dense embeddings, got sparse ones; use another encoder")
    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().cpu().float().numpy()
    rows = arrays.single(embeddings, what)
    if rows.ndim != 2:
        raise InputError(
            f"{what}: expected one vector per row [row, dim], got shape {rows.shape}; encoders of "
            "several vectors per text have no cosine that could be normalised"
        )
    return rows


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [row, dim] of length 1.

    Example:
      >>> unit(np.array([[3.0, 4.0]])).round(6).tolist()
      [[0.6, 0.8]]
    """
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SHORTEST)


def paired_ids(
    queries: Sequence[str], items: Sequence[str], relevant: Mapping[str, Iterable[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """(ids [query], ids [item]) for `normalizers.Bank`: equal where one answers the other.

    What is connected by relevance has one id: a clip with all its captions, whichever searches.
    Relevance of unknown queries or items is passed over.

    Args:
      queries: names of the queries.
      items: names of the items.
      relevant: query -> the items that answer it; of a mapping item -> grade those above 0.

    Example:
      >>> query_id, item_id = paired_ids(["a", "b", "c"], ["x", "y"], {"a": ["x"], "b": ["x"]})
      >>> query_id[0] == query_id[1] == item_id[0], query_id[2] == item_id[1]
      (np.True_, np.False_)
    """
    query, item = ({name: n for n, name in enumerate(names)} for names in (queries, items))
    edges = [
        (query[q], len(query) + item[i])
        for q, found in relevant.items() if q in query
        for i in found
        if i in item and (not isinstance(found, Mapping) or found[i] > 0)
    ]  # fmt: skip
    size = len(query) + len(item)
    rows, columns = np.asarray(edges, np.int64).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(rows), np.int8), (rows, columns)), (size, size))
    _, ids = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return ids[: len(query)], ids[len(query) :]
