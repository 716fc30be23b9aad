"""Packets of a video stream to pictures: all of them, in the order of showing."""

import itertools
from collections.abc import Generator, Iterator

import av

from ncl_jax.video.clock import Clock
from ncl_jax.video.container import BadVideoError, container_of, opened_part

# Files of these can be joined byte by byte. A programme with other stream numbers is met only
# behind the end of the one before.
_JOINED = ("mpegts", "mpeg")
# Sound that outlasts the pictures is less than this many bytes, or more and costs one look.
_REST = 16 << 10


def decode_all(
    stream: av.VideoStream, clock: Clock, damaged: list[str] | None = None, begin: int = 0
) -> Iterator[av.VideoFrame]:
    """Yields every picture up to where the file cannot be read on.

    Args:
      stream: of a container at its beginning, or where a seek has led.
      clock: sets the time stamps.
      damaged: reasons of packets that could not be decoded are added; they are skipped, as players
        do.
      begin: how many packets to pass over without decoding them.

    Raises:
      BadVideoError: the packets are encrypted.
    """
    damaged = [] if damaged is None else damaged
    source = itertools.islice(packets(stream, clock), begin, None)
    codec = stream.codec_context
    while True:
        try:
            packet = next(source, None)
        except av.error.InvalidDataError as error:
            damaged.append(str(error))
            packet = None
        if packet is None or packet.stream.codec_context is not codec:
            yield from _decoded(codec, None, damaged)
            if packet is None:
                return
            codec.flush_buffers()  # its programme may come again
            codec = packet.stream.codec_context
        yield from _decoded(codec, packet, damaged)


def _decoded(
    codec: av.VideoCodecContext, packet: av.Packet | None, damaged: list[str]
) -> list[av.VideoFrame]:
    try:
        return codec.decode(packet)
    except av.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        damaged.append(str(error))
        return []


def packets(stream: av.VideoStream, clock: Clock) -> Iterator[av.Packet]:
    """Packets of the stream and of other programmes in the file, their time stamps set by `clock`.

    Raises:
      BadVideoError: they are encrypted.
      av.FFmpegError: the file cannot be read on.
    """
    yield from _part(stream, clock, 0, container_of(stream).size or 0)


def unread(stream: av.VideoStream, read: int) -> str:
    """A sentence if much of a file lies behind the byte where its last packet ends, else ''.

    FFmpeg, and so most players, show a file that was joined from several only up to the first end
    in some containers.
    """
    size = container_of(stream).size or 0
    in_order = stream.container.format.name in (*_JOINED, "flv", "matroska,webm")
    if not in_order or size - read <= max(_REST, size // 4):
        return ""
    return f"{size - read:,} of {size:,} bytes lie behind the last frame that can be found"


def _part(
    stream: av.VideoStream, clock: Clock, begin: int, end: int
) -> Generator[av.Packet, None, bool]:
    """Packets of the bytes `begin` to `end` of a file, of which the stream is the first to show.

    Returns whether there are any.
    """
    joined, read = stream.container.format.name in _JOINED, end
    found = behind = False
    for packet in demuxed(stream):
        found = True
        if packet.pos is not None:
            here = begin + packet.pos
            if joined and here - read > _REST and clock.changes(packet):
                yield from _behind(stream, clock, read, here)
            read = here + packet.size
        clock.set(packet)
        yield packet
    if joined and end - read > _REST:
        behind = yield from _behind(stream, clock, read, end)
    if found and not behind and (sentence := unread(stream, read - begin)):
        clock.remarks.append(sentence)
    return found


def _behind(
    stream: av.VideoStream, clock: Clock, begin: int, end: int
) -> Generator[av.Packet, None, bool]:
    with opened_part(stream, begin, end) as part:
        if part is None:
            return False
        return (yield from _part(part, clock, begin, end))


def demuxed(stream: av.VideoStream) -> Iterator[av.Packet]:
    """The stream's packets as they are in the file.

    Raises:
      BadVideoError: they are encrypted; decoders make noise of some codecs without an error.
      av.FFmpegError: the file cannot be read on.
    """
    source = container_of(stream).demux(stream)
    for position in itertools.count():
        try:
            packet = next(source, None)
        except IndexError:  # PyAV before 19, at the end of a file in which streams have appeared
            return
        if packet is None:
            return
        if position == 0 and packet.has_sidedata("encryption_info"):
            raise BadVideoError("a readable video, got an encrypted one")
        if packet.size:
            yield packet
