"""The search page: a small web application over an index of videos.

    GET /                              the page
    GET /api/gallery                   {"folder", "windows", "files", "normalised", "captions"}
    GET /api/search?q=&k=&scores=      {"hits": [hit]}, best first; scores "normalised" or "plain"
    GET /api/captions?item=&k=&scores= {"hits": [{"caption", "score"}]}: a window's best captions
    GET /preview/ITEM                  JPEG of the middle of a window
    GET /video/ITEM                    the file itself, with byte ranges

A hit is {"item", "file", "start", "end", "clock", "score"}: seconds count from the file's first
frame, and `item` is "VERSION-ROW", a row of one version of the index, so that a page opened before
the index was built again never plays another file. Errors are {"error": one sentence} with a status
of 4xx. Only files that the index names can be read, and by item, never by path.
"""

import dataclasses
import functools
import io
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Callable, Collection, Sequence
from typing import Any

import flask
import numpy as np
from werkzeug.exceptions import BadRequest, Conflict, HTTPException, NotFound

from ncl_jax import gallery
from ncl_jax.data import video
from ncl_jax.index import RetrievalIndex, storage

MAX_HITS = 100
MAX_QUERY = 1000
PREVIEWS_KEPT = 500
PREVIEW_SIDE = 180
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ITEM = re.compile("([0-9a-f]+)-([0-9]{1,9})")
_POLICY = "default-src 'self'; media-src 'self'; object-src 'none'; frame-ancestors 'none'"


class Library:
    """An index on disk and what a search needs of it; follows the file when it is built again."""

    def __init__(
        self, path: str, encode: Callable[[Sequence[str]], np.ndarray], model: str
    ) -> None:
        self._path, self._encode, self._model = path, encode, model
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._shelf: Shelf | None = None
        self.shelf()

    def shelf(self) -> "Shelf":
        """The index as it is on disk now.

        Raises:
          ValueError: it is gone, damaged, or made with another checkpoint.
        """
        with self._lock:
            file = storage.file_of(self._path)
            status = file.stat() if file.exists() else None
            stamp = None if status is None else (status.st_mtime_ns, status.st_size)
            if self._shelf is None or stamp != self._stamp:
                index = RetrievalIndex.load(self._path)
                shelf = Shelf.of(index, "".join(f"{number:x}" for number in stamp or ()))
                if index.meta["gallery"]["model"] != self._model:
                    raise ValueError(
                        "the index was built with another checkpoint; start the server again"
                    )
                self._shelf, self._stamp = shelf, stamp
            return self._shelf

    def embed(self, query: str) -> np.ndarray:
        """One text -> [1, dim]; one at a time, the model keeps all cores busy."""
        with self._lock:
            return self._encode([query])


@dataclasses.dataclass(frozen=True)
class Shelf:
    """One version of the index, ready to be searched both ways, plain and normalised."""

    version: str
    folder: pathlib.Path
    windows: list[gallery.Window]
    row_of: dict[str, int]
    indexes: dict[str, RetrievalIndex]
    captions: list[str]
    caption_text: np.ndarray
    caption_bias: np.ndarray

    @classmethod
    def of(cls, index: RetrievalIndex, version: str) -> "Shelf":
        """Raises ValueError for an index of other things than videos."""
        windows = gallery.windows_of(index)
        plain = dataclasses.replace(index, bias=np.zeros_like(index.bias))
        # Equal captions have equal rows; each is offered once.
        captions, first = np.unique(
            np.asarray(index.meta.get("bank_captions", []), str), return_index=True
        )
        return cls(
            version,
            pathlib.Path(index.meta["gallery"]["folder"]),
            windows,
            {window.id: row for row, window in enumerate(windows)},
            {"plain": plain, "normalised": index},
            captions.tolist(),
            index.bank_text[first],
            index.bank_bias[first],
        )

    def search(self, query: np.ndarray, k: int, scores: str) -> list[dict[str, Any]]:
        """Best windows of one query [1, dim]."""
        found = self.indexes[scores].search(query, k)
        return [
            self.hit(self.row_of[name], score)
            for name, score in zip(found.ids[0], found.scores[0].tolist(), strict=True)
        ]

    def hit(self, row: int, score: float) -> dict[str, Any]:
        window = self.windows[row]
        clock = f"{gallery.clock(window.start)}-{gallery.clock(window.end)}"
        item = f"{self.version}-{row}"
        return {"item": item, "clock": clock, "score": score} | window._asdict()

    def row(self, item: str) -> int:
        """Raises Conflict for an item of another version, NotFound for what is none."""
        found = _ITEM.fullmatch(item)
        if found and found[1] != self.version:
            raise Conflict("the index was built again; search again")
        if not found or int(found[2]) >= len(self.windows):
            raise NotFound(f"the index has no item {item!r}; expected one that a search has named")
        return int(found[2])

    def best_captions(self, row: int, k: int, scores: str) -> list[dict[str, Any]]:
        """Best training captions of one window."""
        index = self.indexes["plain"]
        logits = index.scale * (self.caption_text @ index.video[row])
        if scores == "normalised":
            logits = logits + self.caption_bias
        best = np.argsort(-logits, kind="stable")[:k]
        return [{"caption": self.captions[i], "score": float(logits[i])} for i in best]

    def file(self, row: int) -> pathlib.Path:
        """Raises NotFound where it went away after the build."""
        path = self.folder / self.windows[row].file
        if not path.is_file():
            raise NotFound(f"{self.windows[row].file} is gone; build the index again")
        return path


def create_app(library: Library, hosts: Collection[str] | None = None) -> flask.Flask:
    """The application.

    Args:
      library: what is searched.
      hosts: names, in lower case, under which the page may be asked for; a page elsewhere cannot
        reach it under a name of its own. None: any name.
    """
    app = flask.Flask(__name__, static_folder="static", static_url_path="/static")
    app.add_url_rule("/", view_func=lambda: app.send_static_file("page.html"), endpoint="page")

    @app.before_request
    def check_host() -> None:
        if hosts is not None and (name := _host()) not in hosts:
            raise BadRequest(f"Host: expected one of {', '.join(sorted(hosts))}, got {name!r}")

    @app.get("/api/gallery")
    def about() -> dict[str, Any]:
        shelf = library.shelf()
        return {
            "folder": shelf.folder.name,
            "windows": len(shelf.windows),
            "files": len({window.file for window in shelf.windows}),
            "normalised": bool(len(shelf.indexes["normalised"].bank_text)),
            "captions": len(shelf.captions),
        }

    @app.get("/api/search")
    def search() -> dict[str, Any]:
        query = flask.request.args.get("q", "").strip()
        if not query or len(query) > MAX_QUERY:
            raise BadRequest(f"expected a text of 1 to {MAX_QUERY} characters")
        return {"hits": library.shelf().search(library.embed(query), _k(), _scores())}

    @app.get("/api/captions")
    def captions() -> dict[str, Any]:
        shelf = library.shelf()
        if not shelf.captions:
            raise NotFound("the index knows no captions; its run kept none")
        row = shelf.row(flask.request.args.get("item", ""))
        shelf.file(row)
        return {"hits": shelf.best_captions(row, _k(), _scores())}

    @functools.lru_cache(PREVIEWS_KEPT)
    def picture(path: pathlib.Path, changed: int, middle: float) -> bytes:
        return video.jpeg_at(path, middle, PREVIEW_SIDE, jpeg_quality=80)

    @app.get("/preview/<item>")
    def preview(item: str) -> flask.Response:
        shelf = library.shelf()
        row = shelf.row(item)
        path, window = shelf.file(row), shelf.windows[row]
        jpeg = picture(path, path.stat().st_mtime_ns, (window.start + window.end) / 2)
        return flask.send_file(io.BytesIO(jpeg), mimetype="image/jpeg")

    @app.get("/video/<item>")
    def whole(item: str) -> flask.Response:
        shelf = library.shelf()
        return flask.send_file(shelf.file(shelf.row(item)), conditional=True)

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[dict[str, str], int]:
        return {"error": error.description or "not found"}, error.code or 500

    @app.errorhandler(ValueError)
    def explain(error: ValueError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 409

    @app.after_request
    def guard(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response

    return app


def _host() -> str:
    """The name of the header Host, without port and brackets, in lower case."""
    host = flask.request.headers.get("Host", "")
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname
    except ValueError:  # an open bracket, say
        name = None
    if not name:
        raise BadRequest(f"Host: expected NAME or NAME:PORT, got {host!r}")
    return name


def _k() -> int:
    text = flask.request.args.get("k", "12")
    if not text.isdecimal() or len(text) > 9:
        raise BadRequest(f"k: expected a whole number, got {text!r}")
    if not 1 <= int(text) <= MAX_HITS:
        raise BadRequest(f"k: expected 1 to {MAX_HITS}, got {int(text)}")
    return int(text)


def _scores() -> str:
    scores = flask.request.args.get("scores", "normalised")
    if scores not in ("plain", "normalised"):
        raise BadRequest(f"scores: expected plain or normalised, got {scores!r}")
    return scores
