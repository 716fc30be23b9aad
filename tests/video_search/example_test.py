"""A picture or a clip as the query: of the page, and of `index search`; the sheet of its hits."""

import concurrent.futures
import contextlib
import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from ncl_jax.cli import index as cli
from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex
from ncl_jax.pretrained import load, random_weights
from ncl_jax.video_search import app, examples, sheet
from ncl_jax.video_search.library import Library
from ncl_jax.video_search.opening import open_index, snapshot_of
from tests.video_search.app_test import CLIPS, MODEL, encode, save
from tests.video_search.gallery_test import write_video

BYTES = {"content_type": "application/octet-stream"}
BANK = [f"text {number}" for number in range(9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index of three videos by drawn weights, with a bank."""
    root = tmp_path_factory.mktemp("examples")
    for number, grey in enumerate((20, 130, 240)):
        write_video(root / "videos" / f"{number}.mp4", [grey, grey, 255 - grey])
    random_weights.write(root / "weights")
    (root / "bank.txt").write_text("\n".join(BANK))
    line = ["build", str(root / "index"), "--videos", str(root / "videos"), "--bank",
            str(root / "bank.txt"), "--checkpoint", str(root / "weights")]  # fmt: skip
    assert cli.main(line) == 0
    Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(root / "a.png")
    return root


@pytest.fixture(scope="module")
def client(folder):
    opened = open_index(folder / "index")
    with contextlib.closing(examples.Examples(opened.model, opened.frames)) as taken:
        yield app.create_app(opened.library, CLIPS, app.LOOPBACK, taken).test_client()


def rows(folder, name):
    """What the model says of an example, read as own videos are."""
    model = load(folder / "weights")
    if name.endswith(".mp4"):
        return RetrievalIndex.load(folder / "index").video[int(name[0])][None]
    return model.encode_frames([np.asarray(Image.open(folder / name))[None]])


def expected(folder, name, biased):
    found = RetrievalIndex.load(folder / "index").search(rows(folder, name), 3, use_bias=biased)
    return found.ids[0], found.scores[0]


@pytest.mark.parametrize("scores", ["plain", "normalised"])
@pytest.mark.parametrize("name", ["a.png", "1.mp4"])
def test_clips_like_a_picture_or_a_clip(folder, client, name, scores):
    """Items are ranked by their cosine with the example, and by their biases as texts are."""
    path = folder / name if name == "a.png" else folder / "videos" / name
    answer = client.post(f"/api/example?scores={scores}", data=path.read_bytes(), **BYTES)
    ids, values = expected(folder, name, scores == "normalised")
    assert [hit["file"] for hit in answer.json["hits"]] == [i.split()[0] for i in ids]
    assert [hit["score"] for hit in answer.json["hits"]] == pytest.approx(values, abs=2e-2)
    if name == "1.mp4":  # the same as "similar", and itself
        item = next(h["item"] for h in answer.json["hits"] if h["file"] == name)
        like = client.get(f"/api/similar?item={item}&scores={scores}").json["hits"]
        others = [hit for hit in answer.json["hits"] if hit["file"] != name]
        assert [hit["file"] for hit in like] == [hit["file"] for hit in others]
    assert len(client.post("/api/example?k=1", data=path.read_bytes(), **BYTES).json["hits"]) == 1


@pytest.mark.parametrize(
    ("given", "kind", "status", "said"),
    [
        (b"junk", BYTES, 400, "the picture or clip: expected a readable video, got"),
        (b"", BYTES, 400, "expected the bytes of a picture or a clip, got none"),
        (b"junk", {"content_type": "text/plain"}, 415, "got 'text/plain'"),
        (b"junk", {}, 415, "expected a body of application/octet-stream"),
    ],
)
def test_what_is_no_example_is_one_sentence(client, given, kind, status, said):
    answer = client.post("/api/example", data=given, **kind)
    assert answer.status_code == status
    assert said in answer.json["error"]


def test_an_example_of_too_many_bytes_is_not_read(client, monkeypatch):
    monkeypatch.setattr(app, "MOST", 1 << 20)
    answer = client.post("/api/example", data=bytes((1 << 20) + 1), **BYTES)
    assert answer.status_code == 413
    assert "up to 1 MB, got 1,048,577 bytes; cut out" in answer.json["error"]


class Slow:
    """Examples that wait until they are let go."""

    def __init__(self):
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def embed_stream(self, stream):
        self.begun.release()
        assert self.go.wait(30)
        return np.eye(3, dtype=np.float32)[:1]


def test_many_examples_hold_up_nobody(tmp_path):
    save(tmp_path)
    library, slow = Library(str(tmp_path / "index"), encode, MODEL), Slow()
    application = app.create_app(library, CLIPS, examples=slow)

    def post(_=None):
        return application.test_client().post("/api/example", data=b"x", **BYTES)

    with concurrent.futures.ThreadPoolExecutor(app.EXAMPLES_AT_ONCE) as pool:
        taken = pool.map(post, range(app.EXAMPLES_AT_ONCE))
        assert all(slow.begun.acquire(timeout=30) for _ in range(app.EXAMPLES_AT_ONCE))
        answer = post()
        assert (answer.status_code, answer.json["error"].partition(";")[0]) == (
            503, "the server is busy with other pictures"
        )  # fmt: skip
        assert application.test_client().get("/api/search?q=dark").status_code == 200
        slow.go.set()
        assert {one.status_code for one in taken} == {200}
    assert post().status_code == 200


def test_a_page_elsewhere_cannot_post(client):
    answer = client.post("/api/example", data=b"x", headers={"Host": "evil.example"}, **BYTES)
    assert answer.status_code == 400
    assert "Host: expected" in answer.json["error"]


@pytest.mark.parametrize(("option", "name"), [("--picture", "a.png"), ("--clip", "1.mp4")])
def test_the_command_ranks_likewise(folder, capsys, option, name):
    path = folder / name if name == "a.png" else folder / "videos" / name
    line = ["search", str(folder / "index"), option, str(path), "--json", "-k", "3"]
    assert cli.main(line) == 0
    said = capsys.readouterr()
    hits = json.loads(said.out)  # nothing else is on stdout
    assert "importing JAX and loading the model of the index ..." in said.err
    ids, values = expected(folder, name, biased=True)
    assert [hit["id"] for hit in hits] == ids
    assert {hit["query"] for hit in hits} == {str(path)}
    assert [hit["score"] for hit in hits] == pytest.approx(values, abs=2e-2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--picture", "none.png"], "--picture: expected a file, there is no file none.png"),
        (["--picture", "videos/1.mp4"], "1.mp4: expected a picture (JPEG, PNG"),
        (["--clip", "bank.txt"], "bank.txt: expected a readable video, got"),
        (["words", "--picture", "a.png"], "expected one of words, --query, --picture and --clip"),
        (["--picture", "a.png", "--sheet", "a.png"], "--sheet: expected a name that ends in .jpg"),
        (["words", "--sheet", "none/a.jpg"], "--sheet: expected a file in a folder that exists"),
    ],
)
def test_wrong_arguments_are_one_sentence(folder, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(folder)
    assert cli.main(["search", "index", *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err.splitlines()[-1]
    assert not out


def test_an_index_of_embeddings_takes_no_pictures(tmp_path, folder, capsys):
    RetrievalIndex.build(["a"], np.eye(3)[:1]).save(tmp_path)
    assert cli.main(["search", str(tmp_path), "--picture", str(folder / "a.png")]) == 2
    assert "built from embeddings and has no model" in capsys.readouterr().err


def test_a_sheet_shows_rank_and_picture_of_every_hit(folder, tmp_path, capsys):
    """Each tile has the grey of its clip's middle; a file that is gone leaves its tile blank."""
    place = tmp_path / "hits.jpg"
    line = ["search", str(folder / "index"), "a", "b", "--sheet", str(place), "-k", "3", "--csv"]
    assert cli.main(line) == 0
    table = capsys.readouterr().out.splitlines()[1:]
    with Image.open(place) as opened:
        pixels = np.asarray(opened.convert("L")).astype(int)
    greys = {"0": 235, "1": 125, "2": 15}  # of the last frame, the first at or after the middle
    step, top = 135 + 20 + 12, 12 + 20 + 12 + 67
    for query in range(2):
        for rank in range(3):
            left = 12 + rank * 252 + 120
            down = top + query * (step + 32)
            seen = pixels[down - 9 : down + 9, left - 9 : left + 9].mean()
            name = table[3 * query + rank].split(",")[2][0]
            assert abs(seen - greys[name]) < 12
            label = pixels[down + 70 : down + 86, left - 120 : left + 60]
            assert label.min() < 120 < 240 < label.max()  # dark on white


def test_a_sheet_says_what_is_gone_and_holds_no_more_than_it_can(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "videos", tmp_path / "videos")
    save(tmp_path)
    index = RetrievalIndex.load(tmp_path / "index")
    (tmp_path / "videos" / "sub" / "b.mp4").unlink()
    shown, found = snapshot_of(index, str(tmp_path / "index")), index.search(encode(["dark"]), 2)
    sheet.write(tmp_path / "a.jpg", shown, ["x" * 500], found)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.size == (12 + 2 * 252, 12 + 32 + 167)
    monkeypatch.setattr(sheet, "MOST", 1)
    with pytest.raises(InputError, match="at most 1 hits, got 2; lower -k"):
        sheet.write(tmp_path / "a.jpg", shown, ["x"], found)
    assert shown.manifest.model == MODEL
