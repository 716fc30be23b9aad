"""Video files to frames, frames to JPEG bytes, and which frames a clip shows.

The only home of decoding. No JAX here, so that dataset builders and reader threads can use it
cheaply; PyAV and Pillow release the interpreter lock while they work.
"""

import io
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import av
import numpy as np
from PIL import Image

Frame = np.ndarray  # uint8 [height, width, 3], RGB

# A time stamp a rounding error short of a tick still belongs to that tick (seconds).
_TICK_SLACK = 1e-6


class VideoError(ValueError):
    """A file that gives no frames; the message is one line: file, expected, got."""


class Clip(NamedTuple):
    """Frames of one video file at a steady rate.

    Attributes:
      frames: T images, uint8 [height, width, 3] RGB, upright.
      times: float32 [T], seconds since the clip's first frame, strictly increasing.
      source_fps: frames per second of the file, 0.0 where the container does not say.
      width: of the upright source picture in pixels, before resizing.
      height: likewise.
    """

    frames: list[Frame]
    times: np.ndarray
    source_fps: float
    width: int
    height: int


def decode_frames(
    path: str | os.PathLike[str], fps: float = 1.0, short_side: int | None = None
) -> Clip:
    """Decodes a file once, forward, and keeps the first frame at or after each `1 / fps` tick.

    Ticks count from the file's own first frame, wherever its clock starts. Rotation metadata is
    applied. A damaged packet is skipped, as players do; a file without any frame is an error.

    Args:
      path: video file in any container FFmpeg reads.
      fps: ticks per second, > 0. At 1.0 these are the first frames of each second.
      short_side: pixels of the shorter side after a bicubic resize (nothing is cropped), or
        None to keep the size.

    Returns:
      The clip; with a source slower than `fps` every frame appears once.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
      ValueError: `fps` or `short_side` is not positive.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise ValueError(f"fps: expected a number > 0, got {fps}")
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side: expected at least 1 pixel, got {short_side}")
    name = pathlib.PurePath(path).name
    try:
        with av.open(os.fspath(path)) as container:
            clip = _read(container, fps, short_side)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{name}: expected a readable video, got {_reason(error)}") from error
    except _NoFrames as error:
        raise VideoError(f"{name}: expected {error}") from error
    return clip


class _NoFrames(Exception):
    """Carries 'what was expected, got what' up to where the file's name is known."""


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())


def _read(container: av.container.InputContainer, fps: float, short_side: int | None) -> Clip:
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise _NoFrames(f"a video stream, got only {', '.join(kinds)}")
    stream = container.streams.video[0]
    # Parallelism is over clips; a thread team per file only slows short ones down.
    stream.thread_type = "NONE"
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    frames: list[Frame] = []
    times: list[float] = []
    width = height = 0
    for time, picture in _at_ticks(_timed(container, stream, rate), fps):
        image = _upright(picture)
        height, width = image.shape[:2]
        frames.append(_resize(image, short_side))
        times.append(time)
    if not frames:
        raise _NoFrames("at least one decodable frame, got none")
    return Clip(frames, np.array(times, np.float32), rate, width, height)


def _timed(
    container: av.container.InputContainer, stream: av.VideoStream, rate: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (seconds since the first frame, picture), times strictly increasing."""
    start, last = None, -1.0
    for index, picture in enumerate(_pictures(container, stream)):
        if picture.time is not None:
            start = picture.time if start is None else start
            time = picture.time - start
        else:  # raw streams carry no clock: count frames instead
            time = index / (rate or 25.0)
        if time > last:
            last = time
            yield time, picture


def _pictures(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _at_ticks(
    pictures: Iterator[tuple[float, av.VideoFrame]], fps: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    tick = 0
    for time, picture in pictures:
        reached = math.floor((time + _TICK_SLACK) * fps)
        if reached >= tick:
            tick = reached + 1
            yield time, picture


def _upright(picture: av.VideoFrame) -> Frame:
    """RGB pixels turned counter-clockwise by the rotation the container asks for."""
    image = picture.to_ndarray(format="rgb24")
    return np.rot90(image, round(picture.rotation / 90) % 4)


def _resize(image: Frame, short_side: int | None) -> Frame:
    height, width = image.shape[:2]
    if short_side is None or min(height, width) == short_side:
        return np.ascontiguousarray(image)
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def encode_jpeg(frames: Sequence[Frame], quality: int) -> list[bytes]:
    """Compresses RGB frames, uint8 [height, width, 3], with JPEG quality 1 to 95."""
    return [_to_jpeg(frame, quality) for frame in frames]


def _to_jpeg(frame: Frame, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> Frame:
    """The inverse of `encode_jpeg` for one frame, up to JPEG's loss."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def choose_frames(
    count: int, limit: int, how: Literal["uniform", "head", "tail"] = "uniform"
) -> np.ndarray:
    """Picks at most `limit` of `count` frame positions, in order.

    Args:
      count: frames there are, >= 0.
      limit: frames wanted, >= 1.
      how: 'uniform' spreads integer positions evenly from the first to the last frame, 'head'
        takes the first ones, 'tail' the last ones.

    Returns:
      int64 [min(count, limit)], strictly increasing; all positions if `count <= limit`.
    """
    if limit < 1:
        raise ValueError(f"limit: expected at least 1 frame, got {limit}")
    if how not in ("uniform", "head", "tail"):
        raise ValueError(f"how: expected 'uniform', 'head' or 'tail', got {how!r}")
    if count <= limit or how == "head":
        return np.arange(min(count, limit))
    if how == "tail":
        return np.arange(count - limit, count)
    return np.linspace(0, count - 1, num=limit, dtype=np.int64)
