"""Every clip that was indexed plays: windows of what browsers do not play, transcoded."""

import contextlib
import fractions
import io
import os
import pathlib

import av
import numpy as np
import pytest

from ncl_jax.cli import index as cli
from ncl_jax.pretrained import random_weights
from ncl_jax.video import transcode
from ncl_jax.video.decode import VideoError
from ncl_jax.video_search.clips import ClipCache
from tests.video_search.build_test import served, until
from tests.video_search.gallery_test import write_video

GREYS = [20 * (second + 1) for second in range(12)]
KINDS = {
    "h264.mp4": ("libx264", "yuv420p", True), "vp8.webm": ("vp8", "yuv420p", True),
    "h264.mkv": ("libx264", "yuv420p", True), "xvid.avi": ("mpeg4", "yuv420p", False),
    "hevc.mkv": ("libx265", "yuv420p", False), "deep.mp4": ("libx264", "yuv420p10le", False),
    "wmv.wmv": ("wmv2", "yuv420p", False), "flash.flv": ("flv", "yuv420p", False),
    "mpeg.mpg": ("mpeg2video", "yuv420p", False), "stream.ts": ("libx264", "yuv420p", False),
    "moving.gif": ("gif", "rgb8", False),
}  # fmt: skip
"""Name, codec, pixels, and whether browsers play it as it is."""
GOES = "const p = arguments[0]; return p.currentTime > 0.2 && p.videoWidth > 0"


def write(path, sound=False):
    """One frame per grey level at 25 per second, each for a second, and a tone that grows."""
    codec, pixels, _ = KINDS[path.name]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        audio = container.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for number in range(25 * len(GREYS)):
            picture = np.full((48, 64, 3), GREYS[number // 25], np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = number, fractions.Fraction(1, 25)
            container.mux(stream.encode(frame))
            if audio:
                second = number / 25 / len(GREYS)
                phase = (np.arange(1920) + 1920 * number) / 20
                tone = second * np.sin(phase)[None].astype(np.float32)
                part = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
                part.sample_rate, part.pts = 48_000, 1920 * number
                container.mux(audio.encode(part))
        for each in filter(None, (stream, audio)):
            container.mux(each.encode())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_window_is_the_pictures_of_its_seconds(tmp_path, name):
    path = write(tmp_path / name)
    assert transcode.plays(path) is KINDS[name][2]
    with av.open(io.BytesIO(transcode.transcode(path, 4.0, 7.0))) as clip:
        (stream,) = clip.streams
        assert stream.codec_context.name == "h264"
        shown = [(frame.time, frame.to_ndarray(format="rgb24").mean()) for frame in
                 clip.decode(stream)]  # fmt: skip
    assert shown[0][0] == pytest.approx(0.0, abs=0.05)
    assert 2.8 < shown[-1][0] < 3.05
    for time, grey in shown:
        second = time + 4.0
        if 0.1 < second % 1 < 0.9:
            assert abs(grey - GREYS[int(second)]) < 12, (time, grey)


def test_sound_goes_along(tmp_path):
    path = write(tmp_path / "h264.mp4", sound=True)
    with av.open(io.BytesIO(transcode.transcode(path, 6.0, 9.0))) as clip:
        assert [stream.type for stream in clip.streams] == ["video", "audio"]
        parts = [(frame.time, np.std(frame.to_ndarray())) for frame in clip.decode(audio=0)]
    assert parts[0][0] == pytest.approx(0.0, abs=0.06)
    assert 2.8 < parts[-1][0] < 3.1
    off = [2**0.5 * loud - (time + 6.0) / len(GREYS) for time, loud in parts[4:-4]]
    assert np.median(np.abs(off)) < 0.015  # the codec is off by more now and then


def test_a_second_that_is_not_there_is_the_last_picture(tmp_path):
    path = write_video(tmp_path / "short.mp4", [90] * 3)
    with av.open(io.BytesIO(transcode.transcode(path, 40.0, 50.0))) as clip:
        assert len(list(clip.decode(video=0))) == 1
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match="expected a readable video"):
        transcode.transcode(tmp_path / "bad.mp4", 0.0, 1.0)


def test_clips_are_kept_up_to_a_size(tmp_path):
    path = write(tmp_path / "xvid.avi")
    with contextlib.closing(ClipCache(kept=1)) as cache:
        first = cache.path(path, 0.0, 2.0)
        made = first.stat().st_mtime_ns
        assert cache.path(path, 0.0, 2.0) == first
        assert first.stat().st_mtime_ns == made
        second = cache.path(path, 2.0, 4.0)
        assert (first.exists(), second.exists()) == (False, True)
        assert cache.path(path, 0.0, 2.0) == first
        assert first.exists()
        (tmp_path / "bad.avi").write_bytes(b"no video")
        with pytest.raises(VideoError, match="expected a readable video"):
            cache.path(tmp_path / "bad.avi", 0.0, 2.0)
        folder = first.parent
    assert not folder.exists()


@pytest.mark.slow
def test_every_kind_plays_in_a_browser(tmp_path, browser):
    (tmp_path / "videos").mkdir()
    for name in KINDS:
        write(tmp_path / "videos" / name)
    real = pathlib.Path(os.environ.get("NCL_REAL_DATA", "/nowhere"), "msvd", "videos")
    for path in sorted(real.glob("*.avi"))[:1]:
        (tmp_path / "videos" / "msvd.avi").write_bytes(path.read_bytes())
    count = len(list((tmp_path / "videos").iterdir()))
    weights = random_weights.write(tmp_path / "weights")
    line = ["build", str(tmp_path / "index"), "--videos", str(tmp_path / "videos"),
            "--checkpoint", weights, "--window", "20"]  # fmt: skip
    assert cli.main(line) == 0
    with served(tmp_path / "index") as page:
        browser.get(page + "?q=grey")
        cards = until(20, lambda: browser.find_elements("css selector", ".hit"))
        assert len(cards) == count
        height = cards[0].size["height"]
        for card in cards:
            card.find_element("css selector", ".play").click()
            player = until(30, lambda card=card: card.find_elements("css selector", "video"))[0]
            name = card.find_element("css selector", ".name").text
            until(60, lambda player=player: browser.execute_script(GOES, player))
            assert player.get_attribute("poster"), name
            assert card.size["height"] == height, name
