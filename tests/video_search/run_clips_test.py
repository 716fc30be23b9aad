"""The test clips of a finished run on the page: a real run, its own files, a real browser."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from ncl_jax.cli import serve as serve_cli
from ncl_jax.errors import InputError
from ncl_jax.experiment.original_clips import original_clips
from ncl_jax.index import RetrievalIndex
from ncl_jax.pretrained import checkpoint
from ncl_jax.video_search import run_folder
from ncl_jax.video_search.opening import open_index, snapshot_of
from ncl_jax.video_search.run_folder import index_of, run_of
from tests.cli.train_test import small_run
from tests.video_search.build_test import until
from tests.video_search.gallery_test import write_video
from tests.video_search.plays_test import GOES

ROOT = pathlib.Path(__file__).parents[2]
PICTURES = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
EAGER = "document.querySelectorAll('img').forEach(i => i.loading = 'eager')"
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("run")).parent


@pytest.fixture
def moved(root):
    """Moves parts of a run away, and back at the end."""
    with contextlib.ExitStack() as back:

        def away(name):
            (root / name).rename(root / f"{name}.away")
            back.callback((root / f"{name}.away").rename, root / name)

        yield away


@contextlib.contextmanager
def served(run):
    """(The address of the page over a run, what the server said while starting)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ncl_jax.cli.serve", str(run), "--port", "0"], cwd=ROOT, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.endswith("shows the test clips of run (stop with Ctrl-C)\n")
        address = re.match(r"http://127\.0\.0\.1:\d+/", line)[0]
        said = [process.stderr.readline() for _ in range(3)]
        yield address, said, process.stderr
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()
        process.stderr.close()


def cards_of(browser, count):
    until(20, lambda: len(browser.find_elements("css selector", ".hit")) == count)
    return browser.find_elements("css selector", ".hit")


def part(card, selector):
    return card.find_element("css selector", selector)


@slow
def test_the_clips_of_a_run_open_in_a_browser(browser, root):
    index = RetrievalIndex.load(root / "run" / "index")
    known = original_clips(root / "run", index.ids)
    with served(root / "run") as (page, said, _):
        assert [line.rstrip() for line in said] == [
            "importing JAX and Flask ...", "loading the index and its model ...",
            "compiling the model for the first query ...",
        ]  # fmt: skip
        browser.get(page)
        cards = cards_of(browser, 8)
        about = browser.find_element("id", "about").text
        assert about.startswith("8 test clips of the run “run”; normalised by 176 training")
        assert not browser.find_element("id", "remark").is_displayed()
        checked = browser.find_element("css selector", "input[name=scores]:checked")
        assert (checked.get_attribute("value") == "plain") == index.prefers_plain
        browser.execute_script(EAGER)
        until(20, lambda: browser.execute_script(PICTURES))
        box = browser.find_element("id", "query")
        box.send_keys("a red ball\n")
        until(20, lambda: "best first" in browser.find_element("id", "said").text)
        for card in cards_of(browser, 8):
            name = part(card, ".name").text
            captions = known.clips[name.removesuffix(".mp4")].captions
            summary = part(card, ".own summary").text
            assert summary == f"Test captions: “{captions[0]}” and {len(captions) - 1} more"
            part(card, ".own summary").click()
            shown = [line.text for line in card.find_elements("css selector", ".own li")]
            assert shown == captions[1:]
            assert part(card, ".describe").text == "Nearest training captions"
            part(card, ".play").click()
            player = until(20, lambda card=card: card.find_elements("css selector", "video"))[0]
            until(20, lambda player=player: browser.execute_script(GOES, player))
            assert "/video/" in player.get_attribute("src")
        assert len(cards) == 8
        assert browser.get_log("browser") == []


@slow
def test_an_example_is_chosen_or_dropped(browser, root, tmp_path):
    video = write_video(tmp_path / "grey.mp4", [90] * 3)
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate((32 << 20) + 1)

    def said():
        return browser.find_element("id", "said").text

    with served(root / "run" / "index") as (page, _, _):
        browser.get(page)
        cards_of(browser, 8)
        chooser = browser.find_element("id", "example")
        assert browser.find_element("id", "give").get_attribute("title").endswith("up to 32 MB")
        chooser.send_keys(str(video))
        until(60, lambda: said().startswith("8 clips like grey.mp4, by "))
        scores = [part(card, ".score").text for card in cards_of(browser, 8)]
        numbers = [float(text.removeprefix("score ")) for text in scores]
        assert numbers == sorted(numbers, reverse=True)
        browser.find_element("css selector", "input[value=plain]").send_keys(" ")
        until(20, lambda: said() == "8 clips like grey.mp4, by plain scores.")
        assert [part(card, ".score").text for card in cards_of(browser, 8)] != scores
        chooser.send_keys(str(large))
        until(20, lambda: said().startswith("large.mp4 is larger than 32 MB; cut out"))
        browser.execute_script("""
            const given = new DataTransfer();
            given.items.add(new File(["junk"], "junk.txt"));
            for (const kind of ["dragover", "drop"])
              document.body.dispatchEvent(new DragEvent(kind, {
                bubbles: true, cancelable: true, dataTransfer: given }))""")
        until(20, lambda: said().startswith("the picture or clip: expected a readable video, got"))


@slow
def test_files_that_are_gone_leave_stored_frames(browser, root, moved):
    moved("manual")
    folder = root / "manual" / "demo"
    sentence = (
        f"The video files of 8 of 8 clips are not in {folder}; their stored frames are shown "
        "instead."
    )
    with served(root / "run") as (page, _, errors):
        assert errors.readline().rstrip() == sentence
        browser.get(page)
        card, *_ = cards_of(browser, 8)
        until(20, lambda: browser.find_element("id", "remark").text == sentence)
        browser.execute_script(EAGER)
        until(20, lambda: browser.execute_script(PICTURES))
        assert part(card, ".own summary").text.startswith("Test captions: “")
        name = part(card, ".name").text
        part(card, ".play").click()
        failed = until(20, lambda: card.find_elements("css selector", ".failed"))[0]
        assert failed.text == (
            f"{name} is gone; put the file that the run's dataset was built from back into {folder}"
        )


@slow
def test_a_dataset_that_is_gone_too(root, moved):
    shown = open_index(root / "run")
    moved("manual")
    moved("tfds")
    gone = open_index(root / "run")
    assert "of 8 of 8 clips are not in" in gone.run.remark
    assert gone.run.remark.endswith("and their dataset is gone too.")
    assert shown.run.remark == ""
    assert set(map(len, gone.run.captions)) == {0}
    query = shown.library.embed("a red ball")
    for scores in ("plain", "normalised"):
        was, now = (o.library.snapshot().search(query, 8, scores) for o in (shown, gone))
        assert [hit["score"] for hit in was] == [hit["score"] for hit in now]
        assert [hit["file"].removesuffix(".mp4") for hit in was] == [hit["file"] for hit in now]


@slow
def test_queries_are_not_kept_for_a_run(root, capsys):
    assert serve_cli.main([str(root / "run"), "--learn-bank"]) == 2
    assert "--learn-bank: expected an index of own videos" in capsys.readouterr().err


@slow
def test_a_run_that_is_evaluated_again_wants_another_start(root):
    opened = open_index(root / "run" / "index")
    os.utime(root / "run" / "index" / "index.json", ns=(1, 1))
    with pytest.raises(InputError, match="the run was evaluated again; start the server again"):
        opened.library.snapshot()
    assert len(open_index(root / "run").library.snapshot().windows) == 8


@slow
def test_a_snapshot_of_a_run_has_the_files_of_its_dataset(root):
    path = index_of(root / "run")
    shown = snapshot_of(RetrievalIndex.load(path), path)
    names = {shown.file(row).name for row in range(8)}
    assert names == {f"{clip}.mp4" for clip in shown.index.ids}


def test_what_is_taken_for_a_run(tmp_path, capsys):
    assert (run_folder.CHECKPOINTS, run_folder.INDEX) == (checkpoint.CHECKPOINTS, checkpoint.INDEX)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for path in (run, run / "index"):
        assert run_of(path) == run
        assert index_of(path) == str(run / "index")
    for path in (tmp_path, run / "other", run / "other.npz", "x" * 5000, "a\0b"):
        assert run_of(path) is None
        assert index_of(path) == str(path)
    assert serve_cli.main([str(run)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "expected a finished run that has left an index, found none" in said
    assert serve_cli.main([str(run), "--index", str(run)]) == 2
    assert "expected one index or run, got" in capsys.readouterr().err
    shutil.rmtree(run)
