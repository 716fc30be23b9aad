"""A file over HTTP: whole, or those of its bytes that a request asks for."""

import pathlib

import flask

from ncl_jax.video_search import ranges

PIECE = 1 << 22
"""Bytes of a range that are sent at once; a player asks on. More would not fit the server's
buffers, and a player that is paused would hold up a thread."""
_KINDS = {
    ".ts": "video/mp2t", ".mts": "video/mp2t", ".m2ts": "video/mp2t", ".mkv": "video/x-matroska",
    ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime",
}  # fmt: skip
"""Of names that systems take for something else, or do not know."""


def sent(path: pathlib.Path, name: str) -> flask.Response:
    """A file, or those of its bytes that the request asks for, `PIECE` of them at the most."""
    size, changed = (status := path.stat()).st_size, status.st_mtime_ns
    header = flask.request.environ.pop("HTTP_RANGE", "")
    parts = ranges.parse(header, size) if flask.request.method == "GET" else None
    some = ranges.cut(parts or [], PIECE)
    if parts is not None and len(some) < 2:
        start, stop = some[0] if some else (size, size + 1)  # beyond the end: status 416
        flask.request.environ["HTTP_RANGE"] = f"bytes={start}-{stop - 1}"
    response = flask.send_file(
        path, conditional=True, download_name=name, etag=f"{changed:x}-{size:x}",
        mimetype=_KINDS.get(pathlib.PurePath(name).suffix.lower()),
    )
    if len(some) > 1 and response.status_code == 200 and _same(response):
        response.close()
        kind = response.mimetype or "application/octet-stream"
        body, response.content_type = ranges.multipart(path, some, size, kind)
        response.direct_passthrough, response.status_code = False, 206
        response.set_data(body)
    return response


def _same(response: flask.Response) -> bool:
    """Whether the request's If-Range, where it has one, means the file as it is now."""
    asked = flask.request.if_range
    if asked.etag is not None:
        return asked.etag == response.get_etag()[0]
    return asked.date is None or asked.date == response.last_modified
