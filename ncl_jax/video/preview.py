"""The picture of a file at a second, by the shortest way that leads to the right one.

A seek can lead too far, into pictures that lean on missing ones, or to another place of the same
time; decoders hold back pictures in silence until they are sound. So the time that came is compared
with the time that was asked for, and an earlier beginning is tried until both agree; what the
beginning of the file leads to is right by definition.
"""

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import av

from ncl_jax.video.clock import MAY_LEAP, Clock
from ncl_jax.video.container import BadVideoError, container_of, opened
from ncl_jax.video.orientation import Seen, seen
from ncl_jax.video.packets import decode_all, packets
from ncl_jax.video.times import TICK_SLACK, Stamps, seconds_of, timed

Result = TypeVar("Result")
Timed = Iterator[tuple[float, av.VideoFrame]]

# Seconds before the wanted one at which decoding begins, in turn; then the beginning of the file.
_EARLIER = (0.0, 3.0, 12.0)
# Files whose packets were all looked at: what is remembered is a few numbers per second.
_REMEMBERED = 64


class Beginning(NamedTuple):
    """What is known of a file before a second of it is looked for.

    Attributes:
      stamp: time stamp of the first picture.
      seconds: the same, as players show it.
      seen: its display matrix, which holds until another comes.
      keys: (position of the packet, time stamp) where decoding can begin in a file whose clock
        changes, so that its times lead nowhere; None for others.
    """

    stamp: int
    seconds: float
    seen: Seen
    keys: list[tuple[int, int]] | None


def picture_at(
    path: str | os.PathLike[str],
    wanted: float,
    use: Callable[[av.VideoStream, av.VideoFrame, Seen], Result],
) -> Result:
    """Hands the first sound picture at or after a second to `use`, while the file is open.

    Where none is that late it is the last sound one, and a corrupt one where none is sound.

    Args:
      path: of the file.
      wanted: seconds since the file's first picture.
      use: what to do with the stream, the picture and the display matrix of the file's first one.

    Returns:
      What `use` returns.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
    """

    def use_first(stream: av.VideoStream, pictures: Timed, first: Seen) -> Result:
        return use(stream, next(pictures)[1], first)

    return pictures_from(path, wanted, use_first)


def pictures_from(
    path: str | os.PathLike[str],
    wanted: float,
    use: Callable[[av.VideoStream, Timed, Seen], Result],
) -> Result:
    """Hands the first sound picture at or after a second, and those after it, to `use`.

    Args:
      path: of the file.
      wanted: seconds since the file's first picture.
      use: what to do with the stream, (seconds, picture) of at least one, and the display matrix
        of the file's first one, while the file is open.

    Returns:
      What `use` returns.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
    """
    begins = beginning_of(path)
    for earlier in _EARLIER:
        if earlier and wanted <= earlier:
            break
        with opened(path) as stream:
            pictures = _sought(stream, wanted, max(0.0, wanted - earlier), begins)
            if pictures is not None:
                return use(stream, pictures, begins.seen)
    with opened(path) as stream:
        pictures = timed(stream, decode_all(stream, Clock()), [])
        first = _first_sound(pictures, wanted)
        return use(stream, itertools.chain([first], pictures), begins.seen)


def beginning_of(path: str | os.PathLike[str]) -> Beginning:
    """The file's first picture, and where else decoding can begin if times do not tell.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
    """
    try:
        status = os.stat(path)
        size_and_date = status.st_size, status.st_mtime_ns
    except OSError:  # said by `opened`, in one line
        size_and_date = 0, 0
    return _beginning(os.fspath(path), *size_and_date)


@functools.lru_cache(_REMEMBERED)
def _beginning(path: str, size: int, changed: int) -> Beginning:
    with opened(path) as stream:
        first = next(decode_all(stream, Clock()), None)
        if first is None:
            raise BadVideoError("at least one decodable frame, got none")
        stamp = Stamps(stream).of(first)
        may_leap = stream.container.format.flags & MAY_LEAP
        known = Beginning(stamp, seconds_of(stream)(stamp), seen(first, None), None)
    return known._replace(keys=_keys(path)) if may_leap else known


def _keys(path: str) -> list[tuple[int, int]] | None:
    clock, keys = Clock(), []
    with opened(path) as stream:
        try:
            for position, packet in enumerate(packets(stream, clock)):
                if packet.is_keyframe and packet.dts is not None:
                    keys.append((position, packet.dts))
        except av.error.InvalidDataError:
            pass  # decoding ends here too
    return keys if clock.changed else None


def _sought(
    stream: av.VideoStream, wanted: float, begin: float, begins: Beginning
) -> Timed | None:
    """The picture, and those after it, by decoding from a second on; None where that does not lead
    to it.
    """
    stamp = begins.stamp + int(begin / seconds_of(stream)(1))
    length = container_of(stream).duration
    try:
        if begins.keys is not None:
            position = max((p for p, key in begins.keys if key <= stamp), default=0)
            pictures = decode_all(stream, Clock(), begin=position)
        elif length and wanted > length / av.time_base + 1:
            return None  # by its own account the file ends earlier: it is not to be trusted
        elif _may_be_packed(stream):
            return None
        else:
            container_of(stream).seek(stamp, stream=stream)
            pictures = decode_all(stream, Clock())
        found = _since(begins.stamp, stream, pictures)
        first = _first_if_right(found, wanted)
        return None if first is None else itertools.chain([first], found)
    except av.FFmpegError:
        return None


def _may_be_packed(stream: av.VideoStream) -> bool:
    """Whether two pictures may share a packet, as DivX and XviD had it.

    Copied from AVI to other containers, their times say less than their order does.
    """
    codec = stream.codec_context
    return codec.name == "mpeg4" and codec.has_b_frames and stream.container.format.name != "avi"


def _since(start: int, stream: av.VideoStream, pictures: Iterable[av.VideoFrame]) -> Timed:
    stamps, seconds, last = Stamps(stream), seconds_of(stream), -math.inf
    for picture in pictures:
        known = picture.pts is not None or picture.dts is not None or stamps.known
        time = seconds(stamps.of(picture) - start) if known else math.inf
        if time > last:
            yield time, picture
            last = time


def _first_if_right(pictures: Timed, wanted: float) -> tuple[float, av.VideoFrame] | None:
    """The first picture at or after a second, the last one if there is none; None if the pictures
    begin after that second or lean on a corrupt one.
    """
    before, group = None, False
    for time, picture in pictures:
        group = group or picture.key_frame
        if picture.is_corrupt:
            if group:
                return None
            continue  # it leans on the group before the first one that was read
        if time >= wanted - TICK_SLACK:
            exact = time <= wanted + TICK_SLACK
            return (time, picture) if exact or before is not None else None
        before = time, picture
    return before


def _first_sound(pictures: Timed, wanted: float) -> tuple[float, av.VideoFrame]:
    """The first sound picture at or after a second, else the last sound one, else any.

    Raises:
      BadVideoError: there is no picture.
    """
    before = corrupt = None
    for time, picture in pictures:
        if picture.is_corrupt:
            corrupt = time, picture
            continue
        if time >= wanted - TICK_SLACK:
            return time, picture
        before = time, picture
    found = before or corrupt
    if found is None:
        raise BadVideoError("at least one decodable frame, got none")
    return found
