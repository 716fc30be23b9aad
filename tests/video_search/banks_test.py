"""What own videos are normalised against: files of texts, kept queries, training captions."""

import re

import numpy as np
import pytest

import ncl_jax
from ncl_jax.cli import index as cli
from ncl_jax.index import RetrievalIndex
from ncl_jax.pretrained import Model, random_weights
from ncl_jax.video_search import app, banks
from ncl_jax.video_search.clips import ClipCache
from ncl_jax.video_search.library import Library
from tests.video_search.gallery_test import write_video

TEXTS = [f"somebody does thing {number}" for number in range(120)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_weights.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder):
    return ncl_jax.load(folder)


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_texts_are_read_from_every_kind_of_file(tmp_path):
    files = [
        write(tmp_path / "a.txt", "one dog\n\n  two cats \n"),
        write(tmp_path / "a.csv", "id,Caption\n1,one dog\n2,two cats\n3,\n"),
        write(tmp_path / "b.csv", 'one dog\n"two cats"\n'),
        write(tmp_path / "c.csv", "text\none dog\ntwo cats\n"),
        write(tmp_path / "a.tsv", "video\tquery\na\tone dog\nb\ttwo cats\n"),
    ]
    np.save(tmp_path / "a.npy", np.array(["one dog", "two cats"]))
    np.savez(tmp_path / "a.npz", text=np.array(["one dog", "two cats"]))
    for file in [*files, str(tmp_path / "a.npy"), str(tmp_path / "a.npz")]:
        found = banks.read(file, False, tmp_path / "index")
        assert found.texts == ["one dog", "two cats"], file
        assert found.source == f"2 texts of {file.rpartition('/')[2]}"


def test_embeddings_are_taken_as_they_are(tmp_path, model):
    rows = model.encode_text(TEXTS[:5])
    np.save(tmp_path / "rows.npy", rows)
    found = banks.embed(banks.read(str(tmp_path / "rows.npy"), False, tmp_path / "index"), model)
    np.testing.assert_array_equal(found.text, rows)
    assert found.source == "5 embeddings of rows.npy"
    np.save(tmp_path / "wide.npy", np.ones((5, 3)))
    with pytest.raises(ValueError, match=re.escape("expected embeddings [row, 16]")):
        banks.embed(banks.read(str(tmp_path / "wide.npy"), False, tmp_path / "index"), model)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "\n \n", "expected texts that look like queries, found none"),
        ("a.csv", "id,name\n1,x\n", "expected a column named caption, text, query"),
        ("a.csv", "", "expected a column named caption"),
        ("a.csv", "id,caption\n", "found none"),
        ("a.json", "[]", "expected .txt, .csv, .tsv, .npy or .npz"),
        ("a.npy", "text", "cannot be read"),
    ],
)
def test_what_holds_no_texts_is_one_sentence(tmp_path, name, content, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        banks.read(write(tmp_path / name, content), False, tmp_path / "index")


def test_kept_queries_join_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"--learn-bank: there is no .*index.queries.txt; search"):
        banks.read("", True, tmp_path)
    write(tmp_path / "index.queries.txt", "a dog\na dog\n")
    own = write(tmp_path / "a.txt", "two cats\n")
    assert banks.read("", True, tmp_path).texts == ["a dog", "a dog"]
    both = banks.read(own, True, tmp_path)
    assert both.texts == ["two cats", "a dog", "a dog"]
    assert both.source == "1 texts of a.txt, 2 queries of the page"
    np.save(tmp_path / "rows.npy", np.ones((5, 16)))
    with pytest.raises(ValueError, match="to which --learn-bank cannot add texts"):
        banks.read(str(tmp_path / "rows.npy"), True, tmp_path)


@pytest.mark.slow
def test_a_folder_of_videos_with_published_weights(tmp_path, folder, model, capsys, monkeypatch):
    """No training, no dataset: weights in the published layout and texts that look like queries."""
    write_video(tmp_path / "videos" / "a.mp4", [40] * 12)
    write_video(tmp_path / "videos" / "b.webm", [10, 90, 250])
    line = ["build", str(tmp_path / "index"), "--videos", str(tmp_path / "videos"),
            "--checkpoint", folder]  # fmt: skip
    assert cli.main(line) == 0
    said = capsys.readouterr().out
    assert "remark: no bank, so the search is plain" in said
    plain = RetrievalIndex.load(tmp_path / "index")
    assert not plain.bias.any()
    assert banks.source_of(plain) == banks.NONE

    bank = write(tmp_path / "captions.txt", "\n".join(TEXTS))
    assert cli.main([*line, "--bank", bank]) == 0
    said = capsys.readouterr().out
    assert "2 files: 0 to embed, 2 known" in said
    assert "bank: 120 texts of captions.txt" in said
    assert "remark" not in said
    index = RetrievalIndex.load(tmp_path / "index")
    np.testing.assert_allclose(index.video, plain.video, atol=1e-6)
    monkeypatch.setattr(Model, "encode_text", None)  # no text is embedded again
    assert cli.main([*line, "--bank", bank]) == 0
    monkeypatch.undo()
    capsys.readouterr()
    expected = RetrievalIndex.build(
        index.ids, index.video, model.encode_text(TEXTS), scale=model.scale
    )
    np.testing.assert_allclose(index.bias, expected.bias, atol=1e-4)
    assert cli.main(["search", str(tmp_path / "index"), "a dog", "-k", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1

    library = Library(str(tmp_path / "index"), model.encode_text, model.fingerprint)
    client = app.create_app(library, ClipCache(), app.LOOPBACK).test_client()
    assert client.get("/api/gallery").json["bank"] == "120 texts of captions.txt"
    assert client.get("/api/gallery").json["keeps_queries"] is False
    client.get("/api/search?q=not+kept")
    library.keep_queries()
    assert client.get("/api/gallery").json["keeps_queries"] is True
    for query in ("a+dog", "two%0Acats", "a+dog"):
        assert client.get(f"/api/search?q={query}").status_code == 200
    assert banks.queries_file(tmp_path / "index").read_text() == "a dog\ntwo cats\na dog\n"
    capsys.readouterr()
    assert cli.main([*line, "--learn-bank"]) == 0
    assert "remark: a bank of 3 texts is small" in capsys.readouterr().out
    assert client.get("/api/gallery").json["bank"] == "3 queries of the page"
