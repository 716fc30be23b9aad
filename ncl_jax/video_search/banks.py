"""What the windows of own videos are normalised against, by what the user has.

A file of texts that look like queries, or of their embeddings; the queries that the page has kept;
else the training captions that came with the model; else nothing, and the search is plain.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.pretrained import Model
from ncl_jax.pretrained.inputs import checked_rows
from ncl_jax.readers import text, texts
from ncl_jax.readers.texts import GivenTexts
from ncl_jax.video_search.manifest import manifest_of

KEY = "bank"
"""In `RetrievalIndex.meta`: a sentence on the bank, for the page."""
NONE = "none, plain scores"
FEW = 100
"""Texts below which biases follow single texts rather than what people look for."""
MOST = 100_000
"""Kept queries that are used, the latest ones."""


class GalleryBank(NamedTuple):
    """A bank in the model's space.

    Attributes:
      text: embeddings [bank, dim], unit norm; None for none.
      captions: the texts where they are known, else none.
      source: a sentence for the page.
      auto: what `auto` chose for this bank in the run it came from, "" where that is not known.
    """

    text: Float[np.ndarray, "bank dim"] | None
    captions: list[str]
    source: str
    auto: str = ""


def queries_file(index: str | os.PathLike[str]) -> pathlib.Path:
    """Where the page keeps the queries of an index: one on each line, beside the index."""
    return storage.file_of(index).with_name("index.queries.txt")


def source_of(index: RetrievalIndex) -> str:
    """The sentence on an index's bank."""
    known = index.meta.get(KEY)
    if isinstance(known, str):
        return known
    return f"{len(index.bank_text):,} training captions" if len(index.bank_text) else NONE


def read(bank: str, learn: bool, index: str | os.PathLike[str]) -> GivenTexts | None:
    """The texts of `--bank` and `--learn-bank`; None where neither is asked for.

    Args:
      bank: `.txt` (one text per line), `.csv` or `.tsv` (a column of texts), `.npy` or `.npz`
        (texts, or embeddings [text, dim]); "" for none.
      learn: whether to add the queries that the page of `index` has kept.
      index: its folder.

    Raises:
      OSError: a file cannot be read.
      ValueError: it holds no texts, or both are asked for and `bank` holds embeddings.
    """
    given = texts.read(bank, "--bank") if bank else None
    if not learn:
        return given
    kept = _kept(queries_file(index))
    if given is None:
        return kept
    if given.rows is not None:
        raise InputError(
            f"--bank {bank} holds embeddings, to which --learn-bank cannot add texts; give texts, "
            "or leave one of the two out"
        )
    return GivenTexts(given.texts + kept.texts, None, f"{given.source}, {kept.source}")


def embed(
    given: GivenTexts | None, model: Model, known: Mapping[str, np.ndarray] | None = None
) -> GalleryBank:
    """The bank in the space of `model`; without files, the training captions it came with.

    Args:
      given: what `read` has read.
      model: embeds the texts that are not known.
      known: rows of texts that this model has embedded before, see `known_rows`.

    Raises:
      ValueError: embeddings of another width.
    """
    own = model.bank
    if given is None and own is None:
        return GalleryBank(None, [], NONE)
    if given is None:
        assert own is not None
        source = f"{len(own.text):,} training captions"
        return GalleryBank(own.text, own.captions, source, own.auto)
    if given.rows is not None:
        return GalleryBank(checked_rows(given.rows, "--bank", model.dim), [], given.source)
    rows = dict(known or {})
    if new := sorted(set(given.texts) - rows.keys()):
        rows |= zip(new, model.encode_text(new), strict=True)
    return GalleryBank(
        np.stack([rows[text] for text in given.texts]), given.texts, given.source
    )


def known_rows(index: str | os.PathLike[str], model: Model) -> dict[str, np.ndarray]:
    """What an index of videos knows of texts through this model; nothing of another's index."""
    if not storage.exists(index):
        return {}
    try:
        old = RetrievalIndex.load(index)
        same = manifest_of(old).model == model.fingerprint
    except InputError:  # said where the index itself is needed
        return {}
    captions = old.meta.get("bank_captions", [])
    if not same or len(captions) != len(old.bank_text):
        return {}
    return dict(zip(map(str, captions), old.bank_text, strict=True))


def as_meta(bank: GalleryBank) -> dict[str, Any]:
    """For `RetrievalIndex.build(meta=...)`."""
    return {"bank_captions": bank.captions, KEY: bank.source, "auto": bank.auto}


def remarks(bank: GalleryBank) -> Iterator[str]:
    """What the user should know of the bank."""
    if bank.auto == "none":
        yield (
            "remark: on its training pairs the run found no gain from this bank, so plain scores "
            "are shown first; --bank takes texts that look like your queries"
        )
    if bank.text is None:
        yield (
            "remark: no bank, so the search is plain; give texts that look like queries by --bank "
            "captions.txt, and every window gets its fair share"
        )
    elif len(bank.text) < FEW:
        yield (
            f"remark: a bank of {len(bank.text)} texts is small, and biases follow single texts; "
            f"give {FEW} or more"
        )


def _kept(path: pathlib.Path) -> GivenTexts:
    if not path.exists():
        raise InputError(
            f"--learn-bank: there is no {path}; search in the page of `serve --learn-bank` first"
        )
    queries = texts.lines(text.read_text(path), path)[-MOST:]
    return GivenTexts(queries, None, f"{len(queries):,} queries of the page")
