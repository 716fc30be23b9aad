"""Parts of a file over HTTP (RFC 9110, section 14): what a header asks for, and several at once."""

import itertools
import pathlib
import re
import secrets
from collections.abc import Sequence

Part = tuple[int, int]
"""First byte, and the one after the last."""

MAX_PARTS = 32
"""A header of more is ignored, as the RFC allows; players ask for one, download tools for a few."""
_RANGE = re.compile(r"([0-9]{0,40})-([0-9]{0,40})")


def parse(header: str, length: int) -> list[Part] | None:
    """What a header `Range` asks for.

    Args:
      header: its value.
      length: of the file in bytes.

    Returns:
      Parts that lie in the file, in the order asked for; parts that overlap or touch are joined,
      and parts beyond the end are left out. Empty: none lies in the file (the status is 416). None:
      the header is to be ignored, because its unit is unknown or it is not as the RFC has it.

    Example:
      >>> parse("bytes=0-9, 20-, -5", 100)
      [(0, 10), (20, 100)]
      >>> parse("bytes=-500", 100), parse("bytes=100-", 100), parse("lines=1-2", 100)
      ([(0, 100)], [], None)
    """
    unit, equals, listed = header.partition("=")
    asked = [item.strip(" \t") for item in listed.split(",")]
    asked = [item for item in asked if item]  # a list may have empty elements
    if not equals or unit.strip(" \t").lower() != "bytes" or not 1 <= len(asked) <= MAX_PARTS:
        return None
    parts = []
    for item in asked:
        found = _RANGE.fullmatch(item)
        if not found or item == "-":
            return None
        first, last = found.groups()
        if first and last and int(first) > int(last):
            return None
        if first:
            parts.append((int(first), min(int(last) + 1, length) if last else length))
        else:
            parts.append((max(0, length - int(last)), length))
    return _joined([(start, stop) for start, stop in parts if start < stop])


def _joined(parts: list[Part]) -> list[Part]:
    """Parts that overlap or touch as one, in the place of the first of them."""
    joined: list[Part] = []
    for start, stop in parts:
        near = [other for other in joined if start <= other[1] and other[0] <= stop]
        whole = (min([start, *(a for a, _ in near)]), max([stop, *(b for _, b in near)]))
        place = joined.index(near[0]) if near else len(joined)
        joined = [other for other in joined if other not in near]
        joined.insert(place, whole)
    return joined


def cut(parts: Sequence[Part], size: int) -> list[Part]:
    """The parts that begin in the first `size` bytes of what is asked for, the last one cut.

    A client sees in `Content-Range` what it got, and asks for the rest.

    Example:
      >>> cut([(0, 10), (20, 100), (200, 300)], 15)
      [(0, 10), (20, 25)]
    """
    before = itertools.accumulate((stop - start for start, stop in parts), initial=0)
    left = [(part, size - used) for part, used in zip(parts, before, strict=False)]
    return [(start, min(stop, start + rest)) for (start, stop), rest in left if rest > 0]


def multipart(
    path: pathlib.Path, parts: Sequence[Part], length: int, kind: str
) -> tuple[bytes, str]:
    """Several parts as one body (RFC 9110, section 14.6).

    Args:
      path: the file.
      parts: see `parse`; they are held in memory.
      length: of the file in bytes.
      kind: its media type.

    Returns:
      The body and its own media type.
    """
    boundary, pieces = secrets.token_hex(16), []
    with path.open("rb") as stream:
        for start, stop in parts:
            stream.seek(start)
            head = f"Content-Type: {kind}\r\nContent-Range: bytes {start}-{stop - 1}/{length}"
            content = stream.read(stop - start)
            pieces.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n")
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/byteranges; boundary={boundary}"
