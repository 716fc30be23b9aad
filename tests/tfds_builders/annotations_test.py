"""MSR-VTT and ActivityNet files: every public form, and the real ones."""

import csv
import io
import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

import tfds_builders
from ncl_jax.video import decode
from tfds_builders import layout, preparation, text_files, video_records
from tfds_builders.activitynet import annotations as activitynet
from tfds_builders.msrvtt import annotations as msrvtt

SPLIT_FIELDS = {0: "train", 1: "train", 6513: "validate", 7010: "test", 7011: "test", 9999: "test"}
CAPTIONS = {f"video{n}": [f"a man {n}", f"a  dog {n}"] for n in SPLIT_FIELDS}


def _sentences(clips: list[str]) -> dict[str, object]:
    numbers = [int(clip.removeprefix("video")) for clip in clips]
    texts = [(clip, text) for clip in clips for text in CAPTIONS[clip]]
    return {
        "info": {},
        "videos": [
            {"video_id": f"video{n}", "id": n, "split": SPLIT_FIELDS[n], "start time": 1.5}
            for n in numbers
        ],
        "sentences": [
            {"video_id": clip, "sen_id": 50 + i, "caption": text}
            for i, (clip, text) in enumerate(texts)
        ],
    }


def _annotations() -> dict[str, object]:
    texts = [(clip, text) for clip in CAPTIONS for text in CAPTIONS[clip]]
    return {
        "images": [{"id": clip} for clip in CAPTIONS],
        "annotations": [
            {"image_id": clip, "caption": text, "id": i} for i, (clip, text) in enumerate(texts)
        ],
    }


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> epath.Path:
    """MSR-VTT with six clips and no caption file yet; the video files are empty."""
    root = epath.Path(tmp_path / "msrvtt")
    (root / "TestVideo").mkdir(parents=True)
    (root / "videos").mkdir()
    for clip in CAPTIONS:
        (root / ("TestVideo" if clip > "video7" else "videos") / f"{clip}.mp4").touch()
    rows = [["ret0", "msr7010", "video7010", "a dog 7010"], ["ret1", "msr0", "video9999", "odd, 1"]]
    table = io.StringIO()
    csv.writer(table).writerows([["key", "vid_key", "video_id", "sentence"], *rows])
    (root / msrvtt.TEST_1KA).write_text(table.getvalue())
    return root


FORMS = {
    "MSRVTT_data.json": {"MSRVTT_data.json": _sentences(list(CAPTIONS))},
    "MSR_VTT.json": {"MSR_VTT.json": _annotations()},
    "parts": {
        "train_val_videodatainfo.json": _sentences(list(CAPTIONS)[:3]),
        "test_videodatainfo.json": _sentences(list(CAPTIONS)[3:]),
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_msrvtt_read_alike(folder: epath.Path, form: str) -> None:
    for name, content in FORMS[form].items():
        (folder / name).write_text(json.dumps(content))
    expected = {
        "9k": (["video0", "video1", "video6513", "video7011"], [], ["video7010", "video9999"]),
        "7k": (["video0", "video1", "video6513"], [], ["video7010", "video9999"]),
        "full": (["video0", "video1"], ["video6513"], ["video7010", "video7011", "video9999"]),
    }
    for protocol, (train, val, test) in expected.items():
        found = msrvtt.read_layout(folder, protocol, "")
        clips = {name: list(split) for name, split in found.splits.items()}
        assert clips == {"train": train, "val": val, "test": test} or (
            not val and clips == {"train": train, "test": test}
        )
        assert set(found.videos) == set(CAPTIONS)
        assert found.splits["train"]["video0"].captions == CAPTIONS["video0"]
        assert len(set(found.splits["train"]["video0"].ids)) == 2
        if protocol != "full":
            assert found.splits["test"]["video9999"] == layout.Texts(["odd, 1"], ["ret1"])
            foreign = [note for note in found.notes if "is not among" in note]
            assert foreign[0].endswith(
                "1 clips is not among the clip's captions in the caption "
                "file, apart from punctuation: video9999"
            )


def test_a_list_overrides_the_rule_and_the_difference_is_named(folder: epath.Path) -> None:
    (folder / "MSRVTT_data.json").write_text(json.dumps(_sentences(list(CAPTIONS))))
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\rvideo0\rvideo6513\rvideo77\r")
    found = msrvtt.read_layout(folder, "9k", "")
    assert list(found.splits["train"]) == ["video0", "video6513"]
    assert found.uncaptioned["train"] == ["video77"]
    assert any("differs in 3 clips" in note for note in found.notes)
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\nvideo7010\n")
    with pytest.raises(ValueError, match="one split, got 1 in two, as 'video7010'"):
        msrvtt.read_layout(folder, "9k", "")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_of_any_kind(tmp_path: pathlib.Path, ending: str, separator: str, mark: str) -> None:
    rows = [["key", "video_id", "sentence"], ["a", "v1", f'"x{separator} y"'], ["b", "v2", "z"], []]
    path = epath.Path(tmp_path / "t.csv")
    text = mark + ending.join(separator.join(row) for row in rows)
    path.write_bytes(text.encode())
    assert text_files.read_table(path, "video_id", "sentence") == [
        {"video_id": "v1", "sentence": f"x{separator} y"},
        {"video_id": "v2", "sentence": "z"},
    ]
    with pytest.raises(ValueError, match=r"t\.csv: expected the column other, got key, video_id"):
        text_files.read_table(path, "other")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON"),
        ("[1]", "'sentences' or 'annotations', got list"),
        ('{"clips": 1}', "'sentences' or 'annotations', got clips"),
        ('{"sentences": [{"video_id": "video1"}]}', "expected video_id, caption and split"),
        (
            '{"sentences": [{"video_id": "video1", "caption": "a \\ud83d dog"}]}',
            r"MSRVTT_data\.json: expected text, got half of a surrogate pair in .*a .ud83d dog",
        ),
        (
            '{"sentences": [{"video_id": "../x", "caption": "a"}]}',
            "video0 to video9999, got '../x'",
        ),
    ],
)
def test_damaged_captions_of_msrvtt(folder: epath.Path, content: str, message: str) -> None:
    (folder / "MSRVTT_data.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        msrvtt.read_layout(folder, "full", "")


def test_msrvtt_names_all_that_is_missing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m" / "msrvtt").mkdir(parents=True)
    (tmp_path / "m" / "msrvtt" / "notes.txt").touch()
    with pytest.raises(FileNotFoundError) as caught:
        tfds_builders.prepare("msrvtt", tmp_path / "m", tmp_path)
    text = str(caught.value)
    assert "missing videos/; MSRVTT_data.json or MSR_VTT.json" in text
    assert "; MSRVTT_JSFUSION_test.csv\n" in text
    choices = "expected msrvtt/9k, msrvtt/7k, msrvtt/full, got 'msrvtt/8k'"
    with pytest.raises(ValueError, match=choices):
        tfds_builders.prepare("msrvtt/8k", tmp_path, tmp_path)


ITEM = {"duration": 9.5, "timestamps": [[0, 4], [5, 4]], "sentences": ["A man.", "  He sits. "]}


def test_activitynet_files_and_ids(tmp_path: pathlib.Path) -> None:
    root = epath.Path(tmp_path)
    (root / "train.json").write_text(json.dumps({"v_aaaaaaaaaaa": ITEM, "v_v_bbbbbbbbb": ITEM}))
    (root / "val_1.json").write_text(json.dumps({"v_ccccccccccc": ITEM}))
    (root / "train_ids.json").write_text(json.dumps(["v_aaaaaaaaaaa", "v_ddddddddddd"]))
    (root / "videos").mkdir()
    for name in ("aaaaaaaaaaa.webm", "v_bbbbbbbbb.mp4", "v_ccccccccccc.MKV"):
        (root / "videos" / name).touch()
    found = activitynet.read_layout(root, "paragraph", "")
    assert set(found.videos) == {"v_aaaaaaaaaaa", "v_v_bbbbbbbbb", "v_ccccccccccc"}
    texts = found.splits["train"]["v_aaaaaaaaaaa"]
    assert texts.captions == ["A man. He sits."]
    assert texts.more["sentences"] == ["A man.", "He sits."]
    assert found.uncaptioned["train"] == ["v_ddddddddddd"]
    assert any("1 captioned clips are not in the id list" in note for note in found.notes)
    assert any("ends before it begins" in note for note in found.notes)
    (root / "val_1.json").write_text(json.dumps({"v_ccccccccccc": {"duration": 3}}))
    with pytest.raises(ValueError, match=r"val_1\.json: expected id -> duration, timestamps"):
        activitynet.read_layout(root, "paragraph", "")


# Real annotations.

needs_real_data = pytest.mark.skipif(
    "NCL_REAL_DATA" not in os.environ, reason="set NCL_REAL_DATA to the folder of real data"
)


@pytest.fixture
def real(tmp_path: pathlib.Path) -> pathlib.Path:
    """The real files under their published names, by links."""
    source = pathlib.Path(os.environ["NCL_REAL_DATA"])
    manual = tmp_path / "manual"
    for name in ("msvd", "msrvtt", "activitynet"):
        (manual / name).mkdir(parents=True)
        for file in (source / name).iterdir():
            renamed = file.name.replace(".partial", "")
            (manual / name / renamed).symlink_to(file)
    (manual / "activitynet" / "videos").mkdir()
    clip = source / "msvd" / "videos" / "WTf5EgVY5uU_124_128.avi"
    for name in ("uqiMw7tQ1Cc.avi", "v_bXdq2zI1Ms0.avi"):
        (manual / "activitynet" / "videos" / name).symlink_to(clip)
    return manual


@pytest.mark.slow
@needs_real_data
def test_real_msvd(
    real: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tfds_builders.prepare("msvd", real, tmp_path, short_side=112)
    assert "msvd: used 5 of 1,970 clips and " in capsys.readouterr().out
    metadata = tfds_builders.read_metadata(directory)
    accounting = metadata["accounting"]
    clips = {split: tuple(account["clips"].values()) for split, account in accounting.items()}
    assert clips == {"train": (3, 1200), "val": (0, 100), "test": (2, 670)}
    captions = {split: account["captions"]["expected"] for split, account in accounting.items()}
    assert captions == {"train": 48_774, "val": 4_290, "test": 27_763}
    assert accounting["test"]["missing"]["count"] == 668
    assert metadata["order_pairs"] == metadata["notes"] == []
    source = tfds.builder_from_directory(directory).as_data_source("train")
    records = {record["video_id"].decode(): record for record in source}
    path = pathlib.Path(os.environ["NCL_REAL_DATA"], "captions.tsv")
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    for clip, record in records.items():
        expected = {text.strip() for _, name, text in rows if name == clip}
        assert {text.decode() for text in record["captions"]} == expected
        assert min(decode.decode_jpeg(record["frames"][-1]).shape[:2]) == 112


@pytest.mark.slow
@needs_real_data
def test_the_real_forms_of_msvd_hold_the_same_captions(real: pathlib.Path) -> None:
    forms = []
    for _ in range(2):
        found = preparation.BUILDERS["msvd"].read_layout(epath.Path(real / "msvd"), None)
        assert found.notes == ()
        forms.append(found.splits)
        (real / "msvd" / "raw-captions.pkl").unlink(missing_ok=True)
    for split, clips in forms[0].items():
        assert {c: sorted(t.captions) for c, t in clips.items()} == {
            c: sorted(t.captions) for c, t in forms[1][split].items()
        }


@pytest.mark.slow
@needs_real_data
def test_real_msrvtt(real: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = epath.Path(real / "msrvtt")
    sizes = {}
    for protocol in ("9k", "7k", "full"):
        found = msrvtt.read_layout(folder, protocol, "")
        sizes[protocol] = {name: len(split) for name, split in found.splits.items()}
        # Lists agree with the split field, sentences of 1k-A with the clips' own captions.
        assert not [note for note in found.notes if "differs" in note or "not among" in note]
        for split, clips in found.splits.items():
            account = video_records.account(found, split, {})
            assert account["clips"]["expected"] == len(clips) == account["published"]["clips"]
    assert sizes == {
        "9k": {"train": 9000, "test": 1000},
        "7k": {"train": 7010, "test": 1000},
        "full": {"train": 6513, "val": 497, "test": 2990},
    }
    found = msrvtt.read_layout(folder, "9k", "")
    assert "test: 995 different sentences on 1,000 clips" in found.notes
    directory = tfds_builders.prepare("msrvtt/full", real, tmp_path, short_side=64)
    (record,) = tfds.builder_from_directory(directory).as_data_source("test")
    assert record["video_id"] == b"video7500"
    assert len(record["captions"]) == len(record["caption_ids"]) == 20
    assert (record["source_width"], record["source_height"]) == (298, 224)
    assert directory.endswith("msrvtt/full_fps1_side64_jpeg90/1.3.0")


@pytest.mark.slow
@needs_real_data
def test_real_activitynet(real: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = epath.Path(real / "activitynet")
    expected = {"paragraph": (4_917, 9, 17_505), "val_2": (4_885, 41, 17_031)}
    for protocol, (clips, uncaptioned, sentences) in expected.items():
        found = activitynet.read_layout(folder, protocol, "")
        assert {name: len(split) for name, split in found.splits.items()} == {
            "train": 10_009,
            "test": clips,
        }
        assert [len(c) for c in found.uncaptioned.values()] == [15, uncaptioned]
        test = found.splits["test"].values()
        assert sum(len(texts.more["sentences"]) for texts in test) == sentences
        assert any("train: 4 clips have a segment that ends before" in n for n in found.notes)
    directory = tfds_builders.prepare("activitynet", real, tmp_path, short_side=32)
    source = tfds.builder_from_directory(directory).as_data_source("test")
    records = {record["video_id"].decode(): record for record in source}
    assert set(records) == {"v_uqiMw7tQ1Cc", "v_bXdq2zI1Ms0"}
    record = records["v_uqiMw7tQ1Cc"]
    (paragraph,) = record["captions"]
    first, second = (sentence.decode() for sentence in record["sentences"])
    assert paragraph.decode() == f"{first} {second}"
    assert not second.startswith(" ")
    np.testing.assert_allclose(record["timestamps"], [[0.28, 55.15], [13.79, 54.32]])
    np.testing.assert_allclose(record["duration"], 55.15)
