"""Which packets the wanted pictures need, where a file's packets tell.

Packets tell when each picture is shown, and which of them begin a group that can be decoded by
itself. So a builder that keeps one frame a second of a film need not decode all of it.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import av

from ncl_jax.video.clock import Clock
from ncl_jax.video.container import BadVideoError
from ncl_jax.video.packets import demuxed, unread
from ncl_jax.video.times import seconds_of

# Where skipping is proven to leave the pixels as they are: these hold whole pictures per packet
# (a transport stream may hold single fields).
_CODECS = ("h264",)
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv")
# Packets are kept between planning and decoding up to this many bytes; more are read twice.
_KEPT = 64 << 20

Choose = Callable[[Iterable[tuple[float, int]]], Iterable[tuple[float, int]]]


class DecodePlan(NamedTuple):
    """What to decode.

    Attributes:
      wanted: time stamps of the wanted pictures, ascending.
      send: positions of the packets to decode, in the order of the file.
      packets: all packets, or None if they are too many to keep.
    """

    wanted: list[int]
    send: list[int]
    packets: list[av.Packet] | None


def can_plan(stream: av.VideoStream) -> bool:
    """Whether `make_plan` is worth a try."""
    return stream.codec_context.name in _CODECS and stream.container.format.name in _CONTAINERS


def make_plan(stream: av.VideoStream, choose: Choose) -> DecodePlan | None:
    """Reads a stream's packets once, decoding nothing.

    Args:
      stream: of a container at its beginning.
      choose: from (seconds since the first picture, time stamp) in order, those wanted.

    Returns:
      None where the packets do not tell enough: missing, double or unordered time stamps, a clock
      that goes back, a first packet that depends on others, damage, gaps, much that cannot be
      read.

    Raises:
      BadVideoError: the packets are encrypted.
    """
    stamps: list[int] = []
    starts: list[int] = []
    packets: list[av.Packet] | None = []
    size, read, clock = 0, 0, Clock()
    due: float = math.inf
    for position, packet in enumerate(_stamped(stream)):
        clock.set(packet)
        if packet.pts is None or packet.is_corrupt or packet.is_discard or clock.changed:
            return None
        if packet.dts is not None:
            if packet.dts > due:
                return None  # packets are missing: what decoders show instead depends on the rest
            due = packet.dts + 1.5 * (packet.duration or math.inf)
        stamps.append(packet.pts)
        if packet.is_keyframe:
            starts.append(position)
        size, read = size + packet.size, (packet.pos or 0) + packet.size
        if packets is not None:
            packets.append(packet)
            packets = packets if size <= _KEPT else None
    shown = sorted(stamps)
    if not starts or starts[0] != 0 or any(a == b for a, b in itertools.pairwise(shown)):
        return None
    if stamps == shown and stream.codec_context.has_b_frames:
        return None  # the order of decoding, taken for that of showing
    if unread(stream, read):
        return None
    seconds = seconds_of(stream)
    times = ((seconds(stamp - shown[0]), stamp) for stamp in shown)
    wanted = [stamp for _, stamp in choose(times)]
    return DecodePlan(wanted, _needed(stamps, starts, set(wanted)), packets)


def _stamped(stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets; where only decoding times are known and no picture waits for a later one, these
    are the times of showing.
    """
    codec = stream.codec_context
    waits, setup = codec.has_b_frames, codec.extradata or b""
    prefix = (setup[4] & 3) + 1 if setup[:1] == b"\1" and len(setup) > 4 else 0
    for packet in demuxed(stream):
        if packet.pts is None and not waits and not _may_wait(memoryview(packet), prefix):
            packet.pts = packet.dts
        yield packet


def _may_wait(data: memoryview, prefix: int) -> bool:
    """Whether an H.264 packet holds a B picture, or is not understood.

    A slice begins with its first macroblock, 0 or "1" in Exp-Golomb code, and its type, 1 or 6 for
    B, "010" or "00111" (H.264, 7.3.3).

    Args:
      data: of the packet.
      prefix: bytes of the length before each unit; 0 where start codes separate them.
    """
    head = bytes(data[:4096])
    for at in _units(head, prefix):
        if head[at] & 31 in (1, 5):
            bits = head[at + 1]
            return bits >> 7 != 1 or bits >> 4 & 7 == 0b010 or bits >> 2 & 31 == 0b00111
    return True


def _units(head: bytes, prefix: int) -> Iterator[int]:
    """Where the units of at least two bytes begin."""
    at = 0 if prefix else head.find(b"\0\0\1")
    while 0 <= at < len(head) - 1 - (prefix or 3):
        yield at + (prefix or 3)
        if prefix:
            at += prefix + int.from_bytes(head[at : at + prefix])
        else:
            at = head.find(b"\0\0\1", at + 3)


def _needed(stamps: list[int], starts: list[int], wanted: set[int]) -> list[int]:
    """Of each group the packets up to the last wanted one, in the order of decoding.

    A picture shown before its group's first one leans on the group before, which is then whole.
    """
    groups = [range(a, b) for a, b in itertools.pairwise([*starts, len(stamps)])]
    lengths = [0] * len(groups)
    for number, group in enumerate(groups):
        inside = [position for position in group if stamps[position] in wanted]
        if not inside:
            continue
        lengths[number] = inside[-1] + 1 - group.start
        if number and any(stamps[position] < stamps[group.start] for position in inside):
            lengths[number - 1] = len(groups[number - 1])
    return [p for group, n in zip(groups, lengths, strict=True) for p in group[:n]]


def decode_plan(stream: av.VideoStream, plan: DecodePlan) -> Iterator[av.VideoFrame]:
    """Yields the wanted pictures; others are decoded only if something leans on them.

    Args:
      stream: the one of the plan, or, if the plan has no packets, one at its beginning.
      plan: of `make_plan`.

    Raises:
      BadVideoError: pictures are damaged or come in another order than planned.
      av.FFmpegError: a packet is damaged.
    """
    wanted, send = set(plan.wanted), set(plan.send)
    codec = stream.codec_context
    packets = _stamped(stream) if plan.packets is None else iter(plan.packets)
    last = sound_from = plan.wanted[0] - 1
    for position, packet in enumerate(itertools.islice(packets, plan.send[-1] + 1)):
        if position not in send:
            continue
        if position - 1 not in send:  # what leans on packets that are left out is not wanted
            sound_from = last if packet.pts is None else packet.pts
        codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        pictures = list(packet.decode())
        if position + 1 not in send:  # a gap or the end follows: hand out what is held back
            pictures += codec.decode(None)
            codec.flush_buffers()
        for picture in pictures:
            if picture.pts is None or picture.pts <= last:
                raise BadVideoError("pictures in the order of their times, got others")
            last = picture.pts
            if picture.is_corrupt and picture.pts >= sound_from:
                raise BadVideoError("sound pictures, got a corrupt one")
            if picture.pts in wanted:
                yield picture
