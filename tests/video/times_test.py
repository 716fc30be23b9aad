"""When frames are shown, of which stream, and the frame of a second; on files written here."""

import fractions
import itertools
import pathlib
import types
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncl_jax.video import clock as clock_lib
from ncl_jax.video import decode, frames
from ncl_jax.video import preview as preview_lib
from ncl_jax.video import times as times_lib
from ncl_jax.video.container import opened
from ncl_jax.video.picture import Form
from tests.video.files_test import FINE, numbers, write

MPEG2 = {"b": "2000000"}


def level(jpeg: bytes) -> int:
    """The number of the frame, by its grey level."""
    return round(float(decode.decode_jpeg(jpeg).mean()) / 4)


def preview(path: pathlib.Path, seconds: float) -> int:
    return level(decode.jpeg_at(path, seconds, 48, 95))


def joined(path: pathlib.Path, *parts: pathlib.Path) -> pathlib.Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


# -- the clock -----------------------------------------------------------------------------------


def fake_stream(flags: int = clock_lib.MAY_LEAP) -> Any:
    return types.SimpleNamespace(
        time_base=fractions.Fraction(1, 90000),
        average_rate=25,
        guessed_rate=25,
        container=types.SimpleNamespace(format=types.SimpleNamespace(flags=flags)),
    )


def fake_packet(dts: int | None, stream: Any, pts: int | None = None) -> Any:
    return types.SimpleNamespace(dts=dts, pts=pts, duration=3600, stream=stream)


def straightened(stamps: list[int], stream: Any) -> tuple[list[int], clock_lib.Clock]:
    clock, out = clock_lib.Clock(), []
    for stamp in stamps:
        packet = fake_packet(stamp, stream, stamp)
        clock.set(packet)
        assert packet.pts == packet.dts
        out.append(packet.dts)
    return out, clock


@given(
    st.lists(st.tuples(st.integers(-(2**33), 2**33), st.integers(1, 30)), min_size=1, max_size=5)
)
def test_parts_of_any_clocks_follow_one_another(parts: list[tuple[int, int]]) -> None:
    stamps = [begin + 3600 * n for begin, count in parts for n in range(count)]
    out, clock = straightened(stamps, fake_stream())
    assert out[0] == stamps[0]
    moves = 0
    for (a, b), (before, after) in zip(
        itertools.pairwise(out), itertools.pairwise(stamps), strict=True
    ):
        small = -9000 <= after - before <= 903600  # within 0.1 s back and 10 s ahead
        assert b - a == (after - before if small else 3600)
        moves += not small
    assert len(clock.remarks) == moves
    assert clock.changed == bool(clock.remarks)


def test_a_pause_is_kept_where_files_are_not_made_to_be_joined() -> None:
    stamps = [0, 3600, 90000 * 60]
    assert straightened(stamps, fake_stream(flags=0))[0] == stamps
    out, clock = straightened(stamps, fake_stream())
    assert out == [0, 3600, 7200]
    assert clock.remarks == ["the clock changes at 0.1 s; the time line goes on"]


def test_packets_without_times_keep_none() -> None:
    clock, stream = clock_lib.Clock(), fake_stream()
    for stamp in (900000, None, 0, None):
        packet = fake_packet(stamp, stream, stamp)
        clock.set(packet)
        assert (packet.dts is None) == (packet.pts is None) == (stamp is None)


def test_a_programme_begins_anew_even_where_its_first_packets_have_no_decoding_time() -> None:
    clock, one, other = clock_lib.Clock(), fake_stream(), fake_stream()
    for stamp in (0, 3600, 7200):
        clock.set(fake_packet(stamp, one, stamp))
    first, second = fake_packet(None, other, 900000), fake_packet(903600, other, 903600)
    for packet in (first, second):
        clock.set(packet)
    assert (first.pts, first.dts) == (10800, None)
    assert (second.pts, second.dts) == (14400, 14400)
    assert clock.remarks == ["another programme begins at 0.1 s; the time line goes on"]


def test_many_remarks_are_counted(tmp_path: pathlib.Path) -> None:
    part = write(tmp_path / "p.ts", 3, options={**FINE, "g": "1"})
    clip = decode.decode_frames(joined(tmp_path / "a.ts", *[part] * 9))
    assert len(clip.remarks) == 6
    assert clip.remarks[-1] == "3 more remarks of this kind"


def fake_pictures(*stamps: tuple[int | None, int | None]) -> list[Any]:
    return [types.SimpleNamespace(pts=pts, dts=dts, duration=1) for pts, dts in stamps]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([(4, 0), (5, 1), (6, 2)], [4, 5, 6]),  # what the file states
        ([(None, 2), (None, 3), (None, None), (None, None)], [2, 3, 4, 5]),  # an AVI
        ([(None, None), (None, None)], [0, 1]),  # a raw stream
        ([(1, 2), (4, 3), (3, 4), (5, 5), (2, 6)], [1, 4, 4, 5, 6]),  # stated wrongly: dts wins
    ],
)
def test_the_best_stamp_of_each_picture(stamps: list, expected: list[int]) -> None:
    stream = types.SimpleNamespace(time_base=fractions.Fraction(1, 25), average_rate=25)
    best = times_lib.Stamps(stream)  # type: ignore[arg-type]
    assert [best.of(picture) for picture in fake_pictures(*stamps)] == expected


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [("", [0.0, 1.2, 2.0]), ("1.2", [0.0, 1.6, 2.0]), ("1.2 1.6", [0.0, 1.2, 2.0]),
     ("0.0 0.4 0.8 2.0", [0.0, 1.2, 2.4]), ("2.0 2.4", [0.0, 1.2, 2.0])],
)  # fmt: skip
def test_a_corrupt_frame_is_kept_only_for_want_of_a_sound_one(
    corrupt: str, expected: list[float]
) -> None:
    bad = set(map(float, corrupt.split()))
    times = [0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4]
    items = [(time, types.SimpleNamespace(is_corrupt=time in bad)) for time in times]
    assert [time for time, _ in times_lib.at_ticks(items, 1.0)] == expected


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bf", ["0", "1", "3", "16"])
def test_h264_in_avi_is_shown_in_its_order(tmp_path: pathlib.Path, bf: str) -> None:
    path = write(tmp_path / "a.avi", 50, options={**FINE, "bf": bf, "b-pyramid": "none"})
    for fps, step in ((1.0, 10), (5.0, 2), (100.0, 1)):
        clip = decode.decode_frames(path, fps)
        assert numbers(clip) == list(range(0, 50, step))
        np.testing.assert_allclose(clip.times, np.arange(0, 5, step / 10), atol=1e-4)
        assert clip.remarks == ()
    assert [preview(path, t) for t in (0.0, 2.0, 3.3, 9.0)] == [0, 20, 33, 49]


def test_an_avi_whose_b_frames_begin_late(tmp_path: pathlib.Path) -> None:
    """FFmpeg looks at the beginning only, and takes the order of decoding for that of showing."""
    path, dts = tmp_path / "a.avi", itertools.count()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={**FINE, "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for part, bf in enumerate(("0", "3")):
            params = f"bframes={bf}:b-pyramid=none:keyint=128:scenecut=0:b-adapt=0"
            name = write(tmp_path / f"{bf}.h264", 256, options={**FINE, "x264-params": params})
            with av.open(str(name)) as half:
                kept = [p for p in half.demux(video=0) if p.size][128 * part : 128 * (part + 1)]
            for packet in kept:
                copy = av.Packet(bytes(packet))
                copy.dts = copy.pts = next(dts)
                copy.time_base, copy.stream = fractions.Fraction(1, 10), stream
                copy.is_keyframe = packet.is_keyframe
                container.mux(copy)
    with opened(path) as stream:
        assert not stream.codec_context.has_b_frames
    assert frames.decode_planned(path, 2.0, Form()) is None
    clip = decode.decode_frames(path, 2.0)
    late = (np.round(clip.times * 10) - numbers(clip)) % 64  # 64 levels
    assert set(late[clip.times < 12]) == {0}
    assert set(late) <= {0, 1, 2}  # what the decoder has to wait for when it meets them


def test_a_joined_transport_stream_goes_on(tmp_path: pathlib.Path) -> None:
    options = {**FINE, "g": "10"}
    parts = [
        write(tmp_path / f"{n}.ts", 25, options=options, ticks=range(n, n + 25)) for n in (0, 900)
    ]
    for order in ((0, 0), (0, 1), (1, 0)):
        path = joined(tmp_path / "a.ts", *(parts[n] for n in order))
        clip = decode.decode_frames(path, 2.0)
        assert numbers(clip) == [0, 5, 10, 15, 20, 0, 5, 10, 15, 20]
        np.testing.assert_allclose(clip.times, np.arange(0, 5, 0.5), atol=1e-3)
        assert clip.remarks == ("the clock changes at 2.5 s; the time line goes on",)
        assert [preview(path, t) for t in (0.0, 1.1, 2.5, 3.72, 9.0)] == [0, 11, 0, 13, 24]


def test_a_joined_mpg_goes_on(tmp_path: pathlib.Path) -> None:
    part = write(tmp_path / "p.mpg", 50, codec="mpeg2video", rate=25, options=MPEG2, noise=12,
                 size=(320, 240))  # fmt: skip
    path = joined(tmp_path / "a.mpg", part, part, part)
    clip = decode.decode_frames(path, 1.0)
    assert numbers(clip) == [3, 25, 3, 25, 3, 25]  # noise cuts off the darkest levels
    np.testing.assert_allclose(clip.times, np.arange(6), atol=1e-3)
    assert len(clip.remarks) == 2
    assert [preview(path, t) for t in (1.0, 2.0, 3.0, 5.96)] == [25, 3, 25, 49]


def test_a_joined_matroska_file_goes_on(tmp_path: pathlib.Path) -> None:
    part = write(tmp_path / "p.mkv", 25)
    clip = decode.decode_frames(joined(tmp_path / "a.mkv", part, part), 2.0)
    assert numbers(clip) == [0, 5, 10, 15, 20, 0, 5, 10, 15, 20]
    np.testing.assert_allclose(clip.times, np.arange(0, 5, 0.5), atol=2e-3)


def test_a_programme_of_other_numbers_is_shown_too(tmp_path: pathlib.Path) -> None:
    other = {"mpegts_start_pid": "600", "mpegts_service_id": "7", "mpegts_pmt_start_pid": "500"}
    options = {"g": "10", "threads": "1"}
    a = write(tmp_path / "p.ts", 25, options=options, noise=8)
    b = write(tmp_path / "q.ts", 25, options=options, noise=8, container_options=other)
    clip = decode.decode_frames(joined(tmp_path / "a.ts", a, b), 2.0)
    due = [2, 5, 10, 15, 20]  # noise cuts off the darkest levels
    assert numbers(clip) == due * 2
    assert clip.remarks == ("another programme begins at 2.5 s; the time line goes on",)
    clip = decode.decode_frames(joined(tmp_path / "a.ts", a, b, a, b), 2.0)
    assert numbers(clip) == due * 4
    np.testing.assert_allclose(clip.times, np.arange(0, 10, 0.5), atol=1e-3)
    assert [preview(tmp_path / "a.ts", t) for t in (2.2, 3.1, 6.2, 9.9)] == [22, 6, 12, 24]


def test_frames_of_all_sizes_are_kept(tmp_path: pathlib.Path) -> None:
    a = write(tmp_path / "p.ts", 20, size=(80, 48))
    b = write(tmp_path / "q.ts", 20, size=(48, 80))
    clip = decode.decode_frames(joined(tmp_path / "a.ts", a, b), short_side=24)
    assert [frame.shape for frame in clip.frames] == [(24, 40, 3)] * 2 + [(40, 24, 3)] * 2
    assert (clip.width, clip.height) == (80, 48)


def test_the_33_bit_clock_may_wrap(tmp_path: pathlib.Path) -> None:
    late = round((2**33 / 90000 - 2) * 10)
    path = write(tmp_path / "a.ts", 60, ticks=range(late, late + 60), options={**FINE, "g": "10"})
    clip = decode.decode_frames(path)
    assert numbers(clip) == [0, 10, 20, 30, 40, 50]
    np.testing.assert_allclose(clip.times, np.arange(6), atol=1e-3)
    assert [preview(path, t) for t in (0.0, 1.0, 3.0, 5.5)] == [0, 10, 30, 55]
    assert decode.begin_of(path) == 0.0


def test_damage_and_late_frames_are_said(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mp4", 60, options={**FINE, "g": "10"},
                 container_options={"movflags": "faststart"})  # fmt: skip
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    assert any("damaged packets" in sentence for sentence in decode.decode_frames(path).remarks)


# -- streams -------------------------------------------------------------------------------------


def test_the_largest_of_several_streams_is_shown(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.mp4"
    sizes = [(80, 48), (160, 96), (40, 24)]
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10, options=FINE) for _ in sizes]
        for stream, (width, height) in zip(streams, sizes, strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, (stream, (width, height)) in itertools.product(
            range(12), zip(streams, sizes, strict=True)
        ):
            image = np.full((height, width, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    clip = decode.decode_frames(path)
    assert (clip.width, clip.height) == (160, 96)
    assert numbers(clip) == [0, 10]


def test_a_codec_that_nobody_knows_is_one_sentence(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mp4", 3)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    for read in (decode.decode_frames, decode.probe, decode.begin_of):
        with pytest.raises(decode.VideoError) as caught:
            read(path)
        assert str(caught.value) == (
            "a.mp4: expected a codec that FFmpeg can decode, got an unknown one"
        )


@pytest.mark.parametrize("suffix", ["mts", "m2ts", "ogv", "vob", "qt", "f4v", "mxf", "divx", "MTS"])
def test_more_names_are_videos(suffix: str) -> None:
    assert pathlib.Path(f"a.{suffix}").suffix.lower() in decode.SUFFIXES


# -- the frame of a second -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("ts", "libx264", {**FINE, "g": "60"}),
        ("mp4", "libx264", {**FINE, "x264-params": "open-gop=1:keyint=20:bframes=3"}),
        ("ts", "libx264", {**FINE, "x264-params": "open-gop=1:keyint=20:bframes=3"}),
        ("mp4", "libx264", {**FINE, "x264-params": "intra-refresh=1:keyint=40"}),
        ("mpg", "mpeg2video", {**MPEG2, "g": "30"}),
        ("avi", "libx264", {**FINE, "g": "20", "bf": "3"}),
        ("webm", "vp8", {"g": "30", "b": "2000000", "deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_a_preview_is_the_frame_at_or_after_the_second(
    tmp_path: pathlib.Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    rate = 25
    path = write(tmp_path / f"a.{suffix}", 250, codec=codec, rate=rate, options=options,
                 size=(160, 128) if suffix == "mpg" else (64, 48), noise=9)  # fmt: skip
    stored = numbers(decode.decode_frames(path, 1000.0))
    assert len(stored) == 250
    for asked in (0.0, 0.02, 2.0, 2.48, 2.49, 5.72, 7.0, 9.96, 30.0):
        due = min(249, int(np.ceil(asked * rate - 1e-6)))
        assert preview(path, asked) == stored[due], asked


def test_what_is_known_of_a_file_is_forgotten_when_it_changes(tmp_path: pathlib.Path) -> None:
    a, b = (write(tmp_path / f"{n}.ts", 25, options={**FINE, "g": "5"}) for n in "ab")
    path = joined(tmp_path / "c.ts", a)
    assert preview_lib.beginning_of(path).keys is None
    joined(path, a, b)
    keys = preview_lib.beginning_of(path).keys
    assert keys is not None
    assert len(keys) == 10


def test_an_unreadable_file_has_no_preview(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(decode.VideoError, match=rf"{name}: expected a readable video"):
            decode.jpeg_at(tmp_path / name, 1.0, 48, 90)
