"""One time line for the packets of a file, whatever its clock does.

Packets of a file that was joined from several, or in which a new programme begins, have a clock
that goes back or leaps; `Clock` lets them go on where the ones before have ended. The rules are
those of FFmpeg's command, so that both show the same picture at the same second.
"""

import math

import av

from ncl_jax.video.times import seconds_of, step

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
