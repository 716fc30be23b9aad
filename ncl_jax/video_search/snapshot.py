"""One version of an index of videos: its windows, their files and captions, and its searches."""

import dataclasses
import pathlib
import re
import stat
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from werkzeug.exceptions import Conflict, NotFound

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex
from ncl_jax.video_search.manifest import GalleryManifest, Stamp, Window, clock, manifest_of
from ncl_jax.video_search.run_clips import RunClips

_ITEM = re.compile("([0-9a-f]+)-([0-9]{1,9})")


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
    run: RunClips | None = None

    @classmethod
    def of(
        cls, index: RetrievalIndex, version: str, roots: Sequence[pathlib.Path] = (),
        run: RunClips | None = None,
    ) -> "IndexSnapshot":  # fmt: skip
        """Raises ValueError for an index that was not built from videos, nor by a `run`."""
        manifest = manifest_of(index) if run is None else run.manifest
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
            run,
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
        captions = {} if self.run is None else {"captions": self.run.captions[row]}
        return {"item": item, "clock": shown, "score": score} | window._asdict() | captions

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
            raise NotFound(f"{name} is gone; {self._advice}") from None
        if not any(path.is_relative_to(root) for root in (self.folder.resolve(), *self.roots)):
            raise NotFound(
                f"{name} lies outside the indexed folder; name the folder it leads to by --root "
                f"when starting the server, or {self._advice}"
            )
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(f"{name} is no longer a file; {self._advice}")
        if Stamp(status.st_size, status.st_mtime_ns) != self.manifest.files[name].stamp:
            raise Conflict(f"{name} was changed after it was indexed; {self._advice}")
        return path

    @property
    def _advice(self) -> str:
        if self.run is None:
            return "build the index again"
        return f"put the file that the run's dataset was built from back into {self.folder}"

    def picture(self, row: int, look: Callable[[pathlib.Path, float], bytes]) -> bytes:
        """A JPEG of a window: from its file, or where that is gone what the run's dataset stores.

        Args:
          row: of the window.
          look: (file, second of the middle) -> JPEG.

        Raises:
          NotFound: as `file`, and nothing is stored.
          Conflict: likewise.
        """
        window = self.windows[row]
        try:
            path = self.file(row)
        except (NotFound, Conflict):
            if self.run is None or (stored := self.run.frame(row)) is None:
                raise
            return stored
        return look(path, (window.start + window.end) / 2)
