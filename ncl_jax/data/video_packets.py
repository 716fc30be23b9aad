"""Packets of a video stream to pictures: all of them, or only what the wanted ones need.

A file's packets tell when each picture is shown, and which packets begin a group that can be
decoded by itself. So a builder that keeps one frame a second of a film need not decode all of it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import av

# Where skipping is proven to leave the pixels as they are: these hold whole pictures per packet
# (a transport stream may hold single fields).
_CODECS = ("h264",)
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv")
# Packets are kept between planning and decoding up to this many bytes; more are read twice.
_KEPT = 64 << 20

Choose = Callable[[Iterable[tuple[float, int]]], Iterable[tuple[float, int]]]


class EncryptedError(Exception):
    """The packets are encrypted; decoders make noise of some codecs without an error."""


class Plan(NamedTuple):
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


def make_plan(stream: av.VideoStream, choose: Choose) -> Plan | None:
    """Reads a stream's packets once, decoding nothing.

    Args:
      stream: of a container at its beginning.
      choose: from (seconds since the first picture, time stamp) in order, those wanted.

    Returns:
      None where the packets do not tell enough: missing, double or unordered time stamps, a first
      packet that depends on others, damage.

    Raises:
      EncryptedError: as it says.
    """
    stamps: list[int] = []
    starts: list[int] = []
    packets: list[av.Packet] | None = []
    size = 0
    for position, packet in enumerate(_packets(stream)):
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            return None
        stamps.append(packet.pts)
        if packet.is_keyframe:
            starts.append(position)
        size += packet.size
        if packets is not None:
            packets.append(packet)
            packets = packets if size <= _KEPT else None
    shown = sorted(stamps)
    if not starts or starts[0] != 0 or any(a == b for a, b in itertools.pairwise(shown)):
        return None
    if stamps == shown and stream.codec_context.has_b_frames:
        return None  # AVI numbers packets in the order of decoding
    times = ((seconds(stamp - shown[0], stream), stamp) for stamp in shown)
    wanted = [stamp for _, stamp in choose(times)]
    return Plan(wanted, _needed(stamps, starts, set(wanted)), packets)


def seconds(stamp: int, stream: av.VideoStream) -> float:
    """A time stamp of the stream in seconds."""
    return float(stamp * stream.time_base) if stream.time_base else 0.0


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


def decode_planned(stream: av.VideoStream, plan: Plan) -> Iterator[av.VideoFrame]:
    """Yields the wanted pictures; others are decoded only if something leans on them.

    Args:
      stream: the one of the plan, or, if the plan has no packets, one at its beginning.
      plan: of `make_plan`.

    Raises:
      av.FFmpegError: a packet is damaged.
    """
    wanted, send = set(plan.wanted), set(plan.send)
    codec = stream.codec_context
    packets = _packets(stream) if plan.packets is None else iter(plan.packets)
    for position, packet in enumerate(itertools.islice(packets, plan.send[-1] + 1)):
        if position not in send:
            continue
        codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        pictures = list(packet.decode())
        if position + 1 not in send:  # a gap or the end follows: hand out what is held back
            pictures += codec.decode(None)
            codec.flush_buffers()
        yield from (picture for picture in pictures if picture.pts in wanted)


def decode_all(
    stream: av.VideoStream, damaged: list[str] | None = None
) -> Iterator[av.VideoFrame]:
    """Yields every picture up to where the file cannot be read on.

    A packet that cannot be decoded is skipped; reasons are added to `damaged`.

    Raises:
      EncryptedError: as it says.
    """
    damaged = [] if damaged is None else damaged
    packets = _packets(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.InvalidDataError as error:
            damaged.append(str(error))
            packet = None
        try:
            yield from packet.decode() if packet else stream.codec_context.decode(None)
        except av.error.InvalidDataError as error:
            damaged.append(str(error))
        if packet is None:
            return


def _packets(stream: av.VideoStream) -> Iterator[av.Packet]:
    for position, packet in enumerate(stream.container.demux(stream)):
        if position == 0 and packet.has_sidedata("encryption_info"):
            raise EncryptedError
        if packet.size:
            yield packet
