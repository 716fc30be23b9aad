"""Text, JSON, lists and tables as people hand them around: any line ending, byte order marks."""

import csv
import io
import reprlib
from typing import Any

from etils import epath

from ncl_jax.errors import InputError, blame_input
from ncl_jax.files import one_line
from ncl_jax.readers import text


def read_text(path: epath.Path) -> str:
    """Reads UTF-8 with or without a byte order mark, every line ending as a newline."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path.name}: expected a file, got something else of that name")
    return text.read_text(path, path.name)


def read_json(path: epath.Path) -> Any:
    """Reads a JSON file; a damaged one is a ValueError with its name."""
    return text.read_json(path, path.name)


def read_list(path: epath.Path) -> list[str]:
    """Reads one id per line, or a JSON list of ids; each id once, in order."""
    if path.suffix == ".json":
        ids = read_json(path)
        if not (isinstance(ids, list) and all(isinstance(item, str) for item in ids)):
            raise InputError(f"{path.name}: expected a list of ids, got {reprlib.repr(ids)[:40]}")
    else:
        ids = [line.strip() for line in read_text(path).split("\n")]
    return list(dict.fromkeys(filter(None, ids)))


def read_table(path: epath.Path, *columns: str) -> list[dict[str, str]]:
    """Reads the named columns of a table with a header, separated by commas or semicolons.

    Raises:
      ValueError: a column is missing; the message names those there are.
    """
    content = read_text(path)
    with blame_input(f"{path.name}: expected a table", "fetch or make it again"):
        return _rows(path.name, content, columns)


def _rows(name: str, content: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    header = content.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(content), delimiter=separator, skipinitialspace=True)
    present = [column.strip() for column in reader.fieldnames or []]
    missing = [column for column in columns if column not in present]
    if missing:
        expected, got = ", ".join(missing), one_line(", ".join(present))[:200] or "nothing"
        raise InputError(f"{name}: expected the column {expected}, got {got}")
    reader.fieldnames = present
    rows = []
    for row in reader:
        values = {column: (row[column] or "").strip() for column in columns}
        if any(values.values()):
            rows.append(values)
    return rows
