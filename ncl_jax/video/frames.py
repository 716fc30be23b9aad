"""The frames of a file at a steady rate: from all of its packets, or from the needed ones alone."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np

from ncl_jax.video import packets
from ncl_jax.video.clock import Clock
from ncl_jax.video.container import BadVideoError, VideoError, opened
from ncl_jax.video.picture import Form, Pictures, Shape
from ncl_jax.video.plan import DecodePlan, can_plan, decode_plan, make_plan
from ncl_jax.video.times import at_ticks, rate, timed

# Sentences about changes of the clock that are written out.
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


def decode_plainly(path: str | os.PathLike[str], fps: float, form: Form) -> Clip:
    """The clip from all packets of the file.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
    """
    with opened(path) as stream:
        clock, damaged, remarks = Clock(), list[str](), list[str]()
        pictures = timed(stream, packets.decode_all(stream, clock, damaged), remarks)
        clip = _collect(stream, at_ticks(pictures, fps), form)
        if clip is None:
            raise no_frame(damaged)
        if damaged:
            remarks.append(f"damaged packets that are left out: {len(damaged):,}")
        return clip._replace(remarks=(*_first(clock.remarks), *remarks, *clip.remarks))


def decode_planned(path: str | os.PathLike[str], fps: float, form: Form) -> Clip | None:
    """The same clip from the packets it needs; None if these are unknown or do not give it.

    Raises:
      VideoError: the file cannot be opened.
    """
    came: list[int | None] = []

    def collect(stream: av.VideoStream, plan: DecodePlan) -> Clip | None:
        pictures = _noted(decode_plan(stream, plan), came)
        return _collect(stream, timed(stream, pictures, []), form)

    with opened(path) as stream:
        if not can_plan(stream):
            return None
        try:
            plan = make_plan(stream, lambda times: at_ticks(times, fps))
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


def _noted(pictures: Iterable[av.VideoFrame], came: list[int | None]) -> Iterator[av.VideoFrame]:
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


def no_frame(damaged: list[str]) -> BadVideoError:
    """What is wrong with a file that gives no frame, by the reasons of its damaged packets."""
    why = f" ({damaged[0]})" if damaged else ""
    return BadVideoError(f"at least one decodable frame, got none{why}")
