"""Builders: caption files, the MSVD layout, records, accounting, interrupted builds."""

import collections
import fractions
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import textwrap
import time

import av
import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

import tfds_builders
from ncl_jax.video import decode
from tfds_builders import (
    build,
    caption_files,
    check,
    decoding,
    frame_store,
    layout,
    listed_clips,
    preparation,
    video_records,
)
from tfds_builders.demo import corpus

ROOT = pathlib.Path(__file__).parents[2]
TINY = {"train": 12, "val": 4, "test": 8}


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A tiny rendered corpus, under the names of both sets."""
    root = tmp_path_factory.mktemp("manual")
    corpus.write_corpus(root / "demo", corpus.Size(**TINY), seed=0)
    shutil.copytree(root / "demo", root / "msvd")
    return root


@pytest.fixture(scope="module")
def demo(manual_dir: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return tfds_builders.prepare("demo", manual_dir, tmp_path_factory.mktemp("data"), **TINY)


def _msvd(manual_dir: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the tiny corpus to damage, as MSVD."""
    shutil.copytree(manual_dir / "msvd", tmp_path / "manual" / "msvd")
    return tmp_path / "manual" / "msvd"


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text().splitlines()


def _clips(folder: pathlib.Path, split: str) -> list[str]:
    return _lines(folder / f"{split}_list.txt")


def _prepare_msvd(folder: pathlib.Path, verify: bool = False) -> str:
    return tfds_builders.prepare(
        "msvd", folder.parent, folder.parents[1] / "data", verify=verify, short_side=32
    )


# Caption files.


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["NCL_TEST_ATTACK"],)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_wants_to_run_something_is_refused_by_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    target = tmp_path / "created by the attack"
    monkeypatch.setenv("NCL_TEST_ATTACK", str(target))
    attack = pickle.dumps({"clip": _Attack()}, protocol)
    path = tmp_path / "raw-captions.pkl"
    path.write_bytes(attack)
    refusal = r"^raw-captions\.pkl wants to load \w+\.mkdir; only dicts, lists, strings"
    with pytest.raises(ValueError, match=refusal):
        caption_files.read_pickle(epath.Path(path))
    assert not target.exists()
    pickle.loads(attack)  # the attack is a real one
    assert target.exists()


def test_a_damaged_pickle_is_one_plain_error(tmp_path: pathlib.Path) -> None:
    whole = pickle.dumps({f"clip{n}": [["a", "cat"], ["it", "sits"]] for n in range(20)})
    path = tmp_path / "raw-captions.pkl"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            caption_files.read_pickle(epath.Path(path))
        except ValueError as error:
            refused += 1
            assert str(error).startswith("raw-captions.pkl")  # noqa: PT017
    assert refused > 200


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_caption_files_read_alike(tmp_path: pathlib.Path, protocol: int) -> None:
    expected = {"a_b_1_2": ["a cat sits", "it sits"], "-x_0_1": ["someone runs"]}
    words = {clip: [text.split() for text in texts] for clip, texts in expected.items()}
    lines = [f"{clip} {text}" for clip, texts in expected.items() for text in texts]
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(words, protocol))
    (tmp_path / "captions.json").write_text(json.dumps(expected))
    (tmp_path / "AllVideoDescriptions.txt").write_text("\r\n".join(["# licence", "", *lines]))
    table = ["VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description"]
    for clip, texts in expected.items():
        video_id, start, end = clip.rsplit("_", 2)
        for text in texts:
            table += [f'{video_id},{start},{end},7,clean,3,English,"{text}"']
            table += [f"{video_id},{start},{end},8,clean,3,German,ein Satz"]
    (tmp_path / "video_corpus.csv").write_bytes("\r".join(table).encode())
    semicolons = "\n".join(table).replace(",", ";").encode("utf-8-sig")
    (tmp_path / "MSR Video Description Corpus.csv").write_bytes(semicolons)
    for name, reader in caption_files.READERS.items():
        assert reader(epath.Path(tmp_path / name)) == expected, name


@pytest.mark.parametrize("content", [[1, 2], {"clip": [3]}, {"clip": [["a", 1]]}])
def test_captions_of_another_shape_are_refused(tmp_path: pathlib.Path, content: object) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"captions\.json: expected .*, got "):
        caption_files.read_json(epath.Path(path))


def test_no_id_reaches_the_file_system(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source.mp4"
    corpus.encode_video(source, np.zeros((8, 32, 32, 3), np.uint8), 8)
    store = frame_store.FrameStore(str(tmp_path / "store"), 1.0, 16, 90, "decoder")
    ids = ["../../evil", "/evil", "a/../../evil", "x\0y", "~", "", "a" * 5000, "$(touch evil)"]
    for jobs in (1, 2):
        clips = {clip: epath.Path(source) for clip in ids}
        assert decoding.decode_clips(store, clips, frame_store.BuildOptions(jobs=jobs)) == {}
    assert len(list((tmp_path / "store").iterdir())) == len(ids)
    assert {path.name for path in tmp_path.iterdir()} == {"source.mp4", "store"}
    assert all(store.load(clip, epath.Path(source)).width == 32 for clip in ids)


def test_a_dataset_in_a_folder_that_cannot_be_written_is_used(
    demo: str, manual_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("os.open", refuse)
    with preparation._alone(epath.Path(demo)):
        pass


# Records.


def test_records_read_back_as_written(demo: str, manual_dir: pathlib.Path) -> None:
    sentences = json.loads((manual_dir / "demo" / "captions.json").read_text())
    builder = tfds.builder_from_directory(demo)
    for split, count in TINY.items():
        source = builder.as_data_source(split)
        assert len(source) == count
        records = [source[index] for index in range(count)]
        ids = [record["video_id"].decode() for record in records]
        assert sorted(ids) == _clips(manual_dir / "demo", split)
        for clip, record in zip(ids, records, strict=True):
            assert [text.decode() for text in record["captions"]] == sentences[clip]
            expected = [f"{clip}#{n}".encode() for n in range(len(sentences[clip]))]
            assert list(record["caption_ids"]) == expected
            np.testing.assert_allclose(record["frame_times"], np.arange(4), atol=1e-6)
            assert record["frame_times"].dtype == np.float32
            assert record["source_fps"] == 8


def test_stored_frames_are_the_frames_of_the_file(demo: str, manual_dir: pathlib.Path) -> None:
    record = tfds.builder_from_directory(demo).as_data_source("test")[0]
    path = manual_dir / "demo" / "videos" / f"{record['video_id'].decode()}.mp4"
    decoded = decode.decode_frames(path).frames
    assert len(decoded) == len(record["frames"]) == 4
    for frame, data in zip(decoded, record["frames"], strict=True):
        assert isinstance(data, bytes)
        difference = np.abs(decode.decode_jpeg(data).astype(int) - frame)
        assert difference.mean() < 6


def test_metadata_survives_the_reload(demo: str, manual_dir: pathlib.Path) -> None:
    metadata = tfds_builders.read_metadata(demo)
    assert (metadata["fps"], metadata["short_side"], metadata["jpeg_quality"]) == (1.0, 64, 90)
    assert metadata["decoder"].startswith("PyAV ")
    for split, count in TINY.items():
        account = metadata["accounting"][split]
        assert account["clips"] == {"used": count, "expected": count}
        assert account["captions"]["used"] == account["captions"]["expected"] > 4 * count
    pairs = [line.split() for line in _lines(manual_dir / "demo" / "order_pairs.txt")]
    assert metadata["order_pairs"] == pairs
    assert len(pairs) >= 4


def test_a_second_call_reuses_and_other_settings_are_another_directory(
    demo: str, manual_dir: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = pathlib.Path(demo).parents[2]
    stamp = pathlib.Path(demo, "dataset_info.json").stat().st_mtime_ns
    assert tfds_builders.prepare("demo", manual_dir, data_dir, **TINY) == demo
    assert pathlib.Path(demo, "dataset_info.json").stat().st_mtime_ns == stamp
    assert "demo: used 24 of 24 clips and " in capsys.readouterr().out
    other = tfds_builders.prepare("demo", manual_dir, data_dir, short_side=16, fps=2.0, **TINY)
    assert other != demo
    record = tfds.builder_from_directory(other).as_data_source("val")[0]
    assert len(record["frames"]) == 8
    assert decode.decode_jpeg(record["frames"][0]).shape == (16, 16, 3)


def test_unknown_names_and_settings_are_refused(tmp_path: pathlib.Path) -> None:
    names = "expected one of activitynet, demo, msrvtt, msvd, got 'mvsd'"
    with pytest.raises(ValueError, match=names):
        tfds_builders.prepare("mvsd", tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"short_side, .*got shortside"):
        tfds_builders.prepare("demo", tmp_path, tmp_path, shortside=3)
    with pytest.raises(
        ValueError, match="expected some of fps, jpeg_quality, look, short_side, got seed"
    ):
        tfds_builders.prepare("msvd", tmp_path, tmp_path, seed=3)


def test_senseless_options_are_refused(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    flags = ["msvd", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}"]
    for bad, message in {
        "--jobs=-1": "jobs: expected at least 0, got -1",
        "--clip_seconds=0": "clip_seconds: expected a number > 0",
        "--fps=nan": "fps: expected a number > 0, got nan",
        "--short_side=0": "short_side: expected at least 1 pixel, got 0",
        "--jpeg_quality=100": "jpeg_quality: expected 1 to 95, got 100",
        "--beam": "beam: expected Apache Beam to be installed",
    }.items():
        assert build.main([*flags, bad]) == 2
        assert capsys.readouterr().err.startswith(message)
    with pytest.raises(ValueError, match="on_bad: expected 'error' or 'skip', got 'stop'"):
        frame_store.BuildOptions(on_bad="stop")  # type: ignore[arg-type]


# The MSVD layout and its gaps.


def test_missing_and_unreadable_clips_are_counted_and_named(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    (folder / "videos").rename(folder / "YouTubeClips")
    gone, broken = _clips(folder, "train")[1], _clips(folder, "test")[2]
    (folder / "YouTubeClips" / f"{gone}.mp4").unlink()
    (folder / "YouTubeClips" / f"{broken}.mp4").write_text("nothing")
    directory = _prepare_msvd(folder)
    accounting = tfds_builders.read_metadata(directory)["accounting"]
    assert accounting["train"]["clips"] == {"used": 11, "expected": 12}
    assert accounting["train"]["missing"] == {"count": 1, "first": [gone]}
    assert accounting["test"]["clips"] == {"used": 7, "expected": 8}
    assert accounting["test"]["unreadable"]["count"] == 1
    assert "expected a readable video" in accounting["test"]["unreadable"]["first"][broken]
    sentences = json.loads((folder / "captions.json").read_text())
    lost = accounting["test"]["captions"]["expected"] - accounting["test"]["captions"]["used"]
    assert lost == len(sentences[broken])
    printed = capsys.readouterr().out
    assert "msvd: used 22 of 24 clips" in printed
    assert "(train 11/12; val 4/4; test 7/8, 1 unreadable)" in printed


def test_what_was_set_right_is_in_the_account(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    odd = _clips(folder, "train")[1]
    path = folder / "videos" / f"{odd}.mp4"
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = bytes(36)  # a display matrix of zeros
    path.write_bytes(data)
    accounting = tfds_builders.read_metadata(_prepare_msvd(folder))["accounting"]
    remark = "a display matrix that is no orientation is ignored"
    assert accounting["train"]["remarks"] == {"count": 1, "first": {odd: remark}}
    assert accounting["test"]["remarks"] == {"count": 0, "first": {}}
    assert "(train 12/12, 1 with remarks; val 4/4; test 8/8)" in capsys.readouterr().out


def test_a_set_can_be_built_as_players_show_it(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    clip = _clips(folder, "test")[0]
    path = folder / "videos" / f"{clip}.mp4"
    frames = tmp_path / "wide.mp4"
    with av.open(str(path)) as source, av.open(str(frames), "w") as container:
        stream = container.add_stream("libx264", rate=source.streams.video[0].average_rate)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = fractions.Fraction(3, 2)
        for frame in source.decode(video=0):
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames.replace(path)
    sizes = {}
    for look in ("stored", "shown"):
        directory = tfds_builders.prepare(
            "msvd", folder.parent, tmp_path / "data", short_side=32, look=look
        )
        builder = tfds.builder_from_directory(directory)
        assert builder.info.metadata["look"] == look
        assert directory.endswith(
            {"stored": "fps1_side32_jpeg90/1.3.0", "shown": "fps1_side32_jpeg90_shown/1.3.0"}[look]
        )
        source = builder.as_data_source("test")
        (record,) = [r for r in source if r["video_id"] == clip.encode()]
        assert decode.decode_jpeg(record["frames"][0]).shape[:2] == (
            (32, 32) if look == "stored" else (32, 48)
        )
        sizes[look] = (int(record["source_width"]), int(record["source_height"]))
    assert sizes == {"stored": (64, 64), "shown": (96, 64)}
    with pytest.raises(ValueError, match="look: expected one of stored, shown, got 'nice'"):
        tfds_builders.prepare("msvd", folder.parent, tmp_path / "data", look="nice")


def test_a_split_without_clips_is_left_out_and_said(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    for clip in _clips(folder, "val"):
        (folder / "videos" / f"{clip}.mp4").unlink()
    directory = _prepare_msvd(folder)
    assert set(tfds.builder_from_directory(directory).info.splits) == {"train", "test"}
    account = tfds_builders.read_metadata(directory)["accounting"]["val"]
    assert account["clips"] == {"used": 0, "expected": 4}
    assert "val 0/4, left out" in capsys.readouterr().out


def test_missing_files_show_the_expected_tree(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"train_list\.txt"):
        tfds_builders.prepare("msvd", tmp_path / "absent", tmp_path / "data")
    folder = _msvd(manual_dir, tmp_path)
    (folder / "captions.json").unlink()
    (folder / "val_list.txt").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        _prepare_msvd(folder)
    first, *rest = str(caught.value).splitlines()
    assert "missing raw-captions.pkl or captions.json" in first
    assert first.endswith("val_list.txt")
    assert "videos" not in first  # they are there
    assert "Expected below manual_dir:" in rest
    assert any(line.startswith("What to do:") for line in rest)


def test_no_listed_clip_at_all_is_an_error(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    for path in (folder / "videos").iterdir():
        path.rename(path.with_stem("other_" + path.stem))
    with pytest.raises(FileNotFoundError, match="24 listed clips, got 24 video files, none"):
        _prepare_msvd(folder)


def test_a_split_of_unreadable_clips_is_an_error(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    for clip in _clips(folder, "val"):
        (folder / "videos" / f"{clip}.mp4").write_text("nothing")
    with pytest.raises(ValueError, match="val: none of 4 clips is readable"):
        _prepare_msvd(folder)
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_lists_captions_and_files_are_intersected_and_differences_explained(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    with (folder / "test_list.txt").open("a") as file:
        file.write("stranger\n")
    found = preparation.BUILDERS["msvd"].read_layout(epath.Path(folder), None)
    assert found.uncaptioned == {"train": [], "val": [], "test": ["stranger"]}
    assert len(found.splits["test"]) == 8
    assert "test: 1 of 9 listed clips have no caption and are left out: stranger" in found.notes
    assert "test: 8 clips in these files, 670 published (-662)" in found.notes
    account = video_records.account(found, "test", {})
    assert account["uncaptioned"] == {"count": 1, "first": ["stranger"]}
    assert account["published"] == {"clips": 670, "captions": 27_763}
    with (folder / "train_list.txt").open("a") as file:
        file.write(_clips(folder, "test")[0])
    with pytest.raises(ValueError, match="every clip in one split, got 1 in two"):
        listed_clips.read_layout(epath.Path(folder), "")


def test_stems_are_found_in_any_container(tmp_path: pathlib.Path) -> None:
    for name in ("a_b-1_2.avi", "c.MKV", "d.mp4", "d.webm", "notes.txt", "e.mp4.part"):
        (tmp_path / name).touch()
    found = layout.find_videos(epath.Path(tmp_path))
    assert {stem: path.name for stem, path in found.items()} == {
        "a_b-1_2": "a_b-1_2.avi",
        "c": "c.MKV",
        "d": "d.mp4",
    }


def test_ordered_map_keeps_order_and_stays_bounded() -> None:
    ahead = collections.Counter[str]()

    def items() -> collections.abc.Iterator[int]:
        for item in range(50):
            ahead["taken"] += 1
            yield item

    def slow(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item

    for count, result in enumerate(video_records.ordered_map(slow, items(), workers=3)):
        assert result == count
        assert ahead["taken"] <= count + 1 + 6


# Whole runs in another process.


def _run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.slow
def test_building_and_reading_needs_no_tensorflow_and_no_jax(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    code = """
        import sys
        import tensorflow_datasets as tfds
        import tfds_builders
        directory = tfds_builders.prepare("msvd", sys.argv[1], sys.argv[2], short_side=16)
        print(len(tfds.builder_from_directory(directory).as_data_source("test")[0]["frames"]))
        print(sorted({"tensorflow", "jax"} & set(sys.modules)))
    """
    result = _run(code, manual_dir, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["4", "[]"]


@pytest.mark.slow
def test_a_build_killed_while_writing_is_not_taken_for_a_dataset(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    code = """
        import os, sys
        import tfds_builders
        from tfds_builders import video_records
        whole = video_records.record
        calls = iter(range(100))
        video_records.record = lambda *a: os._exit(9) if next(calls) == 18 else whole(*a)
        tfds_builders.prepare("msvd", sys.argv[1], sys.argv[2], short_side=16)
    """
    assert _run(code, manual_dir, tmp_path).returncode == 9
    assert len(list(tmp_path.rglob("*.npz"))) == 24  # all decoded
    assert list(tmp_path.glob("msvd/*/incomplete.*"))  # and some written
    assert not list(tmp_path.rglob("dataset_info.json"))
    directory = tfds_builders.prepare("msvd", manual_dir, tmp_path, short_side=16)
    info = tfds.builder_from_directory(directory).info
    assert {name: split.num_examples for name, split in info.splits.items()} == TINY
    assert not list(tmp_path.glob("msvd/*/incomplete.*"))
    assert not list(tmp_path.rglob("*.npz"))


# A dataset and the files it was built from.


def test_more_clips_mean_a_new_dataset_and_fewer_do_not(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    late, gone = _clips(folder, "train")[:2]
    (folder / "videos" / f"{late}.mp4").rename(tmp_path / "late.mp4")
    directory = _prepare_msvd(folder)
    assert _train_ids(directory) == set(_clips(folder, "train")) - {late}
    capsys.readouterr()
    assert _prepare_msvd(folder) == directory
    assert "building again" not in capsys.readouterr().out
    (tmp_path / "late.mp4").rename(folder / "videos" / f"{late}.mp4")
    assert _prepare_msvd(folder) == directory
    text = "msvd: built from other files (train: 11 clips then, 12 now); building again"
    assert text in capsys.readouterr().out
    assert _train_ids(directory) == set(_clips(folder, "train"))
    # The dataset does not need its sources.
    (folder / "videos" / f"{gone}.mp4").unlink()
    stamp = pathlib.Path(directory, "dataset_info.json").stat().st_mtime_ns
    assert _prepare_msvd(folder) == directory
    shutil.rmtree(folder)
    assert _prepare_msvd(folder) == directory
    assert pathlib.Path(directory, "dataset_info.json").stat().st_mtime_ns == stamp


def test_swapped_files_and_corrected_captions_mean_a_new_dataset(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    one, two = (folder / "videos" / f"{clip}.mp4" for clip in _clips(folder, "val")[:2])
    size = max(path.stat().st_size for path in (one, two))
    for path in (one, two):  # bytes after the last box are nothing to a player
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (10, 10))
    directory = _prepare_msvd(folder)

    def said(verify: bool = False) -> str:
        capsys.readouterr()
        assert _prepare_msvd(folder, verify) == directory
        return capsys.readouterr().out

    def frames() -> dict[bytes, bytes]:
        source = tfds.builder_from_directory(directory).as_data_source("val")
        return {record["video_id"]: record["frames"][0] for record in source}

    before = frames()
    assert "building again" not in said(verify=True)
    for path in (one, two):
        os.utime(path, (20, 20))  # copies, say
    assert "building again" not in said()
    swapped = two.read_bytes()
    two.write_bytes(one.read_bytes())
    one.write_bytes(swapped)
    assert f"(val: 2 other video files, as {one.name}); building again" in said()
    ids = [path.stem.encode() for path in (one, two)]
    after = frames()
    assert [after[clip] for clip in ids] == [before[clip] for clip in reversed(ids)]
    assert before[ids[0]] != before[ids[1]]
    assert "building again" not in said()

    captions = json.loads((folder / "captions.json").read_text())
    captions[two.stem][0] += " again"
    (folder / "captions.json").write_text(json.dumps(captions))
    assert "built from other files (val: other captions); building again" in said()
    (folder / "captions.json").write_text(json.dumps(captions, indent=4))
    assert "building again" not in said()  # the same captions

    stamps = one.stat().st_atime_ns, one.stat().st_mtime_ns
    one.write_bytes(two.read_bytes())
    os.utime(one, ns=stamps)
    assert "building again" not in said()  # neither size nor time tell
    assert f"(val: 1 other video files, as {one.name}); building again" in said(verify=True)

    (folder / "captions.json").write_text("{")
    assert "captions.json: expected JSON" in said()


@pytest.mark.slow
def test_a_failed_rebuild_leaves_the_dataset_there_was(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    late = folder / "videos" / f"{_clips(folder, 'train')[0]}.mp4"
    late.rename(tmp_path / "late.mp4")
    directory = _prepare_msvd(folder)
    late.write_text("nothing")
    options = frame_store.BuildOptions(on_bad="error")
    with pytest.raises(decoding.BadVideosError, match="1 of 24 video files are unreadable"):
        tfds_builders.prepare(
            "msvd", folder.parent, folder.parents[1] / "data", options, short_side=32
        )
    assert len(_train_ids(directory)) == 11
    assert {path.name for path in pathlib.Path(directory).parent.iterdir()} == {"1.3.0"}


def _train_ids(directory: str) -> set[str]:
    source = tfds.builder_from_directory(directory).as_data_source("train")
    return {record["video_id"].decode() for record in source}


def test_every_bad_file_is_named_at_the_end(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    bad = [_clips(folder, split)[1] for split in ("train", "val", "test")]
    for clip in bad:
        (folder / "videos" / f"{clip}.mp4").write_text("nothing")
    flags = ["msvd", f"--manual_dir={folder.parent}", f"--data_dir={tmp_path / 'data'}"]
    flags += ["--short_side=16", "--jobs=1"]
    assert build.main(flags) == 2
    first, *lines = capsys.readouterr().err.strip().split("\r")[-1].splitlines()[-5:]
    assert first == "3 of 24 video files are unreadable:"
    assert [line.split(".mp4: ")[0].strip() for line in lines[:3]] == bad
    assert "--on_bad=skip" in lines[3]
    assert not list(tmp_path.rglob("dataset_info.json"))
    assert len(list((tmp_path / "data").rglob("*.npz"))) == 21  # kept for the next attempt
    assert build.main([*flags, "--on_bad=skip"]) == 0
    assert "(train 11/12, 1 unreadable; val 3/4, 1 unreadable; test 7/8, 1 unreadable)" in (
        capsys.readouterr().out
    )
    assert build.main(["mswd", *flags[1:]]) == 2
    assert "expected one of" in capsys.readouterr().err


def test_check_names_what_is_missing_unreadable_and_surplus(
    manual_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _msvd(manual_dir, tmp_path)
    gone, bad, hurt = _clips(folder, "test")[:3]
    (folder / "videos" / f"{gone}.mp4").rename(folder / "videos" / "stranger.mp4")
    (folder / "videos" / f"{bad}.mp4").write_text("nothing")
    hurt_file = folder / "videos" / f"{hurt}.mp4"
    data = bytearray(hurt_file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    hurt_file.write_bytes(data)
    report_file = tmp_path / "report.json"
    flags = ["msvd", f"--manual_dir={folder.parent}", f"--json={report_file}", "--deep"]
    assert check.main(flags) == 1
    report = json.loads(report_file.read_text())
    test = report["splits"]["test"]
    assert test["clips"] == {"used": 6, "expected": 8}
    assert test["missing"] == {"count": 1, "first": [gone]}
    assert list(test["unreadable"]["first"]) == [bad]
    assert list(test["damaged"]["first"]) == [hurt]
    assert report["surplus"] == {"count": 1, "first": ["stranger"]}
    assert not report["complete"]
    printed = capsys.readouterr().out
    assert "| test  |       670 |      8 |" in printed
    assert f"test: missing: 1 clips: {gone}" in printed
    assert check.main(["msvd", f"--manual_dir={tmp_path}"]) == 2


def test_every_builder_has_its_texts() -> None:
    for builder in preparation.BUILDERS.values():
        metadata = builder.get_metadata()
        assert metadata.description
        assert metadata.citation
        assert "content.data-type.video" in metadata.tags
