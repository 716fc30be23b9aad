"""Files of texts, or of their embeddings: one text per line, a column of a table, an array."""

import csv
import io
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ncl_jax.errors import InputError
from ncl_jax.files import one_line
from ncl_jax.readers import npy, text

COLUMNS = ("caption", "text", "query", "sentence", "description")
"""Names of the column of texts in a table of several."""


class GivenTexts(NamedTuple):
    """Texts, or embeddings of texts, from files.

    Attributes:
      texts: to be embedded.
      rows: embedded already, [text, dim], or None.
      source: what they are, in a few words.
    """

    texts: list[str]
    rows: np.ndarray | None
    source: str


def read(file: str | os.PathLike[str], option: str) -> GivenTexts:
    """Texts that look like queries, or their embeddings.

    Args:
      file: `.txt` (one text per line), `.csv` or `.tsv` (a column of texts), `.npy` or `.npz`
        (texts, or embeddings [text, dim]).
      option: what named the file, for messages: "--bank", say.

    Raises:
      OSError: the file cannot be read.
      ValueError: it holds no texts.
    """
    path = pathlib.Path(file).expanduser()
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        return _arrays(path, option)
    if kind not in (".txt", ".csv", ".tsv"):
        raise InputError(
            f"{option} {path}: expected .txt, .csv, .tsv, .npy or .npz; save one text per line as "
            ".txt"
        )
    content = text.read_text(path)
    texts = lines(content, path) if kind == ".txt" else _column(content, path)
    return GivenTexts(texts, None, f"{len(texts):,} texts of {one_line(path.name)}")


def lines(content: str, path: pathlib.Path) -> list[str]:
    """The lines that hold a text; `path` is for the message.

    Raises:
      ValueError: there is none.

    Example:
      >>> lines(" a dog\\n\\n", pathlib.Path("x.txt"))
      ['a dog']
    """
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


def _arrays(path: pathlib.Path, option: str) -> GivenTexts:
    found = npy.read(path, f"{option} {path}: cannot be read", "name another file")
    if isinstance(found, dict):
        names = [name for name in ("bank_text", "text", "embedding") if name in found]
        if not names:
            raise InputError(
                f"{option} {path}: expected an array bank_text, text or embedding, got "
                f"{', '.join(found) or 'none'}"
            )
        found = found[names[0]]
    if found.dtype.kind == "U" and found.ndim == 1:
        texts = _some([str(line).strip() for line in found if str(line).strip()], path)
        return GivenTexts(texts, None, f"{len(texts):,} texts of {one_line(path.name)}")
    if found.ndim != 2 or not len(found):
        raise InputError(
            f"{option} {path}: expected texts [text] or embeddings [text, dim], got {found.dtype} "
            f"{list(found.shape)}"
        )
    return GivenTexts([], found, f"{len(found):,} embeddings of {one_line(path.name)}")


def _some(texts: Sequence[str], path: pathlib.Path) -> list[str]:
    if not texts:
        raise InputError(f"{path}: expected texts that look like queries, found none")
    return list(texts)
