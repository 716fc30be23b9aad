"""Reads all of an index and says what it holds."""

import argparse
from collections.abc import Iterator

from ncl_jax.index import RetrievalIndex
from ncl_jax.video_search.run_folder import index_of


def check(args: argparse.Namespace) -> Iterator[str]:
    """Every file against its checksum; a search reads the vectors without looking at these."""
    path = index_of(args.index)
    index = RetrievalIndex.load(path, check=True)
    bank = f"bank of {len(index.bank_text):,} texts" if len(index.bank_text) else "no bank"
    parts = "one part" if len(index.parts) == 1 else f"{len(index.parts)} parts"
    yield f"{path}: sound; {len(index):,} items in {parts}, {bank}"
    if index.refit_due:
        yield "the biases no longer fit the gallery: build the index again"
