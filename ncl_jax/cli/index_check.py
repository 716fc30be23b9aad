"""Reads all of an index and says what it holds."""

import argparse
from collections.abc import Iterator

from ncl_jax.index import RetrievalIndex


def check(args: argparse.Namespace) -> Iterator[str]:
    """Every file against its checksum; a search reads the vectors without looking at these."""
    index = RetrievalIndex.load(args.index, check=True)
    bank = f"bank of {len(index.bank_text):,} texts" if len(index.bank_text) else "no bank"
    yield f"{args.index}: sound; {len(index):,} items in {len(index.parts)} parts, {bank}"
    if index.refit_due:
        yield "the biases no longer fit the gallery: build the index again"
