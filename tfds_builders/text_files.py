"""Text, JSON, lists and tables as people hand them around: any line ending, byte order marks."""

import csv
import io
import json
from typing import Any

from etils import epath

from ncl_jax.errors import InputError, check_text


def read_text(path: epath.Path) -> str:
    """Reads UTF-8 with or without a byte order mark, every line ending as a newline."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path.name}: expected a file, got something else of that name")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: expected UTF-8 text, got {error.reason}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: epath.Path) -> Any:
    """Reads a JSON file; a damaged one is a ValueError with its name."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: expected JSON, got {error}") from error
    if "\\u" in text:
        check_text(json.dumps(content, ensure_ascii=False), path.name)
    return content


def read_list(path: epath.Path) -> list[str]:
    """Reads one id per line, or a JSON list of ids; each id once, in order."""
    if path.suffix == ".json":
        ids = read_json(path)
        if not (isinstance(ids, list) and all(isinstance(item, str) for item in ids)):
            raise InputError(f"{path.name}: expected a list of ids, got {str(ids)[:40]!r}")
    else:
        ids = [line.strip() for line in read_text(path).split("\n")]
    return list(dict.fromkeys(filter(None, ids)))


def read_table(path: epath.Path, *columns: str) -> list[dict[str, str]]:
    """Reads the named columns of a table with a header, separated by commas or semicolons.

    Raises:
      ValueError: a column is missing; the message names those there are.
    """
    text = read_text(path)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    present = [name.strip() for name in reader.fieldnames or []]
    missing = [name for name in columns if name not in present]
    if missing:
        expected, got = ", ".join(missing), ", ".join(present) or "nothing"
        raise InputError(f"{path.name}: expected the column {expected}, got {got}")
    reader.fieldnames = present
    rows = []
    for row in reader:
        values = {name: (row[name] or "").strip() for name in columns}
        if any(values.values()):
            rows.append(values)
    return rows
