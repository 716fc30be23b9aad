"""The index behind the search page: what a search needs of it, one version at a time."""

import contextlib
import dataclasses
import pathlib
import re
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from werkzeug.exceptions import Conflict, NotFound

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.video_search import banks
from ncl_jax.video_search.manifest import GalleryManifest, Stamp, Window, clock, manifest_of

_ITEM = re.compile("([0-9a-f]+)-([0-9]{1,9})")


class Library:
    """An index on disk and what a search needs of it; follows the file when it is built again."""

    def __init__(
        self,
        path: str,
        encode: Callable[[Sequence[str]], np.ndarray],
        model: str,
        roots: Iterable[pathlib.Path] = (),
    ) -> None:
        """Reads the index.

        Args:
          path: folder of the index.
          encode: texts to unit-norm rows.
          model: fingerprint of the model that `encode` is of.
          roots: folders, beside that of the videos, that links among the videos may lead to.

        Raises:
          ValueError: as `snapshot`.
        """
        self._path, self._encode, self._model = path, encode, model
        self._roots = tuple(root.resolve() for root in roots)
        self._reading, self._embedding = threading.Lock(), threading.Lock()
        self._queries: pathlib.Path | None = None
        self._keeping = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._snapshot: IndexSnapshot | None = None
        self.snapshot()

    def snapshot(self) -> "IndexSnapshot":
        """The index as it is on disk now.

        Raises:
          ValueError: it is gone, damaged, made with another checkpoint, or of another folder than
            that of the start.
        """
        with self._reading:
            file = storage.file_of(self._path)
            status = file.stat() if file.exists() else None
            stamp = None if status is None else (status.st_mtime_ns, status.st_size)
            if self._snapshot is None or stamp != self._stamp:
                index = RetrievalIndex.load(self._path, check=True)
                version = "".join(f"{number:x}" for number in stamp or ())
                shown = IndexSnapshot.of(index, version, self._roots)
                self._check(shown)
                self._snapshot, self._stamp = shown, stamp
            return self._snapshot

    def _check(self, shown: "IndexSnapshot") -> None:
        """Whether an index that was built again may take the place of the one of the start."""
        if shown.manifest.model != self._model:
            raise InputError("the index was built with another checkpoint; start the server again")
        if self._snapshot and shown.folder != self._snapshot.folder:
            raise InputError("the index is of another folder now; start the server again")

    def embed(self, query: str) -> np.ndarray:
        """One text -> [1, dim]; one at a time, the model keeps all cores busy."""
        with self._embedding:
            return self._encode([query])

    @property
    def keeps_queries(self) -> bool:
        """Whether `keep` writes queries to a file."""
        return self._queries is not None

    def keep_queries(self) -> None:
        """From now on, `keep` writes queries to a file beside the index.

        Raises:
          OSError: it cannot be written.
        """
        self._queries = banks.queries_file(self._path)
        self._queries.open("a", encoding="utf-8").close()

    def keep(self, query: str) -> None:
        """Remembers what was looked for, on a line of its own, if that was asked for."""
        if self._queries is None:
            return
        # A full disk must not end a search.
        with (
            contextlib.suppress(OSError), self._keeping,
            self._queries.open("a", encoding="utf-8") as file,
        ):  # fmt: skip
            file.write(" ".join(query.split()) + "\n")


@dataclasses.dataclass(frozen=True)
class IndexSnapshot:
    """One version of the index, ready to be searched both ways, plain and normalised."""

    version: str
    manifest: GalleryManifest
    roots: tuple[pathlib.Path, ...]
    windows: list[Window]
    index: RetrievalIndex
    captions: list[str]
    caption_text: np.ndarray
    caption_bias: np.ndarray

    @classmethod
    def of(
        cls, index: RetrievalIndex, version: str, roots: Sequence[pathlib.Path] = ()
    ) -> "IndexSnapshot":
        """Raises ValueError for an index that was not built from videos."""
        manifest = manifest_of(index)
        known = index.meta.get("bank_captions", [])
        if not isinstance(known, list) or len(known) not in (0, len(index.bank_text)):
            raise InputError("the index has other captions than its bank; build it again")
        # Equal captions have equal rows; each is offered once.
        captions, first = np.unique(np.asarray([str(text) for text in known]), return_index=True)
        first = first.astype(int)
        return cls(
            version,
            manifest,
            tuple(roots),
            manifest.windows,
            index,
            captions.tolist(),
            index.bank_text[first],
            index.bank_bias[first],
        )

    def search(self, query: np.ndarray, k: int, scores: str) -> list[dict[str, Any]]:
        """Best windows of one query [1, dim]."""
        found = self.index.search(query, k, use_bias=scores == "normalised")
        rows, logits = found.rows[0].tolist(), found.scores[0].tolist()
        return [self.hit(row, score) for row, score in zip(rows, logits, strict=True)]

    def similar(self, row: int, k: int, scores: str) -> list[dict[str, Any]]:
        """Windows like one of them, without it."""
        found = self.search(self.index.video[row][None], k + 1, scores)
        return [hit for hit in found if not hit["item"].endswith(f"-{row}")][:k]

    def some(self, k: int) -> list[dict[str, Any]]:
        """The middle windows of up to `k` files, evenly spread over their names."""
        by_file: dict[str, list[int]] = {}
        for row, window in enumerate(self.windows):
            by_file.setdefault(window.file, []).append(row)
        rows = list(by_file.values())
        chosen = np.linspace(0, len(rows) - 1, min(k, len(rows))).round().astype(int)
        return [self.hit(rows[i][len(rows[i]) // 2], None) for i in chosen]

    def hit(self, row: int, score: float | None) -> dict[str, Any]:
        """What the page shows of a window; without a score for one that was not searched for."""
        window = self.windows[row]
        shown = f"{clock(window.start)}-{clock(window.end)}"
        item = f"{self.version}-{row}"
        return {"item": item, "clock": shown, "score": score} | window._asdict()

    def row(self, item: str) -> int:
        """Raises Conflict for an item of another version, NotFound for what is none."""
        found = _ITEM.fullmatch(item)
        if found and found[1] != self.version:
            raise Conflict("the index was built again; search again")
        if not found or int(found[2]) >= len(self.windows):
            raise NotFound(f"the index has no item {item!r}; expected an item of a search result")
        return int(found[2])

    def best_captions(self, row: int, k: int, scores: str) -> list[dict[str, Any]]:
        """Best training captions of one window."""
        logits = self.index.scale * (self.caption_text @ self.index.video[row])
        if scores == "normalised":
            logits = logits + self.caption_bias
        best = np.argsort(-logits, kind="stable")[:k]
        return [{"caption": self.captions[i], "score": float(logits[i])} for i in best]

    @property
    def folder(self) -> pathlib.Path:
        return pathlib.Path(self.manifest.folder)

    def file(self, row: int) -> pathlib.Path:
        """The file of a window, without links.

        Raises:
          NotFound: it went away after the build, is no regular file, or lies, links followed,
            outside the folder and the roots.
          Conflict: it is not the file that was indexed.
        """
        name = self.windows[row].file
        try:
            path = (self.folder / name).resolve(strict=True)
            status = path.stat()
        except (OSError, RuntimeError, ValueError):  # gone, a circle of links, or no name at all
            raise NotFound(f"{name} is gone; build the index again") from None
        if not any(path.is_relative_to(root) for root in (self.folder.resolve(), *self.roots)):
            raise NotFound(
                f"{name} lies outside the indexed folder; name the folder it leads to by --root "
                "when starting the server, or build the index again"
            )
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(f"{name} is no longer a file; build the index again")
        if Stamp(status.st_size, status.st_mtime_ns) != self.manifest.files[name].stamp:
            raise Conflict(f"{name} was changed after it was indexed; build the index again")
        return path
