"""Every kind of odd or hostile file gives the right frames or a reason of one line."""

import contextlib
import fractions
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
import pytest

from ncl_jax.video import decode
from ncl_jax.video import frames as frames_lib
from ncl_jax.video import plan as plan_lib
from ncl_jax.video import worker as worker_lib
from ncl_jax.video.container import opened
from ncl_jax.video.picture import Form
from ncl_jax.video.times import at_ticks
from tests.video.long_video import repeat

FINE = {"crf": "1", "threads": "1"}


def write(
    path: pathlib.Path,
    count: int,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (80, 48),
    pix_fmt: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    rate: int = 10,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    noise: int = 0,
) -> pathlib.Path:
    """Encodes `count` frames; frame n is of grey 4 * n, so a picture tells its number.

    Noise of so many levels, which leaves the mean as it is, makes packets as large as real ones.
    """
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options=options or FINE)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = fractions.Fraction(1, rate)
        for number, pts in enumerate(ticks or range(count)):
            grey = np.full((size[1], size[0], 3), 4 * number % 256, np.uint8)
            if noise:
                signs = rng.permutation(np.resize([-1, 1], size[0] * size[1])).reshape(size[::-1])
                grey = np.uint8(np.clip(4 * number % 256, noise, 255 - noise) + noise * signs)
                grey = np.repeat(grey[..., None], 3, -1)
            picture = av.VideoFrame.from_ndarray(grey, format="rgb24")
            picture.pts, picture.time_base = pts, fractions.Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def numbers(clip: decode.Clip) -> list[int]:
    return [round(float(np.mean(frame)) / 4) for frame in clip.frames]


def reason(path: pathlib.Path) -> str:
    with pytest.raises(decode.VideoError) as caught:
        decode.decode_frames(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path.name}: expected ")
    return str(caught.value)


def test_variable_frame_rate(tmp_path: pathlib.Path) -> None:
    ticks = [0, 1, 2, 9, 10, 11, 35, 36, 60]  # tenths of a second
    clip = decode.decode_frames(write(tmp_path / "a.mkv", 9, ticks=ticks))
    assert numbers(clip) == [0, 4, 6, 8]  # the first at or after 0, 1, 2 to 3 and 6 s
    np.testing.assert_allclose(clip.times, [0, 1, 3.5, 6], atol=2e-3)


def test_one_frame(tmp_path: pathlib.Path) -> None:
    clip = decode.decode_frames(write(tmp_path / "a.mp4", 1), jpeg_quality=90)
    assert len(clip.frames) == 1
    assert clip.frames[0][:2] == b"\xff\xd8"
    assert clip.times.tolist() == [0]


def test_no_bytes_and_wrong_suffix(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "got " in reason(tmp_path / "empty.mp4")
    shutil.move(write(tmp_path / "a.mp4", 20), tmp_path / "a.avi")
    assert numbers(decode.decode_frames(tmp_path / "a.avi")) == [0, 10]


def test_truncated(tmp_path: pathlib.Path) -> None:
    whole = write(tmp_path / "a.mp4", 40).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])  # the index is at the end
    assert "got " in reason(tmp_path / "cut.mp4")
    whole = write(tmp_path / "b.mkv", 40, options={**FINE, "g": "5"}).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    assert numbers(decode.decode_frames(tmp_path / "cut.mkv"))[:2] == [0, 10]
    index_first = {"movflags": "faststart"}
    options = {**FINE, "g": "10"}
    path = write(tmp_path / "c.mp4", 60, options=options, container_options=index_first)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    assert numbers(decode.decode_frames(path))[:2] == [0, 10]
    assert decode.probe(path, deep=True).damaged > 0


def test_corrupted_in_the_middle(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mp4", 60, options={**FINE, "g": "10"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = os.urandom(200)
    path.write_bytes(data)
    clip = decode.decode_frames(path)
    assert numbers(clip)[0] == 0
    assert 4 <= len(clip.frames) <= 6
    assert decode.probe(path, deep=True).frames >= 50


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_encrypted(tmp_path: pathlib.Path, codec: str) -> None:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    path = write(tmp_path / "a.mp4", 12, codec=codec, container_options=options)
    assert reason(path).endswith("got an encrypted one")


@pytest.mark.parametrize(
    ("pix_fmt", "size", "codec"),
    [
        ("yuv420p10le", (80, 48), "libx265"),
        ("yuv444p", (81, 47), "libx264"),
        ("yuv420p", (16, 16), "mpeg4"),
        ("yuv420p10le", (80, 48), "libsvtav1"),
    ],
)
def test_depths_and_sizes(
    tmp_path: pathlib.Path, pix_fmt: str, size: tuple[int, int], codec: str
) -> None:
    options = {"x265-params": "log-level=none", "crf": "4"}
    path = write(tmp_path / "a.mkv", 25, codec=codec, pix_fmt=pix_fmt, size=size, options=options)
    clip = decode.decode_frames(path)
    assert np.abs(np.array(numbers(clip)) - [0, 10, 20]).max() <= 1
    assert (clip.width, clip.height) == size
    assert clip.frames[0].shape == (*size[::-1], 3)


def test_metadata_that_is_not_utf8(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mkv", 12, metadata={"title": "QQQQQQ"})
    path.write_bytes(path.read_bytes().replace(b"QQQQQQ", b"\xff\xfe\xfa\xe9\x80Q"))
    assert numbers(decode.decode_frames(path)) == [0, 10]


def test_a_header_that_lies(tmp_path: pathlib.Path) -> None:
    data = bytearray(write(tmp_path / "a.mp4", 30).read_bytes())
    for box, place in ((b"mvhd", 20), (b"mdhd", 20)):  # their durations
        at = data.index(box) + place
        data[at : at + 4] = b"\x7f\xff\xff\xff"
    (tmp_path / "long.mp4").write_bytes(data)
    assert numbers(decode.decode_frames(tmp_path / "long.mp4")) == [0, 10, 20]
    data = bytearray(write(tmp_path / "a.avi", 30, codec="mpeg4").read_bytes())
    at = data.index(b"avih") + 8 + 16  # dwTotalFrames
    data[at : at + 4] = (1).to_bytes(4, "little")
    (tmp_path / "short.avi").write_bytes(data)
    np.testing.assert_allclose(
        numbers(decode.decode_frames(tmp_path / "short.avi")), [0, 10, 20], atol=1
    )


def test_a_file_without_read_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(pathlib.Path(folder) / "a.mp4", 3)
        pathlib.Path(folder).chmod(0o755)
        path.chmod(0)
        with _nobody():
            assert "ermission denied" in reason(path)


@contextlib.contextmanager
def _nobody() -> Iterator[None]:
    """Root may read anything: become somebody else for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_extreme_shape_is_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mkv", 2, codec="mpeg4", size=(2000, 16), options={})
    assert reason(path).endswith("expected sides within 1:64, got 2000 x 16 pixels")


def test_a_playlist_opens_nothing(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a.ts", 12, codec="mpeg2video", rate=25, options={})
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:10", "#EXTINF:9.0,", "a.ts", "#EXT-X-ENDLIST"]
    for name in ("b.m3u8", "b.mp4"):
        (tmp_path / name).write_text("\n".join(lines))
        reason(tmp_path / name)
    (tmp_path / "c.mp4").write_text("ffconcat version 1.0\nfile a.ts\n")
    reason(tmp_path / "c.mp4")
    assert decode.decode_frames(tmp_path / "a.ts").frames


# Planned decoding.


@pytest.mark.parametrize("extra", ["", "open-gop=1", "intra-refresh=1", "bframes=0", "b-pyramid=2"])
@pytest.mark.parametrize("gop", [1, 7, 60])
@pytest.mark.parametrize(
    "suffix",
    ["mp4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mkv", "avi", "ts"))],
)
def test_needed_packets_give_the_same_pixels(
    tmp_path: pathlib.Path, suffix: str, gop: int, extra: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    params = ":".join(filter(None, [extra, f"keyint={gop}", "scenecut=0", "bframes=3"]))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"x264-params": params})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (40, 80, 3), np.uint8)
        for shift in range(61):  # a moving texture: a wrong reference would show
            picture = av.VideoFrame.from_ndarray(
                np.roll(noise, shift, axis=1)[:32, :48].copy(), format="rgb24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    for fps in (0.4, 1.0, 5.0, 50.0):
        planned = frames_lib.decode_planned(path, fps, Form())
        whole = frames_lib.decode_plainly(path, fps, Form())
        if planned is None:
            assert suffix in ("avi", "ts") or extra == "intra-refresh=1"
            continue
        np.testing.assert_array_equal(planned.times, whole.times)
        np.testing.assert_array_equal(np.stack(planned.frames), np.stack(whole.frames))


def test_a_plan_leaves_out_what_nobody_needs(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mp4", 60, options={**FINE, "g": "10", "bf": "0"})
    with opened(path) as stream:
        plan = plan_lib.make_plan(stream, lambda times: at_ticks(times, 0.5))
    assert plan is not None
    assert plan.send == [0, 20, 40]  # every second group begins with a wanted frame


def test_no_plan_is_made_where_packets_are_missing(tmp_path: pathlib.Path) -> None:
    """What decoders show there leans on whatever they have decoded before."""
    whole = write(tmp_path / "a.mkv", 60, options={**FINE, "g": "30", "bf": "0"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for position, packet in enumerate(source.demux(video=0)):
            if packet.size and position not in (12, 13):
                packet.stream = stream
                target.mux(packet)
    assert frames_lib.decode_planned(whole, 1.0, Form()) is not None
    assert frames_lib.decode_planned(tmp_path / "b.mkv", 1.0, Form()) is None


@pytest.mark.parametrize(("suffix", "prefix"), [("mkv", 4), ("h264", 0)])
@pytest.mark.parametrize(("bf", "pictures"), [(0, 0), (1, 14), (2, 19)])
def test_b_pictures_are_seen_in_packets(
    tmp_path: pathlib.Path, suffix: str, prefix: int, bf: int, pictures: int
) -> None:
    params = f"bframes={bf}:b-adapt=0:keyint=60:scenecut=0"
    path = write(tmp_path / f"a.{suffix}", 30, options={**FINE, "x264-params": params})
    with opened(path) as stream:
        packets = [memoryview(packet) for packet in plan_lib.demuxed(stream)]
    assert len(packets) == 30
    assert sum(plan_lib._may_wait(packet, prefix) for packet in packets) == pictures
    for noise in (b"", b"noise", bytes(100), b"\xff" * 100):  # what is not understood may wait
        assert plan_lib._may_wait(memoryview(noise), prefix)


# The decoding process.


@pytest.fixture
def worker() -> Iterator[worker_lib.VideoWorker]:
    with contextlib.closing(worker_lib.VideoWorker(seconds=60)) as worker:
        yield worker


REQUEST: dict[str, Any] = {"fps": 1.0, "short_side": 24, "jpeg_quality": 90}


def test_a_worker_gives_what_the_function_gives(
    tmp_path: pathlib.Path, worker: worker_lib.VideoWorker
) -> None:
    names = ["-a b.mp4", "$(touch x); 'q' \"r\".mp4", "ü\n.mp4", os.fsdecode(b"\xff.mp4")]
    for name in names:
        path = write(tmp_path / name, 20)
        got = worker_lib.unpack(worker.decode(path, **REQUEST))
        expected = decode.decode_frames(path, **REQUEST)
        assert got.frames == expected.frames
        np.testing.assert_array_equal(got.times, expected.times)
        assert got[2:] == expected[2:] == (10.0, 80, 48, ())
        assert worker.probe(path, deep=True).frames == 20
    assert not pathlib.Path("x").exists()
    for name in [*names, "plain.mp4"]:
        (tmp_path / name).write_text("no video")
        with pytest.raises(decode.VideoError, match=r"\.mp4: expected a readable video") as caught:
            worker.decode(tmp_path / name, **REQUEST)
        assert str(caught.value).isprintable()


def test_packed_clips_refuse_pickles_and_noise() -> None:
    for data in (b"", b"noise" * 100, b"PK\x03\x04"):
        with pytest.raises(ValueError, match="packed clip: expected arrays"):
            worker_lib.unpack(data)


@pytest.mark.slow
def test_a_file_that_hangs_costs_its_time_limit_and_nothing_else(tmp_path: pathlib.Path) -> None:
    repeat(tmp_path / "long.mp4", (1280, 720), seconds=20_000, group=10)
    good = write(tmp_path / "a.mp4", 20)
    with contextlib.closing(worker_lib.VideoWorker(seconds=4)) as worker:
        start = time.monotonic()
        with pytest.raises(decode.VideoError, match=r"long\.mp4: .* more than 4 s of work"):
            worker.decode(tmp_path / "long.mp4", **REQUEST)
        assert time.monotonic() - start < 8
        assert len(worker_lib.unpack(worker.decode(good, **REQUEST)).frames) == 2


@pytest.mark.slow
def test_a_decoder_that_dies_is_replaced(
    tmp_path: pathlib.Path, worker: worker_lib.VideoWorker
) -> None:
    repeat(tmp_path / "long.mp4", (1280, 720), seconds=20_000, group=10)
    good = write(tmp_path / "a.mp4", 20)
    worker.probe(good)
    assert worker._process is not None
    threading.Timer(0.5, worker._process.kill).start()
    with pytest.raises(decode.VideoError, match=r"long\.mp4: .* a decoder that ended with SIGKILL"):
        worker.decode(tmp_path / "long.mp4", **REQUEST)
    assert len(worker_lib.unpack(worker.decode(good, **REQUEST)).frames) == 2


@pytest.mark.slow
def test_an_hour_of_4k_needs_little_memory(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "hour.mp4"
    repeat(path, (3840, 2160), seconds=3600, group=10)
    code = (
        "import re, sys\n"
        "from ncl_jax.video import decode\n"
        "clip = decode.decode_frames(sys.argv[1], 1 / 60, 224, 90)\n"
        "print(len(clip.frames), clip.times[-1], clip.width,"
        " re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
    )
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True
    )
    frames, last, width, kilobytes = map(float, done.stdout.split())
    assert (frames, last, width) == (60, 3540, 3840)
    assert kilobytes < 700_000
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY  # only workers


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a socket"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a folder":
            path.mkdir()
        else:
            listening.bind(str(path))
        for read in (decode.probe, decode.decode_frames):
            with pytest.raises(decode.VideoError, match=f"expected a regular file, got {kind}$"):
                read(path)
    (tmp_path / "link.mp4").symlink_to("/dev/zero")
    with pytest.raises(decode.VideoError, match="expected a regular file, got a device"):
        decode.probe(tmp_path / "link.mp4")
