"""What the windows of own videos are normalised against, by what the user has.

A file of texts that look like queries, or of their embeddings; the queries that the page has kept;
else the training captions that came with the model; else nothing, and the search is plain.
"""

import csv
import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ncl_jax.errors import InputError
from ncl_jax.files import one_line
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.pretrained import Model
from ncl_jax.pretrained.inputs import checked_rows
from ncl_jax.readers import npy, text
from ncl_jax.video_search.manifest import manifest_of

KEY = "bank"
"""In `RetrievalIndex.meta`: a sentence on the bank, for the page."""
NONE = "none, plain scores"
FEW = 100
"""Texts below which biases follow single texts rather than what people look for."""
MOST = 100_000
"""Kept queries that are used, the latest ones."""
COLUMNS = ("caption", "text", "query", "sentence", "description")
"""Names of the column of texts in a table of several."""


class GivenTexts(NamedTuple):
    """Texts, or embeddings of texts, from files.

    Attributes:
      texts: to be embedded.
      rows: embedded already, [text, dim], or None.
      source: for the page.
    """

    texts: list[str]
    rows: np.ndarray | None
    source: str


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
    given = _file(pathlib.Path(bank).expanduser()) if bank else None
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
    texts = _lines(text.read_text(path), path)[-MOST:]
    return GivenTexts(texts, None, f"{len(texts):,} queries of the page")


def _file(path: pathlib.Path) -> GivenTexts:
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        return _arrays(path)
    if kind not in (".txt", ".csv", ".tsv"):
        raise InputError(
            f"--bank {path}: expected .txt, .csv, .tsv, .npy or .npz; save one text per line as "
            ".txt"
        )
    content = text.read_text(path)
    texts = _lines(content, path) if kind == ".txt" else _column(content, path)
    return GivenTexts(texts, None, f"{len(texts):,} texts of {one_line(path.name)}")


def _lines(content: str, path: pathlib.Path) -> list[str]:
    return _some([line.strip() for line in content.split("\n") if line.strip()], path)


def _column(content: str, path: pathlib.Path) -> list[str]:
    table = csv.reader(io.StringIO(content), delimiter="\t" if path.suffix == ".tsv" else ",")
    try:
        head, *rows = [row for row in table if row]
    except ValueError:
        head, rows = [], []
    except csv.Error as error:
        raise InputError(f"{path}: expected a table ({error}); save it again as CSV") from error
    names = [name.strip().lower() for name in head]
    if len(head) == 1:
        place = 0
        rows = rows if names[0] in COLUMNS else [head, *rows]
    else:
        place = next((names.index(name) for name in COLUMNS if name in names), -1)
    if place < 0:
        raise InputError(
            f"{path}: expected a column named {', '.join(COLUMNS)}, got "
            f"{', '.join(head) or 'none'}; rename the one of the texts"
        )
    return _some([row[place].strip() for row in rows if len(row) > place and row[place].strip()],
                 path)  # fmt: skip


def _arrays(path: pathlib.Path) -> GivenTexts:
    found = npy.read(path, f"--bank {path}: cannot be read", "name another file")
    if isinstance(found, dict):
        names = [name for name in ("bank_text", "text", "embedding") if name in found]
        if not names:
            raise InputError(
                f"--bank {path}: expected an array bank_text, text or embedding, got "
                f"{', '.join(found) or 'none'}"
            )
        found = found[names[0]]
    if found.dtype.kind == "U" and found.ndim == 1:
        texts = _some([str(line).strip() for line in found if str(line).strip()], path)
        return GivenTexts(texts, None, f"{len(texts):,} texts of {one_line(path.name)}")
    if found.ndim != 2 or not len(found):
        raise InputError(
            f"--bank {path}: expected texts [text] or embeddings [text, dim], got {found.dtype} "
            f"{list(found.shape)}"
        )
    return GivenTexts([], found, f"{len(found):,} embeddings of {one_line(path.name)}")


def _some(texts: Sequence[str], path: pathlib.Path) -> list[str]:
    if not texts:
        raise InputError(f"{path}: expected texts that look like queries, found none")
    return list(texts)
