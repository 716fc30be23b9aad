"""A picture or a clip as an example: what is taken for which, and what is refused."""

import contextlib
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from ncl_jax.video.decode import VideoError, decode_frames, decode_jpeg
from ncl_jax.video.example import FORMATS, decode_example
from ncl_jax.video.worker import VideoWorker, unpack
from tests.video_search.gallery_test import write_video

READ = {"fps": 1.0, "short_side": 32, "jpeg_quality": 90}
HALVES = np.zeros((60, 90, 3), np.uint8)
HALVES[:30] = 250
"""White above, black below."""


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_a_clip_of_one_frame(tmp_path, kind):
    path = tmp_path / "no suffix needed"
    Image.fromarray(HALVES).save(path, kind)
    for asked in ("picture", "either"):
        clip = decode_example(path, asked, **READ)
        (frame,) = clip.frames
        pixels = decode_jpeg(frame)
        assert pixels.shape == (32, 48, 3)
        assert pixels[:12].mean() > 230
        assert pixels[-12:].mean() < 20
        assert (clip.times.tolist(), clip.width, clip.height) == ([0.0], 90, 60)


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(HALVES).save(tmp_path / "a.jpg", exif=exif)
    (frame,) = decode_example(tmp_path / "a.jpg", "picture", **READ).frames
    assert decode_jpeg(frame)[:12].mean() < 20


def test_a_clip_is_read_as_videos_are(tmp_path):
    path = write_video(tmp_path / "a.mp4", [20, 120, 220])
    wanted = decode_frames(path, look="shown", **READ).frames
    for kind in ("clip", "either"):
        assert decode_example(path, kind, **READ).frames == wanted
    with pytest.raises(VideoError, match=r"expected a picture \(JPEG, .*give a video by --clip"):
        decode_example(path, "picture", **READ)


def test_a_gif_that_moves_is_a_clip_unless_a_picture_is_asked_for(tmp_path):
    first, *rest = (Image.new("RGB", (64, 48), (grey,) * 3) for grey in (10, 120, 240))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=1000)
    assert len(decode_example(tmp_path / "a.gif", "either", **READ).frames) == 3
    assert len(decode_example(tmp_path / "a.gif", "picture", **READ).frames) == 1
    assert len(decode_example(tmp_path / "a.gif", "clip", **READ).frames) == 3


def cut_short(path):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:5000])


def too_large(path):
    """The header of a PNG of 40,000 x 40,000 pixels."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut_short, "expected a picture .* got "), (too_large, "expected a picture .* got "),
        (lambda path: Image.new("RGB", (1, 500)).save(path, "PNG"), "sides within 1:64"),
        (lambda path: path.write_bytes(b"junk"), "expected a readable video, got"),
        (lambda path: path.write_bytes(b""), "expected a readable video, got"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(tmp_path, spoil, said):
    spoil(tmp_path / "a")
    with pytest.raises(VideoError, match=said) as raised:
        decode_example(tmp_path / "a", "either", **READ)
    assert "\n" not in str(raised.value)


def test_the_process_with_a_time_limit_does_it(tmp_path):
    Image.fromarray(HALVES).save(tmp_path / "a.png")
    (tmp_path / "b").write_bytes(b"junk")
    with contextlib.closing(VideoWorker(60)) as worker:
        clip = unpack(worker.decode_example(tmp_path / "a.png", "either", look="shown", **READ))
        assert clip.frames == decode_example(tmp_path / "a.png", "either", **READ).frames
        with pytest.raises(VideoError, match="b: expected a readable video"):
            worker.decode_example(tmp_path / "b", "either", look="shown", **READ)
