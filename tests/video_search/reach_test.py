"""What the search page serves, and to whom: indexed files as indexed, and not to one alone."""

import contextlib
import email
import os
import shutil
import socket
import threading
import urllib.request

import flask
import pytest
from waitress import wasyncore

from ncl_jax.cli import serve
from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex
from ncl_jax.video_search import app, ranges, sending, server
from ncl_jax.video_search.clips import ClipCache
from ncl_jax.video_search.library import Library
from tests.video_search.app_test import MODEL, encode, save

NAME = "sub/b.mp4"


@pytest.fixture
def page(tmp_path):
    save(tmp_path)
    return Page(tmp_path)


class Page:
    """The page over the index in a folder, and its second video."""

    def __init__(self, folder, roots=()):
        self.path = folder / "videos" / NAME
        self.content = self.path.read_bytes() if self.path.is_file() else b""
        library = Library(str(folder / "index"), encode, MODEL, roots)
        self.item = f"{library.snapshot().version}-1"
        self.client = app.create_app(library, ClipCache()).test_client()

    def get(self, wanted="", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if wanted:
            named["Range"] = wanted
        with self.client.get(f"/video/{self.item}", headers=named) as answer:
            return answer.status_code, answer.headers, answer.data

    def refused(self, status, said):
        """Whether neither the file, nor its picture, nor its clock is given away."""
        for path in ("/video/", "/preview/", "/api/begin?item=", "/api/captions?item="):
            answer = self.client.get(path + self.item)
            assert answer.status_code == status
            assert said in answer.json["error"]


def test_a_link_to_elsewhere_is_not_served(page, tmp_path):
    stamp = page.path.stat()
    outside = tmp_path / "outside.mp4"
    page.path.rename(outside)
    page.path.symlink_to(outside)
    os.utime(outside, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    page.refused(404, f"{NAME} lies outside the indexed folder")
    (tmp_path / "other").mkdir()
    Page(tmp_path, [tmp_path / "other"]).refused(404, "lies outside the indexed folder")
    assert Page(tmp_path, [tmp_path]).get()[2] == page.content


def test_a_link_within_the_folder_is_served(page):
    page.path.rename(page.path.with_name("c.mp4"))
    page.path.symlink_to("c.mp4")
    assert page.get()[::2] == (200, page.content)


def test_a_folder_that_is_itself_a_link_is_served(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "videos").symlink_to(tmp_path / "disk")
    save(tmp_path)
    assert Page(tmp_path).get()[0] == 200


@pytest.mark.parametrize("name", ["../outside.mp4", "sub/../../outside.mp4", "/outside.mp4"])
def test_an_index_that_names_a_file_outside_its_folder(page, tmp_path, name):
    outside = page.path.rename(tmp_path / "outside.mp4")
    name = str(outside) if name.startswith("/") else name
    index = RetrievalIndex.load(tmp_path / "index")
    files = index.meta["gallery"]["files"]
    index.meta["gallery"]["files"] = {"a <b>.mp4": files["a <b>.mp4"], name: files[NAME]}
    index.save(tmp_path / "index")
    Page(tmp_path).refused(404, "lies outside the indexed folder")


def test_another_file_of_the_name_is_not_served(page):
    stamp = page.path.stat()
    page.path.write_bytes(page.content + b"more")
    os.utime(page.path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    page.refused(409, f"{NAME} was changed after it was indexed; build the index again")
    page.path.write_bytes(page.content[::-1])
    os.utime(page.path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns + 1))
    page.refused(409, "was changed after it was indexed")


def test_what_is_no_file_is_not_opened(page):
    page.path.unlink()
    os.mkfifo(page.path)
    page.refused(404, f"{NAME} is no longer a file")
    page.path.unlink()
    page.path.symlink_to(page.path)
    page.refused(404, f"{NAME} is gone")
    page.path.unlink()
    page.path.mkdir()
    page.refused(404, f"{NAME} is no longer a file")


def test_an_index_of_another_folder_is_not_followed(page, tmp_path):
    save(tmp_path / "new")
    shutil.copytree(tmp_path / "new" / "index", tmp_path / "index", dirs_exist_ok=True)
    page.refused(409, "the index is of another folder now; start the server again")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", [(0, 10)]), ("bytes=90-", [(90, 100)]), ("bytes=90-500", [(90, 100)]),
        ("bytes=-10", [(90, 100)]), ("bytes=-100", [(0, 100)]), ("bytes=-101", [(0, 100)]),
        ("bytes=-0", []), ("bytes=100-", []), ("bytes=100-200, 300-", []),
        ("Bytes = 0-9", [(0, 10)]), ("bytes=0-9,,20-29,", [(0, 10), (20, 30)]),
        ("bytes=0-9, 20-29, -5", [(0, 10), (20, 30), (95, 100)]),
        ("bytes=50-59, 0-9", [(50, 60), (0, 10)]),
        ("bytes=50-59, 0-9, 55-69", [(50, 70), (0, 10)]),
        ("bytes=0-9, 10-19", [(0, 20)]), ("bytes=0-1, 4-5, 1-4", [(0, 6)]),
        ("bytes=0-9, 200-300", [(0, 10)]),
        ("bytes=9-0", None), ("bytes=", None), ("bytes=-", None), ("bytes=a-b", None),
        ("bytes=0-9, x", None), ("bytes=+1-2", None), ("bytes=1", None), ("bytes 0-9", None),
        ("bytes=\N{ARABIC-INDIC DIGIT ONE}-", None), ("items=0-9", None), ("", None),
        ("bytes=0-" + "9" * 30, [(0, 100)]), ("bytes=" + "9" * 5000 + "-", None),
        ("bytes=" + "0-0," * 33, None),
    ],
)  # fmt: skip
def test_ranges_as_the_rfc_has_them(header, expected):
    assert ranges.parse(header, 100) == expected


def test_several_ranges_come_as_one_multipart_answer(page):
    status, headers, body = page.get("bytes=10-19, 0-4, -3")
    assert status == 206
    assert int(headers["Content-Length"]) == len(body)
    whole = email.message_from_bytes(f"Content-Type: {headers['Content-Type']}\n\n".encode() + body)
    size = len(page.content)
    assert [
        (part["Content-Range"], part.get_payload(decode=True)) for part in whole.get_payload()
    ] == [
        (f"bytes {a}-{b - 1}/{size}", page.content[a:b])
        for a, b in ((10, 20), (0, 5), (size - 3, size))
    ]
    assert {part.get_content_type() for part in whole.get_payload()} == {"video/mp4"}


def test_which_ranges_are_one_answer_or_none(page):
    size = len(page.content)
    for wanted, start, stop in (("bytes=0-9, 5-19", 0, 20), (f"bytes=0-4, {size}-", 0, 5),
                                (f"bytes=-{size * 2}", 0, size)):  # fmt: skip
        status, headers, body = page.get(wanted)
        assert (status, body) == (206, page.content[start:stop])
        assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
    for ignored in ("lines=0-9", "bytes=x", "bytes=9-0"):
        assert page.get(ignored)[::2] == (200, page.content)
    status, headers, _ = page.get(f"bytes={size}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    with page.client.head(f"/video/{page.item}", headers={"Range": "bytes=0-9"}) as head:
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(size))


@pytest.mark.parametrize("wanted", ["bytes=0-9", "bytes=0-9, 20-29"])
def test_a_range_of_another_version_is_the_whole_file(page, wanted):
    headers = page.get()[1]
    for mine in (headers["ETag"], headers["Last-Modified"]):
        assert page.get(wanted, If_Range=mine)[0] == 206
    for other in ('"other"', "Mon, 01 Jan 2001 00:00:00 GMT"):
        assert page.get(wanted, If_Range=other)[::2] == (200, page.content)
    assert page.get(wanted, If_None_Match=headers["ETag"])[0] in (206, 304)


def test_several_ranges_are_cut_to_a_piece(page, monkeypatch):
    monkeypatch.setattr(sending, "PIECE", 15)
    _, _, body = page.get("bytes=0-9, 20-29, 40-49")
    assert body.count(b"Content-Range") == 2
    assert b"Content-Range: bytes 20-24/" in body
    assert page.get("bytes=-40")[2] == page.content[-40:-25]


@contextlib.contextmanager
def serving():
    application = flask.Flask("few")
    application.add_url_rule("/", view_func=lambda: "here")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = server.create_server(application, listener)
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            running.task_dispatcher.shutdown()
            running.trigger.pull_trigger(lambda: wasyncore.close_all(running._map, True))
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: "])
def test_connections_that_ask_for_nothing_block_nobody(begin):
    with serving() as port, contextlib.ExitStack() as stack:
        for _ in range(300):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            with contextlib.suppress(ConnectionError):  # closed already, for another
                idle.sendall(begin)
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                assert answer.read() == b"here"


def test_a_connection_that_is_idle_is_closed(monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0)
    monkeypatch.setattr(server, "CLEAN_SECONDS", 0)
    with (
        serving() as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as idle,
        contextlib.suppress(ConnectionError),
    ):
        idle.sendall(b"GET / HTTP/1.1\r\n")
        assert idle.recv(1) == b""


def test_a_long_header_is_refused():
    with serving() as port, socket.create_connection(("127.0.0.1", port), timeout=20) as asking:
        asking.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n")
        assert asking.recv(12) == b"HTTP/1.0 431"


def test_a_root_is_a_folder(tmp_path):
    with pytest.raises(InputError, match="--root: expected a folder, got"):
        serve._roots([str(tmp_path / "none")])
