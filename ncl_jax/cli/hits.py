"""What a search has found, to be read by a person or by a program.

A line of tabs: query, rank, id, score in logits, and, where the index knows texts of its bank, the
one nearest to the item, which says what the model sees in it. JSON and CSV have the file and the
seconds of windows of videos too.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ncl_jax.files import one_line
from ncl_jax.index import RetrievalIndex, SearchResult
from ncl_jax.video_search.manifest import KEY, manifest_of

FORMATS = ("lines", "json", "csv")
FIELDS = ("query", "rank", "id", "score", "nearest_bank_text", "file", "start", "end")


def found(
    result: SearchResult, names: Sequence[str], index: RetrievalIndex
) -> list[dict[str, Any]]:
    """One dict per hit, with those of `FIELDS` that the index knows."""
    windows = manifest_of(index).windows if KEY in index.meta else None
    near = _nearest(index, np.unique(result.rows))
    hits = []
    for query, ids, scores, rows in zip(
        names, result.ids, result.scores.tolist(), result.rows.tolist(), strict=True
    ):
        for rank, (item, score, row) in enumerate(zip(ids, scores, rows, strict=True), start=1):
            hit = {"query": query, "rank": rank, "id": item, "score": score}
            if near:
                hit["nearest_bank_text"] = near[row]
            if windows is not None:
                hit |= windows[row]._asdict()
            hits.append(hit)
    return hits


def lines(hits: Sequence[dict[str, Any]], form: str) -> Iterator[str]:
    """Printable lines in one of `FORMATS`."""
    if form == "json":
        yield json.dumps(list(hits), indent=1, ensure_ascii=False)
    elif form == "csv":
        yield _csv(hits)
    else:
        for hit in hits:
            cells = [one_line(hit["query"]), str(hit["rank"]), one_line(hit["id"]),
                     f"{hit['score']:.4f}"]  # fmt: skip
            if "nearest_bank_text" in hit:
                cells.append(f'like "{one_line(hit["nearest_bank_text"])}"')
            yield "\t".join(cells)


def _csv(hits: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    known = [name for name in FIELDS if any(name in hit for hit in hits)] or FIELDS[:4]
    table = csv.DictWriter(buffer, known, lineterminator="\n")
    table.writeheader()
    table.writerows(hits)
    return buffer.getvalue().rstrip("\n")


def _nearest(index: RetrievalIndex, rows: np.ndarray) -> dict[int, str]:
    """The text of the bank nearest to each item; nothing where its texts are not known."""
    captions = index.meta.get("bank_captions", [])
    if not captions or len(captions) != len(index.bank_text) or not len(rows):
        return {}
    best = np.argmax(index.bank_text @ index.video[rows].T, axis=0)
    return {int(row): str(captions[i]) for row, i in zip(rows, best, strict=True)}
