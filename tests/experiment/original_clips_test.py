"""The test clips of a run: files and captions as its dataset has them, whatever is left of it."""

import json
import os
import pathlib
import shutil

import pytest
import tensorflow_datasets as tfds

import tfds_builders
from ncl_jax.data.frames import length_of
from ncl_jax.errors import InputError
from ncl_jax.experiment.original_clips import original_clips

SETS = pathlib.Path(tfds_builders.__file__).parent
NAMES = ("msvd", "msrvtt/9k", "activitynet/paragraph")


def finished(root, name, split="test"):
    """The workdir of a run on a set's dummy data, with all that is read of it."""
    folder = name.partition("/")[0]
    shutil.copytree(SETS / folder / "dummy_data", root / "manual", dirs_exist_ok=True)
    tfds.disable_progress_bar()
    directory = tfds_builders.prepare(name, root / "manual", root / "tfds", short_side=16)
    data = {"builder": name, "manual_dir": str(root / "manual"), "test_split": split,
            "settings": {"short_side": 16}}  # fmt: skip
    results = {"run": {"seed": 0}, "config": {"name": "dummy", "data": data},
               "data": {"directory": directory}, "metrics": METRICS}  # fmt: skip
    (root / "run").mkdir()
    (root / "run" / "results.json").write_text(json.dumps(results))
    return root / "run", directory


METRICS = {direction: {"plain": {"R@1": 50.0}} for direction in ("text_to_video", "video_to_text")}


def ids_of(directory, split):
    return [record["video_id"].decode() for record in
            tfds.builder_from_directory(directory).as_data_source(split)]  # fmt: skip


@pytest.fixture(params=NAMES)
def run(request, tmp_path):
    split = "test"
    workdir, directory = finished(tmp_path, request.param, split)
    return workdir, directory, ids_of(directory, split)


def test_every_set_has_its_files_captions_and_lengths(run):
    workdir, directory, ids = run
    found = original_clips(workdir, ids)
    assert list(found.clips) == ids
    assert ids
    for name, clip in found.clips.items():
        assert clip.file.is_absolute()
        assert clip.file.stem.removeprefix("v_") == name.removeprefix("v_")
        assert clip.file.is_relative_to(found.folder)
        assert clip.captions
        assert all(isinstance(text, str) for text in clip.captions)
        assert clip.seconds > 0
        assert found.frame(name).startswith(b"\xff\xd8")
    # Without the dataset, files and captions are still those of the lists.
    known = {name: (clip.file, clip.captions) for name, clip in found.clips.items()}
    shutil.rmtree(directory)
    left = original_clips(workdir, ids)
    assert {name: (clip.file, clip.captions) for name, clip in left.clips.items()} == known
    assert left.stored is None
    assert left.frame(ids[0]) is None


def test_files_that_are_gone_or_others_now(run):
    workdir, _, ids = run
    file = original_clips(workdir, ids).clips[ids[0]].file
    with file.open("ab") as stream:
        stream.write(b"more")
    other = original_clips(workdir, ids).clips[ids[0]]
    assert other.file is None
    assert other.captions
    shutil.rmtree(workdir.parent / "manual")
    found = original_clips(workdir, [*ids, "unknown"])
    assert {clip.file for clip in found.clips.values()} == {None}
    assert found.clips[ids[0]] == other
    assert found.frame(ids[0]).startswith(b"\xff\xd8")
    assert found.clips["unknown"].captions == []
    assert found.frame("unknown") is None
    assert os.path.isabs(found.folder)


def test_a_run_that_has_not_finished_is_said(tmp_path):
    with pytest.raises(InputError, match="expected the folder of a finished run"):
        original_clips(tmp_path, [])


def test_how_long_frames_last():
    assert (length_of([]), length_of([0.0]), length_of([0.0, 0.5, 1.0])) == (0.0, 1.0, 1.5)
