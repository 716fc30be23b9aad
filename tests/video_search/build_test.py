"""Own videos, from a folder to the page: a real run, real files, a real browser."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

from ncl_jax.cli import index as cli
from ncl_jax.cli import serve as serve_cli
from ncl_jax.index import RetrievalIndex
from ncl_jax.pretrained import Model
from ncl_jax.video_search import gallery, server
from ncl_jax.video_search.manifest import manifest_of
from tests.cli.train_test import small_run
from tests.video import reader_faults_test
from tests.video_search.gallery_test import write_video

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    write_video(folder / "long.mp4", [40] * 40 + [200] * 60, fps=4)  # two windows
    write_video(folder / "b <i>.webm", [10, 90, 250], fps=1)
    (folder / "sub").mkdir()
    (folder / "sub" / "bad.mp4").write_bytes(b"not a video")
    return folder


def build(tmp_path, workdir, *more):
    return ["build", str(tmp_path / "index"), "--videos", str(tmp_path / "videos"),
            "--checkpoint", str(workdir), *more]  # fmt: skip


def test_a_folder_is_embedded_once_and_followed(tmp_path, workdir, videos, capsys):
    assert cli.main(build(tmp_path, workdir)) == 0
    said = capsys.readouterr().out
    assert "3 files: 3 to embed, 0 known, 0 gone or changed" in said
    assert "skipped: sub/bad.mp4: expected a readable video" in said
    assert re.search("3 windows of 2 files, bank: [0-9,]+ training captions -> ", said)
    first = RetrievalIndex.load(tmp_path / "index")
    assert [w.file for w in manifest_of(first).windows] == ["b <i>.webm", "long.mp4", "long.mp4"]
    assert first.bias.std() > 0

    written = (tmp_path / "index" / "index.json").stat()
    assert cli.main(build(tmp_path, workdir)) == 0
    assert "1 to embed, 2 known" in capsys.readouterr().out
    assert (tmp_path / "index" / "index.json").stat() == written  # nothing is new: open pages go on
    (videos / "b <i>.webm").unlink()
    write_video(videos / "c.mp4", [120] * 4)
    assert cli.main(build(tmp_path, workdir)) == 0
    assert "3 files: 2 to embed, 1 known, 1 gone or changed" in capsys.readouterr().out
    followed = RetrievalIndex.load(tmp_path / "index")
    (tmp_path / "index" / "index.json").unlink()
    assert cli.main(build(tmp_path, workdir)) == 0
    fresh = RetrievalIndex.load(tmp_path / "index")
    assert followed.ids == fresh.ids
    assert abs(followed.video - fresh.video).max() < 1e-6
    assert abs(followed.bias - fresh.bias).max() < 1e-4

    capsys.readouterr()
    assert cli.main(["search", str(tmp_path / "index"), "a red ball", "-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    clock = r"\d:\d\d\.\d"
    line = rf'a red ball\t1\t\S+ {clock}-{clock}\t-?\d+\.\d{{4}}\tlike ".+"'
    assert re.fullmatch(line, lines[0])


def test_a_bug_in_the_reader_ends_the_build(tmp_path, workdir, videos):
    planted = reader_faults_test.plant(tmp_path, reader_faults_test.BUG_EVERYWHERE)
    done = reader_faults_test.run(planted, "ncl_jax.cli.index", *build(tmp_path, workdir))
    assert done.returncode == 1
    assert "ReaderFault: the video reader" in done.stderr
    assert "skipped" not in done.stdout
    assert not list((tmp_path / "index").iterdir())


def test_moved_and_renamed_files_are_known(tmp_path, workdir, videos, capsys):
    assert cli.main(build(tmp_path, workdir)) == 0
    before = RetrievalIndex.load(tmp_path / "index")
    (videos / "sub" / "bad.mp4").unlink()
    (videos / "long.mp4").rename(videos / "a.mp4")
    moved = videos.rename(tmp_path / "moved")
    line = [str(moved) if part == str(videos) else part for part in build(tmp_path, workdir)]
    capsys.readouterr()
    assert cli.main(line) == 0
    assert "2 files: 0 to embed, 2 known, 0 gone or changed" in capsys.readouterr().out
    after = RetrievalIndex.load(tmp_path / "index")
    assert [w.file for w in manifest_of(after).windows] == ["a.mp4", "a.mp4", "b <i>.webm"]
    assert sorted(map(tuple, after.video)) == sorted(map(tuple, before.video))
    assert after.meta["gallery"]["folder"] == str(moved)

    other, status = moved / "other.webm", (moved / "b <i>.webm").stat()
    (moved / "b <i>.webm").unlink()  # and another of its size and time comes
    other.write_bytes(bytes(status.st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cli.main(line) == 0
    assert "2 files: 1 to embed, 1 known, 0 gone or changed" in capsys.readouterr().out
    (moved / "other.webm").unlink()
    write_video(moved / "b <i>.webm", [40] * 8)
    assert cli.main(line) == 0

    write_video(tmp_path / "videos" / "other.mp4", [40] * 8)  # another folder by mistake
    kept = (tmp_path / "index" / "index.json").read_bytes()
    assert cli.main(build(tmp_path, workdir)) == 2
    assert f"holds 2 videos of {moved}, none of which is in {videos}" in capsys.readouterr().err
    assert (tmp_path / "index" / "index.json").read_bytes() == kept


def test_files_read_by_other_rules_are_embedded_again(tmp_path, workdir, videos, capsys):
    part = (videos / "long.mp4").with_suffix(".ts")
    write_video(part, [40] * 8)
    part.write_bytes(2 * part.read_bytes())
    assert cli.main(build(tmp_path, workdir)) == 0
    remark = "remark: long.ts: the clock changes at 8.0 s; the time line goes on"
    assert remark in capsys.readouterr().out.splitlines()
    index = RetrievalIndex.load(tmp_path / "index")
    assert index.meta["gallery"]["files"]["long.ts"]["windows"] == [[0.0, 10.0], [10.0, 16.0]]
    index.meta["gallery"]["frames"] -= 1
    index.save(tmp_path / "index")
    assert cli.main(build(tmp_path, workdir)) == 0
    assert "4 files: 4 to embed, 0 known" in capsys.readouterr().out


def test_the_commands_as_one_types_them(tmp_path, workdir, videos, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", "a red ball"]) == 2
    assert "video_index: expected an index; build one" in capsys.readouterr().err
    assert cli.main(["build", "--videos", "videos", "--checkpoint", str(workdir)]) == 0
    capsys.readouterr()
    scores = {}
    for kind in ("normalised", "plain"):
        assert cli.main(["search", "a red\nball", "-k", "3", "--scores", kind]) == 0
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [line[:2] for line in lines] == [[r"a red\nball", str(i)] for i in (1, 2, 3)]
        scores[kind] = {line[2]: float(line[3]) for line in lines}
    index = RetrievalIndex.load("video_index")
    for name, bias in zip(index.ids, index.bias, strict=True):
        assert abs(scores["normalised"][name] - scores["plain"][name] - bias) < 2e-4
    assert cli.main(["search", "a", "red", "ball"]) == 2
    assert "a: expected an index; build one" in capsys.readouterr().err
    assert cli.main(["search", "video_index"]) == 2
    assert "expected words, --query, --picture or --clip after" in capsys.readouterr().err
    assert cli.main(["search", "x" * 5000, "-k", "1"]) == 0


def test_a_file_that_takes_too_long_is_skipped(tmp_path, workdir, videos, capsys):
    assert cli.main(build(tmp_path, workdir, "--timeout", "0.0001")) == 2
    said = capsys.readouterr()
    assert "long.mp4: expected a readable video, got more than 0.0001 s of work" in said.out
    assert "expected at least one video that can be read" in said.err


def test_an_interrupted_build_goes_on(tmp_path, workdir, videos, capsys, monkeypatch):
    whole = gallery.embed_files

    def interrupted(*arguments, **options):
        yield next(whole(*arguments, **options))
        raise KeyboardInterrupt

    index, partial = (tmp_path / "index" / name for name in ("index.json", "index.partial"))
    before = b""
    for kept, said in (
        ("1 files are saved", "3 files: 2 to embed, 1 known, 0 gone or changed"),
        ("3 files are saved", "4 files: 1 to embed, 3 known, 0 gone or changed"),
    ):
        monkeypatch.setattr(gallery, "embed_files", interrupted)
        with pytest.raises(SystemExit) as ended:
            cli.main(build(tmp_path, workdir))
        assert ended.value.code == 130
        assert f"{kept} in {partial};" in capsys.readouterr().err
        assert (index.read_bytes() if index.exists() else b"") == before  # finished, or none yet
        monkeypatch.undo()
        assert cli.main(build(tmp_path, workdir)) == 0
        assert said in capsys.readouterr().out
        assert not partial.exists()
        before = index.read_bytes()
        write_video(videos / "a.mp4", [120] * 4)


def full(what, room=()):
    """`RetrievalIndex.save` on a disk without room for files of these endings."""
    real = RetrievalIndex.save

    def save(self, path):
        if str(path).endswith(what) and not str(path).startswith(room):
            raise OSError(f"{path} could not be written: No space left on device")
        real(self, path)

    return save


def test_a_full_disk_loses_no_embeddings(tmp_path, workdir, videos, capsys, monkeypatch):
    index, partial = tmp_path / "index", tmp_path / "index" / "index.partial"
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(RetrievalIndex, "save", full("index"))
    assert cli.main(build(tmp_path, workdir)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"error: {index} could not be written: No space left on device; 2 files are saved in "
        f"{partial}"
    )
    shutil.rmtree(partial)
    everything = ("index", "partial")
    monkeypatch.setattr(RetrievalIndex, "save", full(everything, str(tmp_path / "tmp")))
    assert cli.main(build(tmp_path, workdir)) == 2
    (elsewhere,) = (tmp_path / "tmp").glob("ncl_jax-*/index.partial")
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"2 files are saved in {elsewhere}: move it to {partial}")
    elsewhere.rename(partial)
    monkeypatch.undo()
    assert cli.main(build(tmp_path, workdir)) == 0
    assert "3 files: 1 to embed, 2 known" in capsys.readouterr().out


def test_damaged_files_of_a_build(tmp_path, workdir, videos, capsys):
    """What an unfinished one left is ours to drop; an index might be somebody's other file."""
    (tmp_path / "index" / "index.partial").mkdir(parents=True)
    (tmp_path / "index" / "index.partial" / "index.json").write_bytes(b"{half a file")
    assert cli.main(build(tmp_path, workdir)) == 0
    assert "its files are embedded again" in capsys.readouterr().err
    (tmp_path / "index" / "index.json").write_bytes(b"PK half a file")
    assert cli.main(build(tmp_path, workdir)) == 2
    assert "cannot be read as an index; remove it or name another" in capsys.readouterr().err


def test_a_checkpoint_that_went_on_is_noticed(tmp_path, workdir, videos, capsys, monkeypatch):
    assert cli.main(build(tmp_path, workdir)) == 0
    monkeypatch.setattr(Model, "fingerprint", "later")
    for command in (
        lambda: cli.main(["search", str(tmp_path / "index"), "a ball"]),
        lambda: serve_cli.main(["--index", str(tmp_path / "index"), "--port", "0"]),
    ):
        capsys.readouterr()
        assert command() == 2
        assert "build" in capsys.readouterr().err
    assert cli.main(build(tmp_path, workdir)) == 0  # everything is embedded again
    assert "3 to embed, 0 known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--checkpoint", "nowhere"], "nowhere: expected a run, a file or folder of weights"),
        (["--checkpoint", "videos/long"], "the folder videos has no long; did you mean long.mp4?"),
        (["--bank", "nowhere.txt"], "No such file or directory: 'nowhere.txt'"),
        (["--bank", "a.pdf"], "--bank a.pdf: expected .txt, .csv, .tsv, .npy or .npz"),
        (["--learn-bank"], "search in the page of `serve --learn-bank` first"),
        (["--videos", "nowhere"], "nowhere: expected a folder of videos"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    tmp_path, workdir, videos, capsys, monkeypatch, change, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(gallery, "embed_files")  # all of it is known before
    assert cli.main([*build(tmp_path, workdir), *change]) == 2
    *begun, error = capsys.readouterr().err.splitlines()
    assert said in error
    assert begun == ["importing JAX ..."]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("videos/long.mp4/index", "cannot write {}: "),
        ("index.npz", "{}: expected a folder to save the index to"),
    ],
)
def test_a_place_that_cannot_be_written_is_known_before(
    tmp_path, workdir, videos, capsys, monkeypatch, place, said
):
    monkeypatch.delattr(gallery, "embed_files")
    command, _, *rest = build(tmp_path, workdir)
    assert cli.main([command, str(tmp_path / place), *rest]) == 2
    assert said.format(tmp_path / place) in capsys.readouterr().err


@pytest.fixture
def page(tmp_path, workdir, videos):
    """The address of a running server."""
    assert cli.main(build(tmp_path, workdir)) == 0
    with served(tmp_path / "index") as address:
        yield address


@contextlib.contextmanager
def served(index):
    """The address of a running server of an index."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ncl_jax.cli.serve", "--index", str(index), "--port", "0"],
        cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        yield re.match(r"http://127\.0\.0\.1:\d+/", line)[0]
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


def until(seconds, condition):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)
    return value


def test_the_page_in_a_browser(browser, page):
    browser.get(page)
    assert "3 clips in 2 videos" in until(
        20, lambda: browser.find_element("id", "about").text.strip()
    )
    assert "Some of the clips" in until(20, lambda: browser.find_element("id", "said").text)
    assert len(browser.find_elements("css selector", ".hit")) == 2  # one of each file
    box = browser.switch_to.active_element
    assert box.get_attribute("id") == "query"  # ready to type in
    box.send_keys("a red ball\n")
    until(20, lambda: "best first" in browser.find_element("id", "said").text)
    cards = browser.find_elements("css selector", ".hit")
    assert len(cards) == 3
    names = [card.find_element("css selector", ".name").text for card in cards]
    assert sorted(names) == ["b <i>.webm", "long.mp4", "long.mp4"]
    pictures = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    browser.execute_script("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    until(20, lambda: browser.execute_script(pictures))

    def scores():
        return {
            (c.find_element("css selector", ".name").text,
             c.find_element("css selector", ".clock").text):
            c.find_element("css selector", ".score").text
            for c in browser.find_elements("css selector", ".hit")
        }  # fmt: skip

    normalised = scores()
    browser.find_element("css selector", "input[value=plain]").send_keys(" ")
    until(20, lambda: "plain" in browser.find_element("id", "said").text)
    assert scores() != normalised
    assert scores().keys() == normalised.keys()

    browser.find_element("css selector", ".similar").send_keys("\n")
    until(20, lambda: "2 clips like" in browser.find_element("id", "said").text)
    describe = browser.find_element("css selector", ".describe")
    describe.send_keys("\n")
    assert until(20, lambda: browser.find_elements("css selector", ".captions li"))
    assert describe.get_attribute("aria-expanded") == "true"
    assert browser.get_log("browser") == []


def test_a_clip_plays_from_its_second(browser, page):
    browser.get(page + "?q=grey")
    until(20, lambda: len(browser.find_elements("css selector", ".hit")) == 3)
    card = next(
        c for c in browser.find_elements("css selector", ".hit")
        if c.find_element("css selector", ".clock").text.startswith("0:10.0")
    )  # fmt: skip
    card.find_element("css selector", ".play").click()
    player = card.find_element("css selector", ".screen > *")
    assert player.tag_name == "video"
    until(20, lambda: browser.execute_script("return arguments[0].currentTime", player) >= 10)


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mp4"])
def test_a_clip_plays_from_its_second_where_clocks_begin_late(
    browser, tmp_path, workdir, videos, page, suffix
):
    greys = [10 * (second + 1) for second in range(20)]
    write_video(videos / f"late.{suffix}", greys, begin=30)
    assert cli.main(build(tmp_path, workdir)) == 0
    browser.get(page + "?q=grey")
    until(20, lambda: len(browser.find_elements("css selector", ".hit")) == 5)
    card = next(
        c for c in browser.find_elements("css selector", ".hit")
        if c.find_element("css selector", ".name").text.startswith("late")
        and c.find_element("css selector", ".clock").text.startswith("0:10.0")
    )  # fmt: skip
    card.find_element("css selector", ".play").click()
    player = until(20, lambda: card.find_elements("css selector", "video"))[0]
    there = "const p = arguments[0]; return p.currentTime > 0 && !p.seeking && p.readyState > 1"
    until(20, lambda: browser.execute_script(there, player))
    grey = browser.execute_script("""
        const player = arguments[0], canvas = document.createElement("canvas");
        player.pause();
        canvas.width = canvas.height = 1;
        const context = canvas.getContext("2d");
        context.drawImage(player, 0, 0, 1, 1);
        return context.getImageData(0, 0, 1, 1).data[0]""", player)
    assert abs(grey - greys[10]) < 25  # the picture of second 10 or one of the next two


def test_one_clip_plays_at_a_time_and_more_are_shown(browser, tmp_path, workdir, videos, page):
    for number in range(15):
        write_video(videos / f"{number}.mp4", [15 * number + 5] * 6)
    assert cli.main(build(tmp_path, workdir)) == 0
    browser.get(page + "?q=grey")
    cards = until(20, lambda: browser.find_elements("css selector", ".hit"))
    assert len(cards) == 12
    for card in cards[:3]:
        card.find_element("css selector", ".play").click()
    assert len(browser.find_elements("css selector", "video")) == 1
    assert len(browser.find_elements("css selector", ".play img")) == 11
    more = browser.find_element("id", "more")
    browser.execute_script("arguments[0].click()", more)
    until(20, lambda: len(browser.find_elements("css selector", ".hit")) == 18)
    assert len(browser.find_elements("css selector", "video")) == 1  # it plays on
    assert not more.is_displayed()
    box = browser.find_element("id", "query")
    box.clear()
    box.send_keys("   \n")
    assert "Type a few words" in until(20, lambda: browser.find_element("id", "said").text)


def test_stalled_players_hold_up_nobody(page, workdir, tmp_path, videos):
    """Each asks for a large file to its end and reads nothing of it."""
    with (videos / "long.mp4").open("ab") as file:
        file.truncate(64 << 20)
    assert cli.main(build(tmp_path, workdir)) == 0
    port = int(page.rstrip("/").rsplit(":", 1)[1])

    links = contextlib.ExitStack()

    def ask(path, **headers):
        link = links.enter_context(
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20))
        )
        link.request("GET", path, headers=headers)
        return link

    with links:
        hits = json.loads(ask("/api/search?q=grey").getresponse().read())["hits"]
        item = next(hit["item"] for hit in hits if hit["file"] == "long.mp4")
        for _ in range(2 * server.THREADS):
            ask(f"/video/{item}", Range="bytes=0-")
        assert json.loads(ask("/api/gallery").getresponse().read())["windows"] == 3


def test_the_page_says_why_a_clip_does_not_play(browser, page, tmp_path, workdir, videos):
    def why(card):
        card.find_element("css selector", ".play").click()
        return until(20, lambda: card.find_elements("css selector", ".failed"))[0].text

    browser.get(page + "?q=grey")
    cards = until(20, lambda: browser.find_elements("css selector", ".hit"))
    gone, broken, stale = sorted(
        cards, key=lambda card: card.find_element("css selector", ".name").text
    )
    (videos / "b <i>.webm").unlink()
    was = (videos / "long.mp4").stat()
    (videos / "long.mp4").write_bytes(bytes(was.st_size))  # no longer a video, as old and as large
    os.utime(videos / "long.mp4", ns=(was.st_atime_ns, was.st_mtime_ns))
    assert why(gone) == "b <i>.webm is gone; build the index again"
    assert why(broken).startswith("long.mp4: expected a readable video, got")
    write_video(videos / "a.mp4", [40] * 8)
    assert cli.main(build(tmp_path, workdir)) == 0
    assert why(stale) == "the index was built again; search again"
    (videos / "a.mp4").unlink()
    browser.refresh()
    failed = until(20, lambda: browser.find_elements("css selector", ".failed"))
    assert failed[0].text == "a.mp4 is gone; build the index again"  # before anyone clicks


def test_the_server_says_when_it_cannot_listen(tmp_path, workdir, videos, page, capsys):
    port = page.rstrip("/").rsplit(":", 1)[1]
    assert serve_cli.main(["--index", str(tmp_path / "index"), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
    link = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    link.request("GET", "/api/gallery")  # the first one goes on
    assert json.loads(link.getresponse().read())["windows"] == 3
    link.close()
