"""The search page: a small web application over an index of videos.

    GET /                              the page
    GET /api/gallery                   {"folder", "windows", "files", "normalised", "bank",
                                        "preferred", "keeps_queries", "captions", "run", "remark",
                                        "example_bytes"}
    GET /api/search?q=&k=&scores=      {"hits": [hit]}, best first; scores "normalised" or "plain"
    GET /api/similar?item=&k=&scores=  {"hits": [hit]}: windows like one of them
    POST /api/example?k=&scores=       {"hits": [hit]}: windows like a picture or a clip, whose
                                        bytes are the body (application/octet-stream)
    GET /api/some?k=                   {"hits": [hit]}: a few windows, their scores null
    GET /api/captions?item=&k=&scores= {"hits": [{"caption", "score"}]}: a window's best captions
    GET /preview/ITEM                  JPEG of the middle of a window
    GET /api/begin?item=               {"seconds", "plays"}: what players show at the file's first
                                       frame, and whether browsers play the file as it is
    GET /video/ITEM                    the file itself, in ranges of up to `sending.PIECE` bytes
    GET /clip/ITEM                     its window as H.264 and AAC, for files browsers do not play

A hit is {"item", "file", "start", "end", "clock", "score"}, and of a training run {"captions"} too,
the test captions of the clip. Seconds count from the file's first frame, and `item` is
"VERSION-ROW", a row of one version of the index, so that a page opened before the index was built
again never plays another file. Errors are {"error": one sentence} with a status of 4xx. Only files
that the index names can be read, as they were indexed, and by item, never by path; see
`IndexSnapshot.file`.
"""

import functools
import io
import pathlib
import threading
import urllib.parse
from collections.abc import Collection
from typing import Any

import flask
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnsupportedMediaType,
)

from ncl_jax.errors import InputError
from ncl_jax.video import decode
from ncl_jax.video.decode import VideoError
from ncl_jax.video_search import banks
from ncl_jax.video_search.clips import ClipCache
from ncl_jax.video_search.examples import MOST, Examples
from ncl_jax.video_search.library import Library
from ncl_jax.video_search.sending import sent

MAX_HITS = 100
EXAMPLE = "application/octet-stream"
EXAMPLES_AT_ONCE = 4
"""One is decoded and embedded at a time; more would take the threads of other requests."""
MAX_QUERY = 1000
PREVIEWS_KEPT = 500
PREVIEW_SIDE = 180
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_POLICY = "default-src 'self'; media-src 'self'; object-src 'none'; frame-ancestors 'none'"


def create_app(
    library: Library,
    clips: ClipCache,
    hosts: Collection[str] | None = None,
    examples: Examples | None = None,
) -> flask.Flask:
    """The application.

    Args:
      library: what is searched.
      clips: where transcoded clips are kept.
      hosts: names, in lower case, under which the page may be asked for; a page elsewhere cannot
        reach it under a name of its own. None: any name.
      examples: what embeds pictures and clips that are queries; None refuses them.
    """
    app = flask.Flask(__name__, static_folder="static", static_url_path="/static")
    app.add_url_rule("/", view_func=lambda: app.send_static_file("page.html"), endpoint="page")
    _check_hosts(app, hosts)
    _answer_queries(app, library, examples is not None)
    _answer_examples(app, library, examples)
    _show_videos(app, library, clips)
    _explain_errors(app)
    return app


def _check_hosts(app: flask.Flask, hosts: Collection[str] | None) -> None:
    @app.before_request
    def check_host() -> None:
        if hosts is not None and (name := _host()) not in hosts:
            raise BadRequest(f"Host: expected one of {', '.join(sorted(hosts))}, got {name!r}")


def _answer_queries(app: flask.Flask, library: Library, takes_examples: bool) -> None:
    @app.get("/api/gallery")
    def about() -> dict[str, Any]:
        shown = library.snapshot()
        return {
            "folder": shown.folder.name,
            "windows": len(shown.windows),
            "files": len({window.file for window in shown.windows}),
            "normalised": bool(len(shown.index.bank_text)),
            "bank": banks.source_of(shown.index),
            "preferred": "plain" if shown.index.prefers_plain else "normalised",
            "keeps_queries": library.keeps_queries,
            "example_bytes": MOST if takes_examples else 0,
            "captions": len(shown.captions),
            "run": "" if shown.run is None else shown.run.run,
            "remark": "" if shown.run is None else shown.run.remark,
        }

    @app.get("/api/search")
    def search() -> dict[str, Any]:
        query = flask.request.args.get("q", "").strip()
        if not query or len(query) > MAX_QUERY:
            raise BadRequest(f"expected a text of 1 to {MAX_QUERY} characters")
        hits = library.snapshot().search(library.embed(query), _k(), _scores())
        library.keep(query)
        return {"hits": hits}

    @app.get("/api/similar")
    def similar() -> dict[str, Any]:
        shown = library.snapshot()
        row = shown.row(flask.request.args.get("item", ""))
        return {"hits": shown.similar(row, _k(), _scores())}

    @app.get("/api/some")
    def some() -> dict[str, Any]:
        return {"hits": library.snapshot().some(_k())}

    @app.get("/api/captions")
    def captions() -> dict[str, Any]:
        shown = library.snapshot()
        if not shown.captions:
            raise NotFound("this index has no captions, because its run saved none")
        row = shown.row(flask.request.args.get("item", ""))
        shown.file(row)
        return {"hits": shown.best_captions(row, _k(), _scores())}


def _answer_examples(app: flask.Flask, library: Library, examples: Examples | None) -> None:
    places = threading.BoundedSemaphore(EXAMPLES_AT_ONCE)

    @app.post("/api/example")
    def example() -> dict[str, Any]:
        if examples is None:
            raise NotFound("this page takes no pictures and clips as queries")
        request = flask.request
        # A page elsewhere may post what forms can, which is not this type.
        if request.mimetype != EXAMPLE:
            raise UnsupportedMediaType(f"expected a body of {EXAMPLE}, got {request.mimetype!r}")
        if not (size := request.content_length or 0):
            raise BadRequest("expected the bytes of a picture or a clip, got none")
        if size > MOST:
            raise RequestEntityTooLarge(
                f"expected a picture or a clip of up to {MOST >> 20} MB, got {size:,} bytes; cut "
                "out the part that matters"
            )
        if not places.acquire(blocking=False):
            raise ServiceUnavailable("the server is busy with other pictures; try again soon")
        try:
            row = examples.embed_stream(request.stream)
        except VideoError as error:
            raise BadRequest(f"the picture or clip: {error.reason}") from error
        finally:
            places.release()
        return {"hits": library.snapshot().search(row, _k(), _scores())}


def _show_videos(app: flask.Flask, library: Library, clips: ClipCache) -> None:
    @functools.lru_cache(PREVIEWS_KEPT)
    def picture(path: pathlib.Path, changed: int, middle: float) -> bytes:
        return decode.jpeg_at(path, middle, PREVIEW_SIDE, jpeg_quality=80)

    def look(path: pathlib.Path, middle: float) -> bytes:
        return picture(path, path.stat().st_mtime_ns, middle)

    @app.get("/preview/<item>")
    def preview(item: str) -> flask.Response:
        shown = library.snapshot()
        jpeg = shown.picture(shown.row(item), look)
        return flask.send_file(io.BytesIO(jpeg), mimetype="image/jpeg")

    @functools.lru_cache(PREVIEWS_KEPT)
    def begin_of(path: pathlib.Path, changed: int) -> float:
        return decode.begin_of(path)

    @functools.lru_cache(PREVIEWS_KEPT)
    def plays(path: pathlib.Path, changed: int) -> bool:
        return decode.plays(path)

    @app.get("/api/begin")
    def begin() -> dict[str, Any]:
        shown = library.snapshot()
        path = shown.file(shown.row(flask.request.args.get("item", "")))
        changed = path.stat().st_mtime_ns
        return {"seconds": begin_of(path, changed), "plays": plays(path, changed)}

    @app.get("/clip/<item>")
    def clip(item: str) -> flask.Response:
        shown = library.snapshot()
        row = shown.row(item)
        path, window = shown.file(row), shown.windows[row]
        return sent(clips.path(path, window.start, window.end), f"{item}.mp4")

    @app.get("/video/<item>")
    def whole(item: str) -> flask.Response:
        shown = library.snapshot()
        row = shown.row(item)
        # A file's own name may hold what a header must not, and a link's aim may have none.
        suffix = pathlib.PurePath(shown.windows[row].file).suffix
        return sent(shown.file(row), f"{item}{suffix}")


def _explain_errors(app: flask.Flask) -> None:
    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[dict[str, str], int, dict[str, str]]:
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        return {"error": error.description or "not found"}, error.code or 500, headers

    @app.errorhandler(InputError)
    def explain(error: InputError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 409

    @app.after_request
    def guard(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response


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
