"""Video files to frames, and frames to JPEG bytes.

The only home of decoding. No JAX here, so that dataset builders and reader threads can use it
cheaply; PyAV and Pillow release the interpreter lock while they work.
"""

import contextlib
import io
import math
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import av
import numpy as np
from PIL import Image

from ncl_jax.data import video_packets
from ncl_jax.errors import InputError, reason

Frame = np.ndarray  # uint8 [height, width, 3], RGB
_KINDS = "3gp avi flv gif m4v mkv mov mp4 mpeg mpg ts webm wmv"
SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
"""File names that are taken for videos, in lower case."""

_Item = TypeVar("_Item")

# A time stamp a rounding error short of a tick still belongs to that tick (seconds).
_TICK_SLACK = 1e-6
# Files are not trusted: a playlist under a video's name must not open other files or addresses.
_DEMUXERS = "3gp,asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp4,mpeg,mpegts,mpegvideo,ogg,webm"
_CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
# Titles in any encoding: PyAV 19 accepts them by itself and no longer has the argument.
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
# A picture of 2 x 16,000 pixels would grow into gigabytes when its short side is resized.
_MAX_ASPECT = 64


class VideoError(InputError):
    """A file that gives no frames; the message is one line: file, expected, got.

    Attributes:
      reason: the message without the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(f"{file_name(path)}: {reason}")
        self.reason = reason


class Clip(NamedTuple):
    """Frames of one video file at a steady rate.

    Attributes:
      frames: T images, upright: uint8 [height, width, 3] RGB, or JPEG bytes.
      times: float32 [T], seconds since the clip's first frame, strictly increasing.
      source_fps: frames per second of the file, 0.0 where the container does not say.
      width: of the upright source picture in pixels, before resizing.
      height: likewise.
    """

    frames: list[Any]
    times: np.ndarray
    source_fps: float
    width: int
    height: int


class Probe(NamedTuple):
    """What a file says of itself, after its first frame was decoded.

    Attributes:
      codec: FFmpeg's name.
      source_fps: frames per second, 0.0 where the container does not say.
      seconds: duration as the header states it, 0.0 where it does not. Not checked.
      width: of the upright picture in pixels.
      height: likewise.
      frames: pictures decoded, 1 unless the probe was deep.
      damaged: packets that could not be decoded; 0 unless the probe was deep.
    """

    codec: str
    source_fps: float
    seconds: float
    width: int
    height: int
    frames: int
    damaged: int


def decode_frames(
    path: str | os.PathLike[str],
    fps: float = 1.0,
    short_side: int | None = None,
    jpeg_quality: int | None = None,
) -> Clip:
    """Keeps the first frame at or after each `1 / fps` tick of a file.

    Ticks count from the file's own first frame, wherever its clock starts. Rotation metadata is
    applied. A damaged packet is skipped, as players do; a file without any frame is an error.
    Headers are not believed: only frames that were decoded count. Where the packets of the file
    tell which frames these are, only those and the ones they depend on are decoded; the result is
    the same (`tests/video_files_test.py` compares them).

    Args:
      path: video file in any container FFmpeg reads.
      fps: ticks per second, > 0. At 1.0 these are the first frames of each second.
      short_side: pixels of the shorter side after a bicubic resize (nothing is cropped), or
        None to keep the size.
      jpeg_quality: 1 to 95 compresses each frame as it comes, so that a long file needs little
        memory; None keeps pixels.

    Returns:
      The clip; with a source slower than `fps` every frame appears once.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
      ValueError: an argument is out of range.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise InputError(f"fps: expected a number > 0, got {fps}")
    if short_side is not None and short_side < 1:
        raise InputError(f"short_side: expected at least 1 pixel, got {short_side}")
    return _decode_planned(path, fps, short_side, jpeg_quality) or _decode_plainly(
        path, fps, short_side, jpeg_quality
    )


def probe(path: str | os.PathLike[str], deep: bool = False) -> Probe:
    """Opens a file and decodes its first frame, or all of them if `deep`.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
    """
    damaged: list[str] = []
    with _opened(path) as stream:
        pictures = video_packets.decode_all(stream, damaged)
        first = next(pictures, None)
        if first is None:
            raise _BadVideoError("at least one decodable frame, got none")
        height, width = _upright(first).shape[:2]
        frames = 1 + sum(1 for _ in pictures) if deep else 1
        return Probe(
            stream.codec_context.name,
            _rate(stream),
            (stream.container.duration or 0) / av.time_base,
            width,
            height,
            frames,
            len(damaged) if deep else 0,
        )


def jpeg_at(
    path: str | os.PathLike[str], seconds: float, short_side: int, jpeg_quality: int
) -> bytes:
    """The first frame at or after `seconds` from the file's first one, or the last there is.

    Reads from the key frame before it: quick in a long file.

    Raises:
      VideoError: as `decode_frames`.
    """
    with _opened(path) as stream:
        start, tick = stream.start_time or 0, float(stream.time_base or 1)
        with contextlib.suppress(av.FFmpegError):  # no index: read from the beginning
            stream.container.seek(start + math.floor(seconds / tick), stream=stream)
        picture = None
        for picture in video_packets.decode_all(stream):
            if picture.pts is None or (picture.pts - start) * tick >= seconds - _TICK_SLACK:
                break
        if picture is None:
            raise _BadVideoError("at least one decodable frame, got none")
        return _to_jpeg(_resize(Image.fromarray(_upright(picture)), short_side), jpeg_quality)


def begin_of(path: str | os.PathLike[str]) -> float:
    """What a file's own clock, which players show, says at its first frame, in seconds >= 0.

    Raises:
      VideoError: as `decode_frames`.
    """
    with _opened(path) as stream:
        first = next(video_packets.decode_all(stream), None)
        if first is None:
            raise _BadVideoError("at least one decodable frame, got none")
        return max(0.0, float((first.pts or 0) * (stream.time_base or 0)))


class _BadVideoError(Exception):
    """Carries 'what was expected, got what' up to where the file's name is known."""


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[av.VideoStream]:
    """The first video stream; whatever goes wrong inside is a VideoError with the file's name."""
    try:
        with av.open(
            os.fspath(path), container_options=_CONTAINER_OPTIONS, **_METADATA
        ) as container:
            streams = container.streams
            if not streams.video:
                kinds = sorted({stream.type for stream in streams}) or ["nothing"]
                raise _BadVideoError(f"a video stream, got only {', '.join(kinds)}")
            # Parallelism is over clips; a thread team per file only slows short ones down.
            streams.video[0].thread_type = "NONE"
            yield streams.video[0]
    except (av.FFmpegError, OSError, MemoryError) as error:
        raise VideoError(path, f"expected a readable video, got {reason(error)}") from error
    except video_packets.EncryptedError as error:
        raise VideoError(path, "expected a readable video, got an encrypted one") from error
    except _BadVideoError as error:
        raise VideoError(path, f"expected {error}") from error


def file_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path, fit to be printed on one line whatever it holds."""
    return "".join(c if c.isprintable() else "?" for c in pathlib.PurePath(path).name)


def _decode_plainly(
    path: str | os.PathLike[str], fps: float, short_side: int | None, jpeg_quality: int | None
) -> Clip:
    with _opened(path) as stream:
        pictures = _timed(stream, video_packets.decode_all(stream))
        return _collect(stream, _at_ticks(pictures, fps), short_side, jpeg_quality)


def _decode_planned(
    path: str | os.PathLike[str], fps: float, short_side: int | None, jpeg_quality: int | None
) -> Clip | None:
    """The clip from the packets it needs; None if these are unknown or do not give it."""
    came: list[int] = []

    def collect(stream: av.VideoStream, plan: video_packets.Plan) -> Clip:
        pictures = _noted(video_packets.decode_planned(stream, plan), came)
        return _collect(stream, _timed(stream, pictures), short_side, jpeg_quality)

    with _opened(path) as stream:
        if not video_packets.can_plan(stream):
            return None
        try:
            plan = video_packets.make_plan(stream, lambda times: _at_ticks(times, fps))
            if plan is None:
                return None
            if plan.packets is not None:
                clip = collect(stream, plan)
            else:
                with _opened(path) as again:
                    clip = collect(again, plan)
        except (av.FFmpegError, VideoError, _BadVideoError):
            return None
    return clip if came == plan.wanted else None


def _noted(pictures: Iterator[av.VideoFrame], came: list[int]) -> Iterator[av.VideoFrame]:
    for picture in pictures:
        came.append(picture.pts)
        yield picture


def _collect(
    stream: av.VideoStream,
    pictures: Iterator[tuple[float, av.VideoFrame]],
    short_side: int | None,
    jpeg_quality: int | None,
) -> Clip:
    frames: list[Any] = []
    times: list[float] = []
    width = height = 0
    for time, picture in pictures:
        image = _upright(picture)
        height, width = image.shape[:2]
        if max(height, width) > _MAX_ASPECT * min(height, width):
            raise _BadVideoError(f"sides within 1:{_MAX_ASPECT}, got {width} x {height} pixels")
        small = _resize(Image.fromarray(image), short_side)
        frames.append(np.asarray(small) if jpeg_quality is None else _to_jpeg(small, jpeg_quality))
        times.append(time)
    if not frames:
        raise _BadVideoError("at least one decodable frame, got none")
    return Clip(frames, np.array(times, np.float32), _rate(stream), width, height)


def _rate(stream: av.VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _timed(
    stream: av.VideoStream, pictures: Iterator[av.VideoFrame]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (seconds since the first frame, picture), times strictly increasing."""
    rate = _rate(stream) or 25.0
    start, last = None, -1.0
    for index, picture in enumerate(pictures):
        if picture.pts is not None:
            start = picture.pts if start is None else start
            time = video_packets.seconds(picture.pts - start, stream)
        else:  # raw streams carry no clock: count frames instead
            time = index / rate
        if time > last:
            last = time
            yield time, picture


def _at_ticks(timed: Iterable[tuple[float, _Item]], fps: float) -> Iterator[tuple[float, _Item]]:
    tick = 0
    for time, item in timed:
        reached = math.floor((time + _TICK_SLACK) * fps)
        if reached >= tick:
            tick = reached + 1
            yield time, item


def _upright(picture: av.VideoFrame) -> Frame:
    """RGB pixels turned counter-clockwise by the rotation the container asks for."""
    image = picture.to_ndarray(format="rgb24")
    return np.rot90(image, round(picture.rotation / 90) % 4)


def _resize(image: Image.Image, short_side: int | None) -> Image.Image:
    """The long side is cut down to whole pixels, as CLIP's own preprocessing does."""
    short = min(image.size)
    if short_side is None or short == short_side:
        return image
    width, height = (short_side * side // short for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _to_jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> Frame:
    """RGB pixels, uint8 [height, width, 3], of one JPEG image."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
