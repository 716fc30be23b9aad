"""Decoding, JPEG and frame choice, on files written here and on real odd ones."""

import fractions
import os
import pathlib

import av
import numpy as np
import pytest

from ncl_jax.video import decode


def _write(path: pathlib.Path, frames: np.ndarray, fps: int, first: int = 0) -> pathlib.Path:
    """Encodes losslessly enough to tell grey levels apart; `first` delays the first frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index + first, fractions.Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def _counting(frames: int, height: int = 48, width: int = 80) -> np.ndarray:
    """Frame n is grey 4 * n, so a picture tells its number."""
    levels = (4 * np.arange(frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)).copy()


def _numbers(clip: decode.Clip) -> list[int]:
    return [round(float(frame.mean()) / 4) for frame in clip.frames]


@pytest.mark.parametrize(
    ("fps", "numbers"),
    [(1.0, [0, 10, 20, 30, 40]), (2.0, list(range(0, 50, 5))), (0.5, [0, 20, 40])],
)
def test_keeps_the_first_frame_of_each_tick(
    tmp_path: pathlib.Path, fps: float, numbers: list[int]
) -> None:
    clip = decode.decode_frames(_write(tmp_path / "a.mp4", _counting(50), 10), fps)
    assert _numbers(clip) == numbers
    np.testing.assert_allclose(clip.times, np.array(numbers) / 10, atol=1e-4)
    assert clip.times.dtype == np.float32
    assert (clip.source_fps, clip.width, clip.height) == (10.0, 80, 48)


def test_a_rate_that_does_not_divide_takes_the_frame_at_or_after_the_tick(
    tmp_path: pathlib.Path,
) -> None:
    clip = decode.decode_frames(_write(tmp_path / "a.mp4", _counting(50), 10), 3.0)
    assert _numbers(clip)[:7] == [0, 4, 7, 10, 14, 17, 20]  # ticks 0, .33, .67, 1 ...


def test_a_source_slower_than_the_ticks_gives_each_frame_once(tmp_path: pathlib.Path) -> None:
    clip = decode.decode_frames(_write(tmp_path / "a.mp4", _counting(6), 2), 30.0)
    assert _numbers(clip) == [0, 1, 2, 3, 4, 5]


def test_ticks_count_from_a_late_first_frame(tmp_path: pathlib.Path) -> None:
    path = _write(tmp_path / "a.mkv", _counting(25), 10, first=37)
    clip = decode.decode_frames(path)
    assert _numbers(clip) == [0, 10, 20]
    np.testing.assert_allclose(clip.times, [0, 1, 2], atol=2e-3)


@pytest.mark.parametrize(("height", "width", "expected"), [(48, 80, (24, 40)), (80, 48, (40, 24))])
def test_resizes_the_short_side_and_crops_nothing(
    tmp_path: pathlib.Path, height: int, width: int, expected: tuple[int, int]
) -> None:
    path = _write(tmp_path / "a.mp4", _counting(2, height, width), 2)
    assert decode.decode_frames(path, short_side=24).frames[0].shape == (*expected, 3)


def test_bad_files_say_what_was_expected_and_got(tmp_path: pathlib.Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    whole = _write(tmp_path / "whole.mp4", _counting(30), 10).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (text, cut, tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(decode.VideoError) as caught:
            decode.decode_frames(path)
        message = str(caught.value)
        assert message.startswith(f"{path.name}: expected ")
        assert ", got " in message
        assert "\n" not in message


def test_sound_without_pictures_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(decode.VideoError, match=r"sound\.mp4: expected a video stream.*audio"):
        decode.decode_frames(path)


def test_a_damaged_packet_costs_frames_not_the_clip(tmp_path: pathlib.Path) -> None:
    path = _write(tmp_path / "a.avi", _counting(40), 10)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = bytes(60)
    path.write_bytes(data)
    clip = decode.decode_frames(path)
    assert _numbers(clip)[0] == 0
    assert len(clip.frames) >= 3


def test_rejects_senseless_arguments(tmp_path: pathlib.Path) -> None:
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps: expected"):
            decode.decode_frames(tmp_path, fps)
    with pytest.raises(ValueError, match="short_side: expected"):
        decode.decode_frames(tmp_path, short_side=0)


def test_jpeg_frames_and_quality(tmp_path: pathlib.Path) -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1]), axis=-1)
    path = _write(tmp_path / "a.mp4", frame[None], 1)
    (plain,) = decode.decode_frames(path).frames
    fine, coarse = (decode.decode_frames(path, jpeg_quality=q).frames[0] for q in (95, 20))
    assert fine[:2] == b"\xff\xd8"
    assert len(fine) > len(coarse)
    back = decode.decode_jpeg(fine)
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - plain).mean() < 3


needs_real_data = pytest.mark.skipif(
    "NCL_REAL_DATA" not in os.environ, reason="set NCL_REAL_DATA to the folder of real videos"
)


def _real(*parts: str) -> pathlib.Path:
    return pathlib.Path(os.environ["NCL_REAL_DATA"], *parts)


@needs_real_data
def test_odd_real_files_give_frames_or_a_reason() -> None:
    files = sorted(path for path in _real("videos").rglob("*.*") if path.is_file())
    assert len(files) >= 30
    for path in files:
        try:
            clip = decode.decode_frames(path, short_side=32)
        except decode.VideoError as error:
            assert str(error).startswith(path.name)  # noqa: PT017
            continue
        assert len(clip.frames) == len(clip.times) > 0
        assert clip.times[0] == 0
        assert (np.diff(clip.times) > 0).all()
        assert {min(frame.shape[:2]) for frame in clip.frames} == {32}


@needs_real_data
def test_rotation_metadata_turns_the_picture_upright() -> None:
    names = ("video_0", "video_180", "video_90", "video_270")
    clips = [decode.decode_frames(_real("videos", "decord", f"{name}.mov")) for name in names]
    assert [(clip.width, clip.height) for clip in clips] == [(568, 320)] * 2 + [(320, 568)] * 2
    raw = av.open(str(_real("videos", "decord", "video_90.mov")))
    with raw:
        stored = next(raw.decode(video=0)).to_ndarray(format="rgb24")
    # Asked to turn by -90 degrees: the stored left edge becomes the upper one.
    np.testing.assert_array_equal(clips[2].frames[0], stored[::-1].transpose(1, 0, 2))
