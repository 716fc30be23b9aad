"""The search page's answers, without a browser; see also videos_test.py."""

import contextlib
import io
import os

import numpy as np
import pytest
from PIL import Image

from ncl_jax.index import RetrievalIndex
from ncl_jax.video_search import app, sending
from ncl_jax.video_search.clips import ClipCache
from ncl_jax.video_search.library import Library
from ncl_jax.video_search.manifest import Window
from tests.video_search.gallery_test import write_video

MODEL = "the model"
CLIPS = ClipCache()  # makes nothing before it is used
TEXTS = {"dark": [1.0, 0.0, 0.0], "bright": [0.0, 1.0, 0.0], "hub": [0.5, 0.5, 0.7]}


def encode(captions):
    return np.asarray([TEXTS.get(caption, [0.0, 0.0, 1.0]) for caption in captions], np.float32)


CAPTIONS = ("dark", "bright", "dark")


def save(folder, names=("a <b>.mp4", "sub/b.mp4"), model=MODEL, begin=0):
    """An index whose rows are known; the bias of the second window is large."""
    known = {}
    for number, name in enumerate(names):
        path = write_video(folder / "videos" / name, [20 + 200 * number] * 12, begin=begin)
        status = path.stat()
        known[name] = {"size": status.st_size, "changed": status.st_mtime_ns,
                       "windows": [[0.0, 12.0]]}  # fmt: skip
    meta = {
        "gallery": {"folder": str(folder / "videos"), "run": "", "model": model, "window": 10.0,
                    "files": dict(sorted(known.items()))},
        "bank_captions": list(CAPTIONS),
    }  # fmt: skip
    rows = np.asarray([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0]], np.float32)[: len(names)]
    ids = [Window(name, 0.0, 12.0).id for name in sorted(names)]
    index = RetrievalIndex.build(ids, rows, encode(CAPTIONS), scale=10.0, meta=meta)
    index.save(folder / "index")
    return index


@pytest.fixture
def client(tmp_path):
    save(tmp_path)
    library = Library(str(tmp_path / "index"), encode, MODEL)
    return app.create_app(library, CLIPS, app.LOOPBACK).test_client()


@pytest.fixture
def item(client):
    """The item of a row, as a search names it."""
    hits = client.get("/api/search?q=dark").json["hits"]
    version = {hit["item"].split("-")[0] for hit in hits}.pop()
    assert {hit["item"]: hit["file"] for hit in hits} == {
        f"{version}-0": "a <b>.mp4", f"{version}-1": "sub/b.mp4"
    }  # fmt: skip
    return lambda row: f"{version}-{row}"


def test_a_search_answers_with_file_time_and_score(client):
    hits = client.get("/api/search?q=bright&scores=plain").json["hits"]
    assert [hit["file"] for hit in hits] == ["sub/b.mp4", "a <b>.mp4"]
    assert (hits[0]["start"], hits[0]["end"], hits[0]["clock"]) == (0.0, 12.0, "0:00.0-0:12.0")
    assert hits[0]["score"] == pytest.approx(10 / np.sqrt(1.04), rel=1e-5)
    assert len(client.get("/api/search?q=bright&k=1").json["hits"]) == 1


def test_plain_and_normalised_differ_by_the_biases(client, item, tmp_path):
    index = RetrievalIndex.load(tmp_path / "index")
    found = {
        scores: {hit["item"]: hit["score"] for hit in
                 client.get(f"/api/search?q=hub&scores={scores}").json["hits"]}
        for scores in ("plain", "normalised")
    }  # fmt: skip
    for row, bias in enumerate(index.bias):
        gain = found["normalised"][item(row)] - found["plain"][item(row)]
        assert gain == pytest.approx(bias, abs=1e-5)
    assert np.ptp(index.bias) > 0.1


def test_captions_of_a_clip_are_offered_once(client, item):
    hits = client.get(f"/api/captions?item={item(0)}&scores=plain").json["hits"]
    assert [hit["caption"] for hit in hits] == ["dark", "bright"]
    normalised = client.get(f"/api/captions?item={item(0)}").json["hits"]
    assert {hit["caption"] for hit in normalised} == {"dark", "bright"}
    assert normalised != hits


def test_the_preview_is_a_picture_of_the_clip(client, item):
    for row, grey in ((0, 20), (1, 220)):
        answer = client.get(f"/preview/{item(row)}")
        assert answer.mimetype == "image/jpeg"
        assert abs(np.asarray(Image.open(io.BytesIO(answer.data))).mean() - grey) < 8


def test_a_file_of_any_name_plays(tmp_path):
    names = ("a\nb.mp4", os.fsdecode(b"b\xff.mp4"))
    save(tmp_path, names)
    library = Library(str(tmp_path / "index"), encode, MODEL)
    client = app.create_app(library, CLIPS).test_client()
    for row, name in enumerate(names):
        with client.get(f"/video/{library.snapshot().version}-{row}") as answer:
            assert answer.data == (tmp_path / "videos" / name).read_bytes()
            assert answer.mimetype == "video/mp4"


def test_the_file_comes_in_ranges(client, item, tmp_path):
    whole = (tmp_path / "videos" / "sub" / "b.mp4").read_bytes()
    with client.get(f"/video/{item(1)}", headers={"Range": "bytes=100-199"}) as answer:
        assert (answer.status_code, answer.data) == (206, whole[100:200])
    with client.get(f"/video/{item(1)}") as answer:
        assert answer.data == whole


def test_a_long_range_comes_in_pieces(client, item, tmp_path, monkeypatch):
    whole = (tmp_path / "videos" / "sub" / "b.mp4").read_bytes()
    monkeypatch.setattr(sending, "PIECE", 100)
    for asked, start, stop in (("0-", 0, 100), ("50-", 50, 150), ("7-500", 7, 107),
                               ("7-50", 7, 51), ("-30", len(whole) - 30, len(whole))):  # fmt: skip
        with client.get(f"/video/{item(1)}", headers={"Range": f"bytes={asked}"}) as answer:
            assert (answer.status_code, answer.data) == (206, whole[start:stop]), asked
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"


def test_where_the_clock_of_a_file_begins(client, item, tmp_path):
    assert client.get(f"/api/begin?item={item(0)}").json == {"seconds": 0.0, "plays": True}
    save(tmp_path / "late", ["a <b>.mp4"], begin=30)
    library = Library(str(tmp_path / "late" / "index"), encode, MODEL)
    late = app.create_app(library, CLIPS).test_client()
    answer = late.get(f"/api/begin?item={library.snapshot().version}-0")
    assert answer.json == {"seconds": 30.0, "plays": True}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/begin?item=abc-1", 409, "the index was built again; search again"),
        ("/api/search?q=", 400, "1 to 1000 characters"),
        ("/api/search?q=" + "x" * 1001, 400, "1 to 1000 characters"),
        ("/api/search?q=a&k=0", 400, "k: expected 1 to 100, got 0"),
        ("/api/search?q=a&k=-1", 400, "k: expected a whole number"),
        ("/api/search?q=a&scores=fair", 400, "expected plain or normalised, got 'fair'"),
        ("/api/captions", 404, "no item ''"),
        ("/preview/99", 404, "no item '99'"),
        ("/preview/ITEM9", 404, "expected an item of a search result"),
        ("/video/ITEM-1", 404, "no item"),
        ("/video/abc-1", 409, "the index was built again; search again"),
        ("/preview/abc-1", 409, "the index was built again; search again"),
        ("/api/captions?item=abc-1", 409, "the index was built again; search again"),
        ("/video/../../etc/passwd", 404, "not found"),
        ("/video/%2e%2e%2fsecret", 404, "not found"),
        ("/static/../__init__.py", 404, "not found"),
    ],
)
def test_a_wrong_request_is_one_sentence(client, item, path, status, said):
    answer = client.get(path.replace("ITEM", item("")))
    assert answer.status_code == status
    assert said in answer.json["error"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 400), ("localhost.evil.example:8000", 400), ("", 400), ("[::1", 400),
        ("127.0.0.1:8000", 200), ("LOCALHOST", 200), ("[::1]:8000", 200), ("[::1]", 200),
    ],
)  # fmt: skip
def test_a_page_elsewhere_cannot_use_a_name_of_its_own(client, host, status):
    answer = client.get("/api/search?q=a", headers={"Host": host})
    assert answer.status_code == status
    assert ("Host: expected" in answer.json.get("error", "")) == (status == 400)


def test_nothing_is_fetched_from_outside(client):
    with client.get("/") as page:
        text = page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    texts = [text]
    for name in ("page.js", "page.css"):
        with client.get(f"/static/{name}") as answer:
            texts.append(answer.text)
    assert not any("http://" in text or "https://" in text for text in texts)


def test_a_file_that_went_away_is_said(client, item, tmp_path):
    (tmp_path / "videos" / "sub" / "b.mp4").unlink()
    for path in ("/preview", "/video"):
        answer = client.get(f"{path}/{item(1)}")
        assert answer.status_code == 404
        assert "sub/b.mp4 is gone" in answer.json["error"]


def test_a_rebuilt_index_is_followed(client, item, tmp_path):
    assert client.get("/api/gallery").json["windows"] == 2
    save(tmp_path, names=["c.mp4"])
    os.utime(tmp_path / "index" / "index.json", ns=(1, 1))
    assert client.get("/api/gallery").json["windows"] == 1
    answer = client.get(f"/video/{item(0)}")  # of a page that was opened before
    assert answer.status_code == 409
    assert "built again; search again" in answer.json["error"]
    save(tmp_path, names=["c.mp4"], model="another")
    for _ in range(2):
        answer = client.get("/api/search?q=dark")
        assert answer.status_code == 409
        assert "another checkpoint" in answer.json["error"]
    (tmp_path / "index" / "index.json").write_bytes(b"damage")
    answer = client.get("/api/search?q=dark")
    assert answer.status_code == 409
    assert "damaged" in answer.json["error"]


def test_clips_like_one_and_some_to_begin_with(client, item):
    first = client.get("/api/search?q=dark&scores=plain").json["hits"][0]
    (other,) = client.get(f"/api/similar?item={first['item']}&scores=plain").json["hits"]
    assert other["file"] != first["file"]
    both = np.asarray([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0]]) / np.hypot(1, 0.2)
    assert other["score"] == pytest.approx(10 * both[0] @ both[1], abs=1e-4)
    some = client.get("/api/some?k=5").json["hits"]
    assert [hit["file"] for hit in some] == ["a <b>.mp4", "sub/b.mp4"]
    assert {hit["score"] for hit in some} == {None}
    assert len(client.get("/api/some?k=1").json["hits"]) == 1
    assert client.get("/api/similar?item=nothing").status_code == 404


def test_a_window_as_browsers_play_it(tmp_path):
    save(tmp_path)
    library = Library(str(tmp_path / "index"), encode, MODEL)
    with contextlib.closing(ClipCache()) as clips:
        client = app.create_app(library, clips, app.LOOPBACK).test_client()
        check_a_window(client, client.get("/api/some").json["hits"][0]["item"])


def check_a_window(client, item):
    answer = client.get(f"/clip/{item}", buffered=True)
    assert (answer.status_code, answer.mimetype) == (200, "video/mp4")
    part = client.get(f"/clip/{item}", headers={"Range": "bytes=0-9"}, buffered=True)
    assert (part.status_code, part.data) == (206, answer.data[:10])
    assert client.get(f"/api/begin?item={item}").json == {"seconds": 0.0, "plays": True}
    assert client.get("/clip/nothing").status_code == 404
