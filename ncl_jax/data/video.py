"""Video files to frames, and frames to JPEG bytes.

The only home of decoding, in parts: `video_file` opens, `video_packets` and `video_plan` decode,
`video_clock` says when, `video_moment` finds a second, `video_orientation`, `video_colour` and
`video_picture` say how it looks. No JAX here, so that dataset builders and reader threads can use
it cheaply; PyAV and Pillow release the interpreter lock while they work.
"""

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np

from ncl_jax.data import video_moment, video_packets, video_plan
from ncl_jax.data.video_clock import Clock, at_ticks, rate, timed
from ncl_jax.data.video_colour import Look, check_look
from ncl_jax.data.video_file import SUFFIXES, BadVideoError, VideoError, file_name, opened
from ncl_jax.data.video_orientation import Seen
from ncl_jax.data.video_picture import Form, Frame, Pictures, Shape
from ncl_jax.data.video_picture import from_jpeg as decode_jpeg
from ncl_jax.errors import InputError

__all__ = [
    "SUFFIXES", "VERSION", "Clip", "Frame", "Look", "Probe", "VideoError", "begin_of",
    "check_look", "decode_frames", "decode_jpeg", "file_name", "jpeg_at", "probe",
]  # fmt: skip

VERSION = 2
"""Of the rules by which frames are chosen and shown; 1 had neither clocks that change, the order of
showing in AVI files, mirrors, nor the choice of a stream."""


_REMARKS = 5


class Clip(NamedTuple):
    """Frames of one video file at a steady rate.

    Attributes:
      frames: T images, upright: uint8 [height, width, 3] RGB, or JPEG bytes.
      times: float32 [T], seconds since the clip's first frame, strictly increasing.
      source_fps: frames per second of the file, 0.0 where the container does not say.
      width: of the first upright source picture in pixels, before resizing; square ones if the
        look is `shown`.
      height: likewise.
      remarks: a sentence for everything of the file that was ignored, set right or left out.
    """

    frames: list[Any]
    times: np.ndarray
    source_fps: float
    width: int
    height: int
    remarks: tuple[str, ...] = ()


class Probe(NamedTuple):
    """What a file says of itself, after its first frame was decoded.

    Attributes:
      codec: FFmpeg's name.
      source_fps: frames per second, 0.0 where the container does not say.
      seconds: duration as the header states it, 0.0 where it does not. Not checked.
      width: of the upright picture in stored pixels.
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
    look: Look = "stored",
) -> Clip:
    """Keeps the first frame at or after each `1 / fps` tick of a file.

    Ticks count from the file's own first frame, wherever its clock starts; where the clock goes
    back, leaps or begins anew, the time line goes on. A damaged packet is skipped, as players do,
    and a frame that is flagged corrupt is kept only if there is no sound one before the next tick;
    a file without any frame is an error. Headers are not believed: only frames that were decoded
    count. Where the packets of the file tell which frames these are, only those and the ones they
    depend on are decoded; the result is the same (`tests/video_files_test.py` compares them).

    Args:
      path: video file in any container FFmpeg reads; of several streams `video_file` chooses.
      fps: ticks per second, > 0. At 1.0 these are the first frames of each second.
      short_side: pixels of the shorter side after a bicubic resize (nothing is cropped), or
        None to keep the size.
      jpeg_quality: 1 to 95 compresses each frame as it comes, so that a long file needs little
        memory; None keeps pixels.
      look: `stored` for pixels and colours as the published pipelines read them, `shown` for what
        a player shows: square pixels, BT.709 for untagged HD, HDR tone-mapped (`video_colour`).
        Display matrices that are orientations are applied in both.

    Returns:
      The clip; with a source slower than `fps` every frame appears once.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
      InputError: an argument is out of range.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise InputError(f"fps: expected a number > 0, got {fps}")
    if short_side is not None and short_side < 1:
        raise InputError(f"short_side: expected at least 1 pixel, got {short_side}")
    check_look(look)
    form = Form(short_side, jpeg_quality, look)
    return _decode_planned(path, fps, form) or _decode_plainly(path, fps, form)


def probe(path: str | os.PathLike[str], deep: bool = False) -> Probe:
    """Opens a file and decodes its first frame, or all of them if `deep`.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
    """
    damaged: list[str] = []
    with opened(path) as stream:
        pictures = video_packets.decode_all(stream, Clock(), damaged)
        first = next(pictures, None)
        if first is None:
            raise _no_frame(damaged)
        width, height = Pictures(stream, Form()).shape(first)
        return Probe(
            stream.codec_context.name,
            rate(stream),
            (stream.container.duration or 0) / av.time_base,
            width,
            height,
            1 + sum(1 for _ in pictures) if deep else 1,
            len(damaged) if deep else 0,
        )


def jpeg_at(
    path: str | os.PathLike[str],
    seconds: float,
    short_side: int,
    jpeg_quality: int,
    look: Look = "shown",
) -> bytes:
    """The first sound frame at or after `seconds` from the file's first one, or the last there is.

    It is the one that `decode_frames` would keep, by a shorter way (`video_moment`): quick in a
    long file.

    Raises:
      VideoError: as `decode_frames`.
    """
    form = Form(short_side, jpeg_quality, look)

    def jpeg(stream: av.VideoStream, picture: av.VideoFrame, first: Seen) -> bytes:
        return Pictures(stream, form, first).image(picture)[0]

    return video_moment.picture_at(path, seconds, jpeg)


def begin_of(path: str | os.PathLike[str]) -> float:
    """What a file's own clock, which players show, says at its first frame, in seconds >= 0.

    Raises:
      VideoError: as `decode_frames`.
    """
    return max(0.0, video_moment.beginning_of(path).seconds)


def _decode_plainly(path: str | os.PathLike[str], fps: float, form: Form) -> Clip:
    with opened(path) as stream:
        clock, damaged, remarks = Clock(), list[str](), list[str]()
        pictures = timed(stream, video_packets.decode_all(stream, clock, damaged), remarks)
        clip = _collect(stream, at_ticks(pictures, fps), form)
        if clip is None:
            raise _no_frame(damaged)
        if damaged:
            remarks.append(f"damaged packets that are left out: {len(damaged):,}")
        return clip._replace(remarks=(*_first(clock.remarks), *remarks, *clip.remarks))


def _decode_planned(path: str | os.PathLike[str], fps: float, form: Form) -> Clip | None:
    """The clip from the packets it needs; None if these are unknown or do not give it."""
    came: list[int] = []

    def collect(stream: av.VideoStream, plan: video_plan.Plan) -> Clip | None:
        pictures = _noted(video_plan.decode_planned(stream, plan), came)
        return _collect(stream, timed(stream, pictures, []), form)

    with opened(path) as stream:
        if not video_plan.can_plan(stream):
            return None
        try:
            plan = video_plan.make_plan(stream, lambda times: at_ticks(times, fps))
            if plan is None:
                return None
            if plan.packets is not None:
                clip = collect(stream, plan)
            else:
                with opened(path) as again:
                    clip = collect(again, plan)
        except (av.FFmpegError, VideoError, BadVideoError):
            return None
    return clip if came == plan.wanted else None


def _noted(pictures: Iterable[av.VideoFrame], came: list[int]) -> Iterator[av.VideoFrame]:
    for picture in pictures:
        came.append(picture.pts)
        yield picture


def _collect(
    stream: av.VideoStream, pictures: Iterable[tuple[float, av.VideoFrame]], form: Form
) -> Clip | None:
    """None without any frame."""
    maker, shapes = Pictures(stream, form), list[Shape]()
    frames, times = list[Any](), list[float]()
    for time, picture in pictures:
        image, shape = maker.image(picture)
        frames.append(image)
        times.append(time)
        shapes.append(shape)
    if not frames:
        return None
    return Clip(frames, np.array(times, np.float32), rate(stream), *shapes[0], tuple(maker.remarks))


def _first(remarks: list[str]) -> list[str]:
    """The first ones: a clock can change in every packet of a damaged file."""
    rest = len(remarks) - _REMARKS
    return remarks if rest <= 0 else [*remarks[:_REMARKS], f"{rest:,} more remarks of this kind"]


def _no_frame(damaged: list[str]) -> BadVideoError:
    why = f" ({damaged[0]})" if damaged else ""
    return BadVideoError(f"at least one decodable frame, got none{why}")
