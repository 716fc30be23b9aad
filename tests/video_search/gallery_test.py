"""A folder of videos: windows, what is embedded again, and what an index remembers."""

import fractions
import io
import os
import pathlib

import av
import numpy as np
import pytest
from PIL import Image

from ncl_jax.index import RetrievalIndex
from ncl_jax.pretrained.preprocessing import StoredFrames
from ncl_jax.pretrained.reading import cut
from ncl_jax.video_search import gallery
from ncl_jax.video_search.manifest import GalleryManifest, Stamp, manifest_of
from tests.video.shown_test import write

FRAMES = StoredFrames(fps=1.0, short_side=32, look="shown")


def write_video(
    path: pathlib.Path, greys: list[int], fps: int = 1, begin: int = 0
) -> pathlib.Path:
    """One frame per grey level, in what browsers play; its clock begins at `begin` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        codec = {".webm": "vp8", ".avi": "mpeg4"}.get(path.suffix, "libx264")
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, grey in enumerate(greys):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), "rgb24")
            frame.pts, frame.time_base = begin * fps + index, fractions.Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def encode(clips):
    """A direction that tells the mean grey and the number of frames of a clip."""
    rows = []
    for jpegs in clips:
        grey = np.mean([np.asarray(Image.open(io.BytesIO(jpeg))).mean() for jpeg in jpegs])
        rows.append([np.cos(grey / 200), np.sin(grey / 200), len(jpegs) / 10])
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(folder, entries=None, batch=4):
    files = gallery.find_files(folder)
    entries = {n: e for n, e in (entries or {}).items() if files.get(n) == e.stamp}
    todo = {n: s for n, s in files.items() if n not in entries}
    embedded = dict(gallery.embed_files(folder, todo, encode, FRAMES, batch))
    assert list(embedded) == list(todo)
    ids, rows = gallery.rows_of(entries | embedded)
    meta = described(folder, entries | embedded)
    return RetrievalIndex.build(ids, rows, meta=meta), list(todo)


def described(folder, entries):
    """What an index says of the folder."""
    files = gallery.files_of(entries)
    return GalleryManifest(str(folder), "run", "model", 10.0, 2, files).as_meta()


def same(one: RetrievalIndex, other: RetrievalIndex) -> bool:
    assert one.ids == other.ids
    np.testing.assert_array_equal(one.video, other.video)
    return manifest_of(one).windows == manifest_of(other).windows


@pytest.mark.parametrize(
    ("seconds", "windows"),
    [(1, [(0, 1)]), (10, [(0, 10)]), (13, [(0, 13)]), (16, [(0, 10), (10, 16)]),
     (30, [(0, 10), (10, 20), (20, 30)])],
)  # fmt: skip
def test_windows_tile_a_file(seconds, windows):
    times = np.arange(seconds, dtype=np.float32)
    found = [(part.start, part.stop) for part in cut(times, 10.0)]
    assert found == windows
    assert [i for a, b in found for i in range(a, b)] == list(range(seconds))


def test_windows_of_a_file_with_a_gap():
    times = np.array([0, 1, 2, 45, 46, 47, 48, 49], np.float32)
    assert cut(times, 10.0) == [slice(0, 3), slice(3, 8)]


def test_a_file_says_where_its_windows_are(tmp_path):
    write_video(tmp_path / "trip" / "b.mp4", [10] * 10 + [200] * 12)
    write_video(tmp_path / "a.avi", [90] * 3)
    (tmp_path / "notes.txt").write_text("not a video")
    write_video(tmp_path / ".hidden" / "c.mp4", [1] * 3)
    index, todo = build(tmp_path)
    assert todo == ["a.avi", "trip/b.mp4"]
    assert index.ids == (
        "a.avi 0:00.0-0:03.0", "trip/b.mp4 0:00.0-0:10.0", "trip/b.mp4 0:10.0-0:22.0",
    )  # fmt: skip
    assert manifest_of(index).windows[2] == ("trip/b.mp4", 10.0, 22.0)
    assert index.video[1] @ index.video[2] < 0.99  # other frames, other rows


def test_only_what_changed_is_embedded_again(tmp_path):
    for name, grey in (("a", 20), ("b", 120), ("c", 220)):
        write_video(tmp_path / f"{name}.mp4", [grey] * 12)
    first, _ = build(tmp_path)
    assert build(tmp_path, gallery.entries_of(first))[1] == []
    (tmp_path / "a.mp4").unlink()
    write_video(tmp_path / "b.mp4", [60] * 25)
    os.utime(tmp_path / "b.mp4", ns=(1, 1))
    write_video(tmp_path / "d.mp4", [160] * 5)
    second, todo = build(tmp_path, gallery.entries_of(first))
    assert todo == ["b.mp4", "d.mp4"]
    assert same(second, build(tmp_path)[0])


def test_an_index_survives_the_disk(tmp_path):
    write_video(tmp_path / "videos" / "ä <b>.mp4", [50] * 12)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    index, _ = build(tmp_path / "videos")
    index.save(tmp_path / "index")
    loaded = RetrievalIndex.load(tmp_path / "index")
    assert same(index, loaded)
    entries = gallery.entries_of(loaded)
    assert list(entries) == ["ä <b>.mp4"]
    assert build(tmp_path / "videos", entries)[1] == ["broken.mp4"]  # it may be readable by now


def test_files_are_read_as_players_show_them_and_remarks_are_kept(tmp_path):
    sizes = []

    def see(clips):
        sizes.extend(Image.open(io.BytesIO(jpegs[0])).size for jpegs in clips)
        return encode(clips)

    aspect = fractions.Fraction(3, 2)
    write(tmp_path / "a.mp4", np.full((48, 64, 3), 90, np.uint8), sample_aspect_ratio=aspect)
    part = write_video(tmp_path / "part.ts", [10, 90, 250], fps=1).read_bytes()
    (tmp_path / "b.m2ts").write_bytes(part + part)
    (tmp_path / "part.ts").unlink()
    entries = dict(gallery.embed_files(tmp_path, gallery.find_files(tmp_path), see, FRAMES, 4))
    assert sizes == [(64, 32), (42, 32)]
    assert entries["a.mp4"].remarks == ()
    assert entries["b.m2ts"].remarks == ("the clock changes at 3.0 s; the time line goes on",)
    assert entries["b.m2ts"].windows == [(0.0, 6.0)]
    ids, rows = gallery.rows_of(entries)
    meta = described(tmp_path, entries)
    RetrievalIndex.build(ids, rows, meta=meta).save(tmp_path / "index")
    known = gallery.entries_of(RetrievalIndex.load(tmp_path / "index"))
    assert known["b.m2ts"].remarks == entries["b.m2ts"].remarks


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_size_of_a_batch_changes_nothing(tmp_path, batch):
    for n in range(5):
        write_video(tmp_path / f"{n}.mp4", [40 * n] * (6 + 5 * n))
    assert same(build(tmp_path)[0], build(tmp_path, batch=batch)[0])


def test_a_wrong_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="expected a folder of videos"):
        gallery.find_files(tmp_path / "nowhere")


def test_another_index_is_refused():
    with pytest.raises(ValueError, match="was not made from videos"):
        manifest_of(RetrievalIndex.build(["a"], np.eye(1)))
    for broken in ({}, {"files": 3}, {"files": {"a": {}}, "folder": "f"}):
        with pytest.raises(ValueError, match="not as ncl_jax writes it"):
            manifest_of(RetrievalIndex.build(["a"], np.eye(1), meta={"gallery": broken}))
    none = described("videos", {})
    with pytest.raises(ValueError, match="1 rows and names 0 windows"):
        manifest_of(RetrievalIndex.build(["a"], np.eye(1), meta=none))


def test_what_is_still_true_of_files(tmp_path):
    def entry(name, size):
        (tmp_path / name).write_bytes(bytes(size))
        sample = gallery.sample_of(tmp_path / name)
        row = np.ones((1, 3), np.float32)
        return gallery.Entry(Stamp(size, 1), [(0.0, 1.0)], row, sample=sample)

    known = {name: entry(name, size) for name, size in {"same": 1, "old": 2, "changed": 3}.items()}
    (tmp_path / "old").rename(tmp_path / "new name")
    files = {"same": 1, "new name": 2, "changed": 30, "new": 9}
    stamps = {name: Stamp(size, 1) for name, size in files.items()}
    found = gallery.reusable_entries(known, stamps, tmp_path)
    assert found == {"same": known["same"], "new name": known["old"]}
    copied = gallery.reusable_entries(known, stamps | {"a copy": Stamp(1, 1)}, tmp_path)
    assert copied == found  # its like is there still: it is not known to be the same


def test_a_file_of_the_size_and_time_of_one_that_went_away_is_another(tmp_path):
    made = gallery.Entry(
        Stamp(2, 1), [(0.0, 1.0)], np.ones((1, 3), np.float32), sample=gallery.sample_of(__file__)
    )
    (tmp_path / "new").write_bytes(b"ab")
    stamps = {"new": Stamp(2, 1)}
    assert gallery.reusable_entries({"gone": made}, stamps, tmp_path) == {}
    unknown = made._replace(sample="")  # as indexes of earlier versions have it
    assert gallery.reusable_entries({"gone": unknown}, stamps, tmp_path) == {}
    assert gallery.reusable_entries({"gone": unknown}, {"lost": Stamp(2, 1)}, tmp_path) == {}


@pytest.mark.parametrize("place", [0, 500_000, 999_999])
def test_samples_tell_files_apart(tmp_path, place):
    content = bytearray(1_000_000)
    (tmp_path / "a").write_bytes(content)
    content[place] = 1
    (tmp_path / "b").write_bytes(content)
    assert gallery.sample_of(tmp_path / "a") != gallery.sample_of(tmp_path / "b")
    assert gallery.sample_of(tmp_path / "nowhere") == ""


def test_what_is_named_like_a_video_and_is_no_file_is_said(tmp_path):
    write_video(tmp_path / "a.mp4", [40] * 4)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.mp4").mkdir()
    files = gallery.find_files(tmp_path)
    assert list(files) == ["a.mp4", "pipe.mp4"]
    found = dict(gallery.embed_files(tmp_path, files, encode, FRAMES, batch=4))
    assert found["a.mp4"].error == ""
    assert found["pipe.mp4"].error == "expected a regular file, got a pipe"
