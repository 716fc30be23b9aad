"""Builds as processes: killed and gone on with, on two jobs, under Apache Beam."""

import concurrent.futures
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds
from etils import epath

import tfds_builders
from ncl_jax.video import decode
from ncl_jax.video import worker as worker_lib
from tests.video import reader_faults_test
from tests.video.files_test import write
from tests.video.long_video import repeat
from tfds_builders import decoding, frame_store

ROOT = pathlib.Path(__file__).parents[2]
DUMMY = ROOT / "tfds_builders"
CLIPS = 16


@pytest.fixture
def manual_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """MSVD of clips that take a while to decode."""
    folder = tmp_path / "manual" / "msvd"
    (folder / "videos").mkdir(parents=True)
    options = {"preset": "ultrafast", "g": "250"}
    whole = write(tmp_path / "whole.mp4", 150, size=(640, 360), options=options)
    names = [f"clip{number}" for number in range(CLIPS)]
    for name in names:
        shutil.copy(whole, folder / "videos" / f"{name}.mp4")
    (folder / "captions.json").write_text(json.dumps({name: ["a clip"] for name in names}))
    for split, part in (("train", names[:-2]), ("val", names[-2:-1]), ("test", names[-1:])):
        (folder / f"{split}_list.txt").write_text("\n".join(part))
    return folder.parent


def _command(manual_dir: pathlib.Path, data_dir: pathlib.Path, *flags: str) -> list[str]:
    module = [sys.executable, "-m", "tfds_builders.build", "msvd"]
    return [*module, f"--manual_dir={manual_dir}", f"--data_dir={data_dir}", *flags]


def _records(data_dir: pathlib.Path, name: str = "msvd") -> dict[str, dict[str, bytes]]:
    """Split -> clip id -> its first frame."""
    (info,) = data_dir.glob(f"{name}/*/*/dataset_info.json")
    builder = tfds.builder_from_directory(str(info.parent))
    return {
        split: {r["video_id"].decode(): r["frames"][0] for r in builder.as_data_source(split)}
        for split in builder.info.splits
    }


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_stopped(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    data_dir = tmp_path / "data"
    clip = _make_endless(manual_dir)
    command = _command(manual_dir, data_dir, "--short_side=320", "--fps=5", "--jobs=1")
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
    _wait_for_clips(data_dir, 3)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = sorted(data_dir.rglob("*.npz"))
    assert 3 <= len(kept) < CLIPS
    stamps = [path.stat().st_mtime_ns for path in kept]
    (kept[0].parent / "half.npz.0").write_bytes(b"a draft")
    clip.unlink()
    shutil.copy(tmp_path / "whole.mp4", clip)
    second = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _wait_for_clips(data_dir, len(kept) + 1)
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    errors = second.communicate(timeout=100)[1]
    assert second.returncode == 0, errors
    bar = errors.replace("\r", "\n")
    assert f" {len(kept)}/{CLIPS} " in bar  # the progress goes on, too
    assert f"{CLIPS}/{CLIPS}" in bar
    assert {split: len(clips) for split, clips in _records(data_dir).items()} == {
        "train": CLIPS - 2, "val": 1, "test": 1
    }  # fmt: skip
    assert not list(data_dir.rglob("*.npz*"))


def _make_endless(manual_dir: pathlib.Path) -> pathlib.Path:
    """A clip that takes minutes to read, so that no build is done before it is stopped."""
    clip = manual_dir / "msvd" / "videos" / f"clip{CLIPS // 2}.mp4"
    repeat(clip, (1280, 720), seconds=40_000, group=10)
    return clip


def _wait_for_clips(data_dir: pathlib.Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list(data_dir.rglob("*.npz"))) < count:
        assert time.monotonic() < end, "nothing was decoded"
        time.sleep(0.005)


@pytest.mark.slow
def test_two_builds_at_once_make_one_dataset(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    command = _command(manual_dir, tmp_path / "data", "--jobs=1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    printed = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("at work on it; waiting" in text for text in printed) == 1
    assert all(f"used {CLIPS} of {CLIPS} clips" in text for text in printed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "clips"), [("interrupt", 1), ("interrupt", CLIPS - 1), ("terminate", 1)]
)
def test_an_interrupted_build_ends_soon_and_leaves_no_process(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, how: str, clips: int
) -> None:
    data_dir = tmp_path / "data"
    _make_endless(manual_dir)
    command = _command(manual_dir, data_dir, "--short_side=320", "--fps=5", "--jobs=2")
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _wait_for_clips(data_dir, clips)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGTERM)
    try:
        errors = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()
    if how == "interrupt":
        assert process.returncode == 130
        assert "run the same command again to resume" in errors
        assert "Traceback" not in errors
    end = time.monotonic() + 10
    while any(_runs(child) for child in children):
        assert time.monotonic() < end, "a decoding process was left"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_reader_is_closed_while_it_reads(tmp_path: pathlib.Path) -> None:
    endless = tmp_path / "endless.mp4"
    os.mkfifo(endless)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for attempt in range(12):
            worker = worker_lib.VideoWorker(seconds=60)
            reading = pool.submit(worker.decode, endless, fps=1, short_side=32, jpeg_quality=90)
            time.sleep(0.02 * attempt)  # before, while and after its process starts
            worker.close()
            with pytest.raises(decode.VideoError):
                reading.result(timeout=20)
    with pytest.raises(decode.VideoError, match="reading was stopped"):  # it does not start again
        worker.decode(endless, fps=1, short_side=32, jpeg_quality=90)


@pytest.mark.slow
def test_an_interrupt_between_two_clips_ends_the_decoding(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = _make_endless(manual_dir)
    clips = {path.stem: epath.Path(path) for path in sorted(endless.parent.iterdir())}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding.tqdm.tqdm, "update", interrupt)
    store = frame_store.FrameStore(str(tmp_path / "store"), 1.0, 32, 90, "any")
    with pytest.raises(KeyboardInterrupt):
        decoding.decode_clips(store, clips, frame_store.BuildOptions(jobs=2))
    assert not [child for child in psutil.Process().children() if _runs(str(child.pid))]


def _runs(pid: str) -> bool:
    path = pathlib.Path(f"/proc/{pid}/cmdline")
    return path.exists() and b"ncl_jax.video.worker" in path.read_bytes()


BEAM = os.environ.get("NCL_BEAM_PYTHON", sys.executable)
HAS_BEAM = "NCL_BEAM_PYTHON" in os.environ or importlib.util.find_spec("apache_beam") is not None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_BEAM, reason="set NCL_BEAM_PYTHON to one with requirements-beam.txt")
def test_beam_builds_the_same_records(tmp_path: pathlib.Path) -> None:
    manual = tmp_path / "manual"
    shutil.copytree(DUMMY / "activitynet" / "dummy_data", manual)
    tfds_builders.prepare("activitynet", manual, tmp_path / "here", short_side=32)
    flags = ["--beam", "runner=DirectRunner", "direct_num_workers=2"]
    flags += ["direct_running_mode=multi_processing"]
    command = [BEAM, "-m", "tfds_builders.build", "activitynet", f"--manual_dir={manual}"]
    command += ["--short_side=32", *flags]
    command.insert(4, f"--data_dir={tmp_path / 'beam'}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    here, beam = (_records(tmp_path / name, "activitynet") for name in ("here", "beam"))
    assert {split: sorted(clips) for split, clips in here.items()} == {
        split: sorted(clips) for split, clips in beam.items()
    }
    for split, clips in here.items():
        for clip, frame in clips.items():
            images = [decode.decode_jpeg(data).astype(int) for data in (frame, beam[split][clip])]
            np.testing.assert_allclose(*images, atol=2)  # another Pillow may round otherwise
    # A bad file is refused, by name.
    (manual / "activitynet" / "videos" / "aaaaaaaaaaa.mkv").write_text("nothing")
    command[4] = f"--data_dir={tmp_path / 'again'}"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "1 of 3 video files are unreadable:\n  aaaaaaaaaaa.mkv: expected" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not HAS_BEAM, reason="set NCL_BEAM_PYTHON to one with requirements-beam.txt")
def test_a_bug_in_the_reader_ends_a_build_by_beam(tmp_path: pathlib.Path) -> None:
    manual = reader_faults_test.msvd(tmp_path / "manual", 3)
    planted = reader_faults_test.plant(tmp_path, reader_faults_test.BUG_EVERYWHERE)
    command = [BEAM, "-m", "tfds_builders.build", "msvd", f"--manual_dir={manual}"]
    command += [f"--data_dir={tmp_path / 'data'}", "--on_bad=skip", "--beam", "runner=DirectRunner"]
    done = subprocess.run(command, cwd=planted, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr[-3000:]
    assert "ReaderFault: the video reader" in done.stderr
    assert not list(tmp_path.rglob("dataset_info.json"))
