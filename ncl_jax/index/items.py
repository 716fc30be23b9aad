"""The items of an index in parts, each of which is stored in files of its own and never changed."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ncl_jax.index.array_files import Stored

_FEW = 16
"""Names up to which looking for each in all ids is quicker than making a set of these."""


class Ids(Sequence[str]):
    """Ids as one text and the ends of each in it, so that a million need not be read to use one.

    Example:
      >>> ids = Ids.of(["a", "bc"])
      >>> ids[1], list(ids), ids.known(["c", "a"])
      ('bc', ['a', 'bc'], ['a'])
    """

    def __init__(self, text: UInt8[np.ndarray, " byte"], ends: Int[np.ndarray, " id"]):
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, ids: Sequence[str]) -> "Ids":
        """From strings; halves of surrogate pairs, as names of files may hold, are kept."""
        encoded = [i.encode("utf-8", "surrogatepass") for i in ids]
        text = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(text, np.cumsum([len(e) for e in encoded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return list(self)[row]
        start = self.ends[row - 1] if row else 0
        return _decoded(self.text[start : self.ends[row]].tobytes())

    def __iter__(self) -> Iterator[str]:
        whole, start = self.text.tobytes(), 0
        for end in self.ends.tolist():
            yield _decoded(whole[start:end])
            start = end

    def known(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that are here."""
        if len(ids) > _FEW:
            return sorted(set(ids) & set(self))
        whole, starts = self.text.tobytes(), np.concatenate([[0], self.ends[:-1]])
        return [i for i in ids if self._holds(i.encode("utf-8", "surrogatepass"), whole, starts)]

    def _holds(self, name: bytes, whole: bytes, starts: np.ndarray) -> bool:
        if not name:
            return bool((starts == self.ends).any())
        place = whole.find(name)
        while place >= 0:
            row = int(np.searchsorted(self.ends, place, side="right"))
            if starts[row] == place and self.ends[row] == place + len(name):
                return True
            place = whole.find(name, place + 1)
        return False


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


class Part:
    """Some items: ids, unit-norm vectors and biases in logits.

    Example:
      >>> part = Part.of(Ids.of(["a", "b"]), np.eye(2, dtype="f"), np.zeros(2, "f"))
      >>> len(part), list(part.ids), len(joined([part, part]))
      (2, ['a', 'b'], 4)
    """

    def __init__(self, stored: Stored):
        """From the arrays `video`, `bias`, `text` and `ends`."""
        self.stored = stored
        self.video, self.bias, text, ends = (
            stored.arrays[name] for name in ("video", "bias", "text", "ends")
        )
        self.ids = Ids(text, ends)

    @classmethod
    def of(
        cls, ids: Ids, video: Float[np.ndarray, "_ dim"], bias: Float[np.ndarray, " _"]
    ) -> "Part":
        """From what it holds."""
        return cls(Stored({"video": video, "bias": bias, "text": ids.text, "ends": ids.ends}))

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, keep: Bool[np.ndarray, " _"]) -> "Part":
        """Some of the items; itself where it is all."""
        if keep.all():
            return self
        left = [i for i, stays in zip(self.ids, keep.tolist(), strict=True) if stays]
        return Part.of(Ids.of(left), self.video[keep], self.bias[keep])


def joined(parts: Sequence[Part]) -> Part:
    """The items of all, in their order."""
    text = np.concatenate([part.ids.text for part in parts])
    first = np.cumsum([0, *(len(part.ids.text) for part in parts)])
    ends = [part.ids.ends + start for part, start in zip(parts, first, strict=False)]
    return Part.of(
        Ids(text, np.concatenate(ends)),
        np.concatenate([part.video for part in parts]),
        np.concatenate([part.bias for part in parts]),
    )


def grown(parts: tuple[Part, ...], new: Part) -> tuple[Part, ...]:
    """With one more part; parts of like size become one, so that there are few.

    Adding n items one by one copies each of them at most log2(n) times.
    """
    if not len(new):
        return parts
    parts = (*filter(len, parts), new)
    while len(parts) > 1 and len(parts[-1]) >= len(parts[-2]):
        parts = (*parts[:-2], joined(parts[-2:]))
    return parts
