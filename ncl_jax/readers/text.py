"""UTF-8 and JSON as people hand them around: any line ending, byte order marks."""

import json
import os
import pathlib
from typing import Any

from ncl_jax.errors import InputError, blame_input, check_text
from ncl_jax.readers import limits

_CHUNK = 1 << 20


def read_bytes(path: str | os.PathLike[str], most: int = limits.TEXT, name: str = "") -> bytes:
    """A whole file of limited length.

    Args:
      path: of the file; an `etils.epath.Path` may lie anywhere.
      most: bytes.
      name: for messages; the path where it is empty.

    Raises:
      OSError: it cannot be read.
      ValueError: it is longer.
    """
    place: Any = path if isinstance(path, pathlib.PurePath) else pathlib.Path(path)
    parts, length = [], 0
    with place.open("rb") as stream:
        while part := stream.read(_CHUNK):  # `read` takes memory for all it is asked for
            parts.append(part)
            length += len(part)
            if length > most:
                raise InputError(f"{name or path}: expected at most {most:,} bytes, it has more")
    return b"".join(parts)


def read_text(path: str | os.PathLike[str], name: str = "") -> str:
    """UTF-8 with or without a byte order mark, every line ending as a newline.

    Args:
      path: as `read_bytes`.
      name: as there.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no UTF-8, or too long.
    """
    data = read_bytes(path, name=name)
    with blame_input(f"{name or path}: expected UTF-8 text", "save it as UTF-8"):
        text = data.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | os.PathLike[str], name: str = "") -> Any:
    """The content of a JSON file; see `parse_json`."""
    return parse_json(read_text(path, name), name or str(path))


def parse_json(text: str, name: str, *, is_text: bool = True) -> Any:
    """The content of a JSON text.

    Args:
      text: JSON, or the NaN and infinity that Python adds to it.
      name: for messages.
      is_text: whether strings must be text; names of files need not be.

    Raises:
      ValueError: it is none, has halves of surrogate pairs, or is nested too deep.

    Example:
      >>> parse_json('{"a": [1]}', "x")
      {'a': [1]}
    """
    with blame_input(f"{name}: expected JSON", "fetch or make it again"):
        content = json.loads(text)
        if _deeper(content, limits.DEPTH):
            raise InputError(f"{name}: expected JSON of at most {limits.DEPTH} levels, got more")
        if is_text and "\\u" in text:
            check_text(json.dumps(content, ensure_ascii=False), name)
    return content


def _deeper(content: Any, depth: int) -> bool:
    level = [content]
    for _ in range(depth):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                inner += [v for v in part.values() if isinstance(v, (dict, list))]
            elif isinstance(part, list):
                inner += [v for v in part if isinstance(v, (dict, list))]
        if not inner:
            return False
        level = inner
    return True
