"""The files of an index: written whole or not at all, named by content, never half read."""

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, array_files, storage
from tests.index import format1
from tests.index.made import names, rows


def equal(one, other):
    assert (one.ids, one.meta, one.scale, one.strength, one.log_mass) == (
        other.ids, other.meta, other.scale, other.strength, other.log_mass
    )  # fmt: skip
    for name in format1.ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def kinds(folder):
    """How many files there are of each array."""
    found = sorted(path.name.rpartition("-")[0] or path.name for path in folder.iterdir())
    return {name: found.count(name) for name in found}


WHOLE = dict.fromkeys((*storage.PART, *storage.BANK, *storage.SUMS, storage.NAME), 1)


@pytest.mark.parametrize("check", [False, True])
def test_saved_and_loaded_is_the_same(index, tmp_path, check):
    index.save(tmp_path / "there")
    loaded = RetrievalIndex.load(tmp_path / "there", check=check)
    equal(loaded, index)
    assert loaded.search(rows(11, 4), 6).ids == index.search(rows(11, 4), 6).ids
    assert loaded.add(["x"], rows(12, 1)).bias[-1] == index.add(["x"], rows(12, 1)).bias[-1]
    assert kinds(tmp_path / "there") == WHOLE


def test_arrays_are_plain_files_and_nothing_is_read_before_it_is_used(index, tmp_path):
    index.save(tmp_path)
    (video,) = tmp_path.glob("video-*.npy")
    np.testing.assert_array_equal(np.load(video), index.video)
    loaded = RetrievalIndex.load(tmp_path)
    assert isinstance(loaded.video.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded.video[0] = 0


def test_an_added_item_writes_nothing_that_is_there(index, tmp_path):
    index.save(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for number in range(3):
        RetrievalIndex.load(tmp_path).add([f"new {number}"], rows(number, 1)).save(tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    kept = {path.name.rpartition("-")[0] or path.name for path in before.keys() & after.keys()}
    assert kept == {*storage.PART, *storage.BANK, storage.NAME}
    assert all(before[p] == after[p] for p in before.keys() & after.keys() if p.suffix == ".npy")
    new = sum(path.stat().st_size for path in after.keys() - before.keys())
    assert new < 5000 < (3 * 8 + 300) * 8 * 4  # bytes: the sums of the bank, and a few items
    loaded = RetrievalIndex.load(tmp_path, check=True)
    together = index.add(loaded.ids[300:], np.concatenate([rows(n, 1) for n in range(3)]))
    np.testing.assert_array_equal(loaded.video, together.video)
    np.testing.assert_allclose(loaded.bias, together.bias, atol=1e-5)


def test_items_that_come_one_by_one_lie_in_few_parts(tmp_path):
    """And cost little: each is written about as often as its part is joined, log2 of all."""
    index = RetrievalIndex.build(["first"], rows(0, 1), rows(1, 5), scale=20.0)
    for number in range(64):
        index = index.add([str(number)], rows(number, 1))
    index.save(tmp_path)
    assert len(index.parts) <= 7
    assert kinds(tmp_path)["video"] == len(index.parts)
    loaded = RetrievalIndex.load(tmp_path)
    assert loaded.ids == ("first", *map(str, range(64)))
    whole = RetrievalIndex.build(loaded.ids, loaded.video)
    query = rows(3, 7)
    plain = dict(zip(("ids", "scores", "rows"), loaded.search(query, 9, use_bias=False),
                     strict=True))  # fmt: skip
    found = whole.search(query * 1, 9)
    assert plain["ids"] == found.ids
    np.testing.assert_array_equal(plain["rows"], found.rows)


def test_removed_items_leave_no_files(index, tmp_path):
    more = index.add(["new"], rows(2, 1))
    more.save(tmp_path)
    more.remove(["new"]).save(tmp_path)
    assert kinds(tmp_path) == WHOLE
    assert RetrievalIndex.load(tmp_path, check=True).ids == index.ids
    RetrievalIndex.load(tmp_path).remove(index.ids).save(tmp_path)
    empty = RetrievalIndex.load(tmp_path, check=True)
    assert (len(empty), empty.search(rows(0, 1)).ids) == (0, [[]])


def test_a_folder_that_holds_the_same_stays_as_it_is(index, tmp_path):
    index.save(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    dataclasses.replace(index).save(tmp_path)
    RetrievalIndex.build(index.ids, rows(0, 300), rows(1, 90), scale=20.0,
                         meta={"a": 1}).save(tmp_path)  # fmt: skip
    RetrievalIndex.load(tmp_path).save(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_second_folder_gets_everything(index, tmp_path):
    index.save(tmp_path / "a")
    RetrievalIndex.load(tmp_path / "a").save(tmp_path / "b")
    equal(RetrievalIndex.load(tmp_path / "b", check=True), index)


def test_other_files_of_the_folder_are_left(index, tmp_path):
    for name in ("video-mine.npy", "queries.txt", "other-0123456789abcdef.npy"):
        (tmp_path / name).write_text("")
    (tmp_path / "video-0123456789abcdef.npy").write_text("of an index that is gone")
    index.save(tmp_path)
    left = {"video-mine.npy", "queries.txt", "other-0123456789abcdef.npy"}
    assert {p.name for p in tmp_path.iterdir()} >= left
    assert not (tmp_path / "video-0123456789abcdef.npy").exists()


@pytest.mark.parametrize("name", ["bias", "text", "ends", "bank_bias", "row_sum", "video",
                                  "bank_text", "index"])  # fmt: skip
@pytest.mark.parametrize("harm", ["cut", "flip", "text", "missing"])
def test_bad_files_are_refused(index, tmp_path, harm, name):
    """Of the vectors content is looked at where asked for, as a search need not read them all."""
    index.save(tmp_path)
    (file,) = (p for p in tmp_path.iterdir() if p.name.startswith((f"{name}-", f"{name}.")))
    data = bytearray(file.read_bytes())
    if harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif harm == "text":
        file.write_text("hello")
    else:
        file.unlink()
    says = "no index at" if (harm, name) == ("missing", "index") else "damaged"
    large = name in storage.LARGE and harm == "flip"
    for check in (True,) if large else (False, True):
        with pytest.raises(InputError, match=f"({says}).*; (re)?(build|fetch)"):
            RetrievalIndex.load(tmp_path, check=check)
    index.save(tmp_path)
    equal(RetrievalIndex.load(tmp_path, check=True), index)


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    small = RetrievalIndex.build(names(4), rows(0, 4, 2), rows(1, 3, 2))
    small.save(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        sound = file.read_bytes()
        for place in range(0, len(sound), 29):
            data = bytearray(sound)
            data[place] ^= 1 << place % 8
            file.write_bytes(data)
            with pytest.raises(InputError):
                RetrievalIndex.load(tmp_path, check=True)
        file.write_bytes(sound)


def signed(folder, change):
    """Changes the header, and signs it as `save` does."""
    file = folder / storage.NAME
    content = json.loads(file.read_text())
    change(content["data"])
    content["sha256"] = storage.digest(content["data"])
    file.write_text(json.dumps(content))


def put(folder, name, array, part=0):
    """Another array, named and signed."""
    stream = io.BytesIO()
    np.save(stream, array)
    sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
    file = array_files.ArrayFile(f"{name}-{sha256[:16]}.npy", len(stream.getvalue()), sha256)
    (folder / file.file).write_bytes(stream.getvalue())

    def change(data):
        groups = {**dict.fromkeys(storage.PART, data["parts"][part]),
                  **dict.fromkeys(storage.BANK, data["bank"]), "row_sum": data["sums"]}  # fmt: skip
        groups[name][name] = dataclasses.asdict(file)

    signed(folder, change)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda d: d.update(scale="7"), "its scale, .* is not a finite number"),
        (lambda d: d.update(scale=True), "its scale, .* is not a finite number"),
        (lambda d: d.update(scale=0.0), "its scale is not positive"),
        (lambda d: d.update(meta=[]), "its meta is not an object"),
        (lambda d: d.update(meta={"drift_at_fit": "x"}), "its drift"),
        (lambda d: d.update(more=1), "other fields"),
        (lambda d: d.pop("scale"), "other fields"),
        (lambda d: d.update(parts=[]), "other types"),
        (lambda d: d.update(parts={}), "names no parts"),
        (lambda d: d["parts"][0].pop("bias"), "other arrays"),
        (lambda d: d.pop("bank"), "other arrays"),
        (lambda d: d["sums"]["row_sum"].update(file="../row_sum.npy"), "names another file"),
        (lambda d: d["sums"]["row_sum"].update(size=-1), "in place of -1"),
        (lambda d: d["sums"]["row_sum"].update(sha256="0"), "no size or checksum"),
        (lambda d: d["sums"].update(row_sum="row_sum.npy"), "which file holds row_sum"),
        (lambda d: d["parts"].append(d["parts"][0]), "one id per item"),
    ],
)
def test_a_header_of_another_program_is_refused(index, tmp_path, harm, said):
    index.save(tmp_path)
    signed(tmp_path, harm)
    with pytest.raises(InputError, match=said) as refused:
        RetrievalIndex.load(tmp_path, check=True)
    assert str(refused.value).endswith("; build it again")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("bias", np.zeros(300), "other types"),
        ("bias", np.zeros((300, 1), np.float32), "other types"),
        ("bias", np.zeros(299, np.float32), "do not fit together"),
        ("bias", np.full(300, np.nan, np.float32), "not finite"),
        ("video", np.full((300, 8), np.inf, np.float32), "not finite"),
        ("video", np.zeros((300, 9), np.float32), "do not fit together"),
        ("ends", np.arange(300), "ids do not fit together"),
        ("ends", np.full(300, 2**40), "ids do not fit together"),
        ("ends", np.r_[-1, np.full(299, 2290)], "ids do not fit together"),
        ("text", np.full(2290, 0xFF, np.uint8), "ids are not text"),
        ("row_sum", -np.ones(90), "row sums are not positive"),
        ("bank_text", np.zeros((90, 8), ">f4"), "other types"),
        ("video", np.asfortranarray(np.ones((300, 8), np.float32)), "stored by columns"),
    ],
)
def test_arrays_of_another_program_are_refused(index, tmp_path, name, array, said):
    index.save(tmp_path)
    assert len(index.parts[0].ids.text) == 2290
    put(tmp_path, name, array)
    with pytest.raises(InputError, match=said):
        RetrievalIndex.load(tmp_path, check=True)


def test_a_newer_format_is_named(index, tmp_path):
    index.save(tmp_path)
    file = tmp_path / storage.NAME
    file.write_text(file.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(InputError, match="has format 3, this release reads up to 2; upgrade"):
        RetrievalIndex.load(tmp_path)


@pytest.mark.parametrize("there", ["index.npz", "old.npz"])
def test_format_1_is_read_and_saved_as_format_2(index, tmp_path, there):
    format1.write(tmp_path / there, *format1.content(index))
    old = RetrievalIndex.load(tmp_path if there == "index.npz" else tmp_path / there)
    equal(old, index)
    old.add(["new"], rows(2, 1)).save(tmp_path)
    assert (tmp_path / there).exists() == (there == "old.npz")
    assert RetrievalIndex.load(tmp_path, check=True).ids == (*index.ids, "new")
    with pytest.raises(InputError, match="expected a folder to save the index to"):
        index.save(tmp_path / "old.npz")


def test_ids_may_be_any_strings(tmp_path):
    """Also names of files that are no text, one that is another's end, and none at all."""
    ids = ["", "a", "ba", "b\na", "é", "\udcff", "日本"]
    index = RetrievalIndex.build(ids, rows(0, 7))
    index.save(tmp_path)
    loaded = RetrievalIndex.load(tmp_path, check=True)
    assert loaded.ids == tuple(ids)
    assert [loaded.search(row, 1).ids[0][0] for row in loaded.video] == ids
    for known in ids:
        with pytest.raises(InputError, match="already"):
            loaded.add([known], rows(1, 1))
    for new in ("b", "\n", "\udcfe", "a" * 99, "本"):
        assert loaded.add([new], rows(1, 1)).ids[-1] == new
    with pytest.raises(InputError, match="2 ids are in the index already, such as ''"):
        loaded.add([*map(str, range(20)), "é", ""], rows(1, 22))


def test_readers_never_see_half_a_save(index, tmp_path):
    other = index.remove(names(100))
    index.save(tmp_path)
    writer = threading.Thread(
        target=lambda: [i.save(tmp_path) for _ in range(15) for i in (other, index)])
    writer.start()
    sizes = set()
    while writer.is_alive():
        sizes.add(len(RetrievalIndex.load(tmp_path, check=True).search(rows(0, 1), 300).ids[0]))
    writer.join()
    assert sizes <= {200, 300}
    assert kinds(tmp_path) == WHOLE


def test_a_reader_goes_on_with_what_it_has_opened(index, tmp_path):
    index.save(tmp_path)
    reader = RetrievalIndex.load(tmp_path)
    index.remove(names(299)).save(tmp_path)
    assert reader.search(rows(0, 3), 5).ids == index.search(rows(0, 3), 5).ids


@pytest.mark.slow
def test_a_kill_while_saving_leaves_a_whole_index(tmp_path):
    code = (
        "import sys, numpy as np; from ncl_jax.index import RetrievalIndex\n"
        "i = RetrievalIndex.build([str(n) for n in range(20000)], np.ones((20000, 64)))\n"
        "i.save(sys.argv[1]); print('saved', flush=True)\n"
        "while True:\n"
        "    RetrievalIndex.load(sys.argv[1]).add(['x'], np.ones((1, 64))).save(sys.argv[1])\n"
        "    i.save(sys.argv[1])"
    )
    for wait in (0.0, 0.03, 0.1, 0.2, 0.4, 0.7):
        line = [sys.executable, "-c", code, tmp_path]
        with subprocess.Popen(line, stdout=subprocess.PIPE) as run:
            assert run.stdout.readline() == b"saved\n"
            time.sleep(wait)
            run.kill()
        assert len(RetrievalIndex.load(tmp_path, check=True)) in (20000, 20001)
    RetrievalIndex.load(tmp_path).remove(["0"]).save(tmp_path)
    assert kinds(tmp_path)["video"] <= 2


@pytest.mark.parametrize("fails", range(1, 9))
def test_a_failed_save_leaves_the_old_index(index, tmp_path, monkeypatch, fails):
    """Whichever file cannot be written."""
    index.save(tmp_path)
    other = RetrievalIndex.build(names(5), rows(5, 5), rows(6, 9), scale=20.0)
    calls, real = [], os.fsync

    def fsync(stream):
        calls.append(stream)
        if len(calls) == fails:
            raise OSError("disk full")
        real(stream)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="disk full"):
        other.save(tmp_path)
    monkeypatch.undo()
    equal(RetrievalIndex.load(tmp_path, check=True), index)
    other.save(tmp_path)
    equal(RetrievalIndex.load(tmp_path, check=True), other)
    assert kinds(tmp_path) == WHOLE
