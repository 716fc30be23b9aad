"""A broken reader is never taken for bad videos, and a bad video never for a broken reader.

The commands run on a copy of the package in which the reader has a bug.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from ncl_jax.errors import InputError
from ncl_jax.video import decode, pool
from ncl_jax.video import worker as worker_lib
from tests.video_search.gallery_test import write_video

ROOT = pathlib.Path(__file__).parents[2]
ANSWER = "def _answer(request: dict[str, Any]) -> tuple[str, bytes]:\n"
BUG_EVERYWHERE = ("ncl_jax/video/container.py", " = av.open(source, ", " = av.opened(source, ")
BUG_AT_ONE_FILE = (
    "ncl_jax/video/worker.py",
    ANSWER,
    f'{ANSWER}    if "clip3" in request["path"]:\n        raise TypeError("planted")\n',
)
DEATH_EVERYWHERE = (
    "ncl_jax/video/worker.py",
    "        _check_reader()\n",
    "        os.kill(os.getpid(), signal.SIGSEGV)\n",
)
DEATH_AT_ONE_FILE = (
    "ncl_jax/video/worker.py",
    ANSWER,
    f'{ANSWER}    if "clip3" in request["path"]:\n        os.kill(os.getpid(), signal.SIGSEGV)\n',
)


def plant(tmp_path: pathlib.Path, bug: tuple[str, str, str]) -> pathlib.Path:
    """A copy of the packages with one place changed."""
    root = tmp_path / "planted"
    for package in ("ncl_jax", "tfds_builders", "configs"):
        ignored = shutil.ignore_patterns("__pycache__", "dummy_data")
        shutil.copytree(ROOT / package, root / package, ignore=ignored)
    file, right, wrong = bug
    text = (root / file).read_text()
    assert text.count(right) == 1, f"{file} has changed: plant the bug elsewhere"
    (root / file).write_text(text.replace(right, wrong))
    return root


def run(root: pathlib.Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", *map(str, arguments)]
    start = time.monotonic()
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert time.monotonic() - start < 60
    return done


def msvd(folder: pathlib.Path, clips: int) -> pathlib.Path:
    """MSVD's layout with so many clips of two seconds."""
    names = [f"clip{number}" for number in range(clips)]
    whole = write_video(folder / "whole.mp4", [40, 200], fps=1)
    (folder / "msvd" / "videos").mkdir(parents=True)
    for name in names:
        shutil.copy(whole, folder / "msvd" / "videos" / f"{name}.mp4")
    captions = json.dumps({name: ["a clip"] for name in names})
    (folder / "msvd" / "captions.json").write_text(captions)
    for split, part in (("train", names[:-2]), ("val", names[-2:-1]), ("test", names[-1:])):
        (folder / "msvd" / f"{split}_list.txt").write_text("\n".join(part))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", ["build", "check"])
@pytest.mark.parametrize("bug", [BUG_EVERYWHERE, BUG_AT_ONE_FILE, DEATH_EVERYWHERE])
def test_a_bug_in_the_reader_ends_the_command(tmp_path, command, bug):
    manual = msvd(tmp_path / "manual", 6)
    flags = [f"--data_dir={tmp_path / 'data'}", "--on_bad=skip"] if command == "build" else []
    module = f"tfds_builders.{command}"
    done = run(plant(tmp_path, bug), module, "msvd", f"--manual_dir={manual}", *flags)
    assert done.returncode == 1, done.stderr
    assert "Traceback" in done.stderr
    assert "ReaderFault: the video reader" in done.stderr
    if bug != DEATH_EVERYWHERE:
        assert "planted" in done.stderr or "has no attribute 'opened'" in done.stderr
    assert "expected a readable video" not in done.stderr + done.stdout
    assert "| " not in done.stdout  # no table of bad files
    assert not list(tmp_path.rglob("dataset_info.json"))


@pytest.mark.slow
def test_a_file_that_kills_its_reader_is_a_bad_file(tmp_path):
    manual = msvd(tmp_path / "manual", 6)
    root = plant(tmp_path, DEATH_AT_ONE_FILE)
    flags = ["msvd", f"--manual_dir={manual}"]
    done = run(root, "tfds_builders.build", *flags, f"--data_dir={tmp_path / 'data'}",
               "--on_bad=skip")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "used 5 of 6 clips" in done.stdout
    assert "1 unreadable" in done.stdout
    done = run(root, "tfds_builders.check", *flags)
    assert done.returncode == 1
    assert "clip3.mp4: expected a readable video, got a decoder that ended with SIGSEGV" in (
        done.stdout
    )


@pytest.mark.slow
def test_a_build_of_which_every_file_fails_in_one_way_stops(tmp_path):
    manual = msvd(tmp_path / "manual", 30)
    for number in range(28):
        (manual / "msvd" / "videos" / f"clip{number}.mp4").write_text("an error page, say")
    flags = ["msvd", f"--manual_dir={manual}", f"--data_dir={tmp_path / 'data'}", "--jobs=1",
             "--on_bad=skip"]  # fmt: skip
    done = run(ROOT, "tfds_builders.build", *flags)
    assert done.returncode == 2
    assert "the first 20 video files all fail in the same way (clip19.mp4: expected" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(ROOT, "tfds_builders.build", *flags, "--give-up-after=0")
    assert done.returncode == 2
    assert "train: none of 28 clips is readable" in done.stderr


def bad(number: int, reason: str) -> decode.VideoError:
    return decode.VideoError(f"{number}.mp4", reason)


def test_giving_up_needs_one_reason_and_no_good_file():
    same = [bad(i, "expected a readable video, got noise") for i in range(5)]
    with pytest.raises(InputError, match=r"first 5 video files .* \(4\.mp4: expected"):
        see(5, same)
    see(6, same)
    see(0, same * 10)
    see(5, [*same[:4], bad(4, "another reason"), *same, *same])
    see(5, [b"a clip", *same, *same])
    see(5, [*same[:4], b"a clip", *same])


def see(after, results):
    give_up = pool.GiveUp(after)
    for result in results:
        give_up.see(result)


def test_results_come_in_order_or_as_they_are_ready(tmp_path):
    paths = {f"{i}": write_video(tmp_path / f"{i}.mp4", [40 * i + 40]) for i in range(5)}
    (tmp_path / "2.mp4").write_text("nothing")

    def first(worker, name, path):
        return worker.probe(path).frames

    got = list(pool.read_files(first, paths, jobs=2, seconds=60, in_order=True))
    assert [name for name, _ in got] == list(paths)
    assert [result for _, result in got if result == 1] == [1] * 4
    assert str(got[2][1]).startswith("2.mp4: expected a readable video, got")
    assert dict(pool.read_files(first, paths, jobs=2, seconds=60)).keys() == paths.keys()


def test_what_a_caller_raises_beside_a_reader_is_no_bad_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", [40])

    def read(worker, name, path):
        worker.probe(path)
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        list(pool.read_files(read, {"a": path}, seconds=60))


def test_the_known_good_file_is_what_the_reader_expects():
    worker_lib._check_reader()
    probe = decode.probe(worker_lib._KNOWN_GOOD, deep=True)
    assert probe == decode.Probe("h264", 10.0, 2.0, 48, 32, 20, 0)


def test_a_reader_that_gives_something_else_is_noticed(monkeypatch):
    right = decode.decode_frames(worker_lib._KNOWN_GOOD, fps=1.0)
    for frames in (right.frames[:1], right.frames[::-1], [f[..., ::-1] for f in right.frames]):
        wrong = right._replace(frames=frames)
        monkeypatch.setattr(worker_lib, "decode_frames", lambda *_, clip=wrong, **__: clip)
        with pytest.raises(RuntimeError, match="expected one red and one blue frame"):
            worker_lib._check_reader()
