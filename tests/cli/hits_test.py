"""What a search prints: lines, JSON and CSV, with what the index knows of each hit."""

import csv
import io
import json

import numpy as np
import pytest

from ncl_jax.cli import hits
from ncl_jax.cli import index as cli
from ncl_jax.index import RetrievalIndex
from ncl_jax.video_search.manifest import KEY

BANK = np.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.1, 0.0, 1.0]])
CAPTIONS = ["red, or\nso", 'a "blue" one', "green"]


@pytest.fixture
def index():
    rows = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.2]])
    return RetrievalIndex.build(["one", "two"], rows, BANK, meta={"bank_captions": CAPTIONS})


def found(index, names=("x\ty",)):
    return hits.found(index.search(np.eye(3)[: len(names)], k=2), names, index)


def test_a_hit_names_the_nearest_text_of_the_bank(index):
    first, second = found(index)
    assert (first["id"], first["rank"], first["nearest_bank_text"]) == ("two", 1, "red, or\nso")
    assert (second["id"], second["rank"], second["nearest_bank_text"]) == ("one", 2, CAPTIONS[1])


def test_lines_json_and_csv_say_the_same(index):
    known = found(index)
    (first, _) = hits.lines(known, "lines")
    assert first == f'x\\ty\t1\ttwo\t{known[0]["score"]:.4f}\tlike "red, or\\nso"'
    assert json.loads("\n".join(hits.lines(known, "json"))) == known
    table = list(csv.DictReader(io.StringIO("\n".join(hits.lines(known, "csv")))))
    assert [row | {"rank": int(row["rank"]), "score": float(row["score"])} for row in table] \
        == known  # fmt: skip


def test_windows_of_videos_have_their_file_and_seconds(index):
    files = {"a.mp4": {"size": 1, "changed": 1, "windows": [[0.0, 10.0], [10.0, 20.0]]}}
    meta = {KEY: {"folder": "v", "run": "r", "model": "m", "window": 10.0, "files": files}}
    own = RetrievalIndex.build(index.ids, index.video, meta=meta)
    first, _ = found(own)
    assert "nearest_bank_text" not in first
    assert (first["file"], first["start"], first["end"]) == ("a.mp4", 10.0, 20.0)


def test_nothing_found_is_an_empty_table(index):
    empty = RetrievalIndex.build([], np.zeros((0, 3)))
    assert list(hits.lines(found(empty), "json")) == ["[]"]
    assert list(hits.lines(found(empty), "csv")) == ["query,rank,id,score"]


@pytest.mark.parametrize(
    ("auto", "more", "biased"),
    [("none", [], False), ("none", ["--scores", "normalised"], True), ("ncl", [], True),
     ("ncl", ["--scores", "plain"], False), ("", [], True)],
)  # fmt: skip
def test_a_search_follows_what_auto_found(index, tmp_path, capsys, auto, more, biased):
    """A run whose biases brought nothing on its training pairs is searched without them."""
    index.meta["auto"] = auto
    index.save(tmp_path / "index")
    np.save(tmp_path / "q.npy", np.eye(3)[:1])
    line = ["search", str(tmp_path / "index"), "--query", str(tmp_path / "q.npy"), "--json"]
    assert cli.main([*line, *more]) == 0
    said = capsys.readouterr()
    expected = index.search(np.eye(3)[:1], 2, use_bias=biased)
    assert [hit["score"] for hit in json.loads(said.out)] == pytest.approx(expected.scores[0])
    assert ("plain scores: on its training pairs" in said.err) == (auto == "none" and not more)
