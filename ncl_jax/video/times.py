"""When each picture is shown, and which are the first ones at or after the ticks.

Pictures whose packets state no time of showing, as in an AVI, are shown in their order, one frame
time after the other. The rules are those of FFmpeg's command.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import av

_Item = TypeVar("_Item")

# A time stamp a rounding error short of a tick still belongs to that tick (seconds).
TICK_SLACK = 1e-6


def timed(
    stream: av.VideoStream, pictures: Iterable[av.VideoFrame], remarks: list[str]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (seconds since the first picture, picture), times strictly increasing.

    Args:
      stream: of the pictures.
      pictures: in the order of showing; a `clock.Clock` has set the time stamps of their
        packets.
      remarks: a sentence is added if pictures were left out.
    """
    stamps, seconds = Stamps(stream), seconds_of(stream)
    start, last, late = None, -1.0, 0
    for picture in pictures:
        stamp = stamps.of(picture)
        start = stamp if start is None else start
        time = seconds(stamp - start)
        if time > last:
            last = time
            yield time, picture
        else:
            late += 1
    if late:
        remarks.append(f"frames that come too late to be shown: {late:,}")


class Stamps:
    """The best time stamps of pictures in the order of showing, in units of the stream.

    The time of showing if the file states it, else that of decoding, else one frame after the
    picture before. Of two that are stated, the one that went back less often so far; FFmpeg
    chooses in the same way (`guess_correct_pts`).

    Attributes:
      known: whether there was a picture before.
    """

    def __init__(self, stream: av.VideoStream):
        self.known = False
        self._step = step(stream)
        self._next = 0
        self._last_pts = self._last_dts = -math.inf
        self._faults = 0

    def of(self, picture: av.VideoFrame) -> int:
        pts, dts = picture.pts, picture.dts
        if dts is not None:
            self._faults += dts <= self._last_dts
        self._last_dts = _or(dts, pts, self._last_dts)
        if pts is not None:
            self._faults -= pts <= self._last_pts
        self._last_pts = _or(pts, dts, self._last_pts)
        if pts is not None and (self._faults >= 0 or dts is None):
            stamp = pts
        else:
            stamp = self._next if dts is None else dts
        self._next = stamp + (picture.duration or self._step)
        self.known = True
        return stamp


def at_ticks(timed: Iterable[tuple[float, _Item]], fps: float) -> Iterator[tuple[float, _Item]]:
    """The first item at or after each `1 / fps` tick.

    An item that is a corrupt picture is chosen only if there is no sound one before the next tick.

    Args:
      timed: (seconds, item) in order.
      fps: ticks per second.
    """
    tick, spare = 0, None
    for time, item in timed:
        reached = math.floor((time + TICK_SLACK) * fps)
        if spare is not None and reached > tick:
            yield spare
            tick, spare = tick + 1, None
        if reached < tick:
            continue
        tick = reached
        if getattr(item, "is_corrupt", False):
            spare = spare or (time, item)
        else:
            yield time, item
            tick, spare = reached + 1, None
    if spare is not None:
        yield spare


def rate(stream: av.VideoStream) -> float:
    """Frames per second, 0.0 where the container does not say."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def seconds_of(stream: av.VideoStream) -> Callable[[int], float]:
    """What turns time stamps of the stream into seconds."""
    if not stream.time_base:
        return lambda stamp: 0.0
    numerator, denominator = stream.time_base.numerator, stream.time_base.denominator
    return lambda stamp: stamp * numerator / denominator


def step(stream: av.VideoStream) -> int:
    """One frame in units of the stream; raw streams carry no rate, and are shown at 25."""
    if not stream.time_base:
        return 1
    return max(1, round(1 / ((rate(stream) or 25.0) * stream.time_base)))


def _or(*stamps: float | None) -> float:
    return next(stamp for stamp in stamps if stamp is not None)
