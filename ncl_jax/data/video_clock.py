"""When each picture is shown: one time line, whatever the clock of the file does.

Packets of a file that was joined from several, or in which a new programme begins, have a clock
that goes back or leaps; `Clock` lets them go on where the ones before have ended. Pictures whose
packets state no time of showing, as in an AVI, are shown in their order, `Stamps`. The rules are
those of FFmpeg's command, so that both show the same picture at the same second.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import av

_Item = TypeVar("_Item")

# A time stamp a rounding error short of a tick still belongs to that tick (seconds).
TICK_SLACK = 1e-6
_BACK = 0.1
"""Seconds by which a clock has to go back to be another clock, and at least `_REORDERED` frames in
a container that is not made to be joined: what FFmpeg makes up there goes back in every group."""
_REORDERED = 16
_AHEAD = 10.0
"""Seconds that make a leap another clock in a container that is made to be joined; elsewhere it is
a pause."""
MAY_LEAP = 0x0200
"""Flag of containers that are made to be joined (FFmpeg's AVFMT_TS_DISCONT)."""


class Clock:
    """Gives packets, in the order of the file, one time line.

    Attributes:
      changed: whether the clock was another one somewhere; if not, the time stamps are those of the
        file.
      remarks: a sentence for every change, and for what else was met on the way.
    """

    def __init__(self) -> None:
        self.changed = False
        self.remarks: list[str] = []
        self._stream: av.VideoStream | None = None
        self._entered = False
        self._unit, self._back, self._ahead = 1.0, 0.0, 0.0
        self._offset, self._first = 0, 0
        self._last: int | None = None
        self._next = 0
        self._next_shown = -math.inf

    def changes(self, packet: av.Packet) -> bool:
        """Whether `set` would find that the packet's clock is another one."""
        if self._last is None or packet.dts is None:
            return False
        return packet.stream is not self._stream or self._leaps(packet.dts + self._offset)

    def set(self, packet: av.Packet) -> None:
        """Moves the packet's time stamps if its clock is another than that of the one before."""
        if packet.stream is not self._stream:
            self._enter(packet.stream)
        stamp = packet.pts if packet.dts is None and self._entered else packet.dts
        if stamp is not None:
            stamp += self._offset
            if self._last is None:
                self._first = stamp
            elif self._entered or self._leaps(stamp):
                stamp = self._follow(stamp, packet)
            self._entered = False
            if packet.dts is not None:
                self._last, self._next = stamp, stamp + (packet.duration or step(packet.stream))
        if self._offset:
            packet.dts = None if packet.dts is None else packet.dts + self._offset
            packet.pts = None if packet.pts is None else packet.pts + self._offset
        if packet.pts is not None:
            self._next_shown = max(self._next_shown, packet.pts + (packet.duration or 0))

    def _enter(self, stream: av.VideoStream) -> None:
        self._entered = self._stream is not None
        self._stream, before = stream, self._unit
        self._unit = seconds_of(stream)(1) or 1.0
        may_leap = stream.container.format.flags & MAY_LEAP
        self._back = max(_BACK / self._unit, 0 if may_leap else _REORDERED * step(stream))
        self._ahead = _AHEAD / self._unit if may_leap else math.inf
        if self._entered and before != self._unit:  # in units of the new stream from here on
            self._first, self._next = (
                round(stamp * before / self._unit) for stamp in (self._first, self._next)
            )

    def _leaps(self, stamp: int) -> bool:
        assert self._last is not None
        return stamp < self._last - self._back or stamp - self._next > self._ahead

    def _follow(self, stamp: int, packet: av.Packet) -> int:
        """Moves the clock so that the packet follows the one before; its time stamp then.

        Where joining was not foreseen, FFmpeg makes up wrong decoding times behind it.
        """
        self.changed = True
        what = "another programme begins" if self._entered else "the clock changes"
        at = (self._next - self._first) * self._unit
        self.remarks.append(f"{what} at {at:.1f} s; the time line goes on")
        move = self._next - stamp
        if self._ahead == math.inf and packet.pts is not None and self._next_shown > -math.inf:
            move = max(move, int(self._next_shown) - packet.pts - self._offset)
        self._offset += move
        return stamp + move


def timed(
    stream: av.VideoStream, pictures: Iterable[av.VideoFrame], remarks: list[str]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (seconds since the first picture, picture), times strictly increasing.

    Args:
      stream: of the pictures.
      pictures: in the order of showing, decoded from packets whose time stamps a `Clock` has set.
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
        prefer_pts = pts is not None and (self._faults >= 0 or dts is None)
        stamp = pts if prefer_pts else dts if dts is not None else self._next
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
