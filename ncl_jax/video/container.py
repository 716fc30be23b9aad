"""Opening a video file: which containers are read, which of the streams, and what is wrong with it.

Whatever a file does wrong inside `opened` is a `VideoError` of one line.
"""

import contextlib
import io
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any, cast

import av

from ncl_jax.errors import InputError, reason

_KINDS = "3gp avi divx f4v flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv qt ts vob webm wmv"
SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
"""File names that are taken for videos, in lower case."""

# Files are not trusted: a playlist under a video's name must not open other files or addresses.
# Sound alone is there to be told from what cannot be read.
_DEMUXERS = (
    "3gp,asf,avi,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp3,mp4,mpeg,mpegts,mpegvideo,mxf,ogg,"
    "wav,webm"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
# Titles in any encoding: PyAV 19 accepts them by itself and no longer has the argument.
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_GENERATE_TIMES = 1  # AVFMT_FLAG_GENPTS, which PyAV sets
_DEFAULT = av.stream.Disposition.default
_NO_VIDEO = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


class VideoError(InputError):
    """A file that gives no frames; the message is one line: file, expected, got.

    Attributes:
      reason: the message without the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(f"{file_name(path)}: {reason}")
        self.reason = reason


class BadVideoError(Exception):
    """Carries 'what was expected, got what' up to where the file's name is known."""


def file_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path, fit to be printed on one line whatever it holds."""
    return "".join(c if c.isprintable() else "?" for c in pathlib.PurePath(path).name)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[av.VideoStream]:
    """The stream to show, at the beginning of the file.

    Raises:
      VideoError: the file cannot be opened or holds no video; so is whatever goes wrong inside.
    """
    try:
        _check_regular(path)
        with _container(os.fspath(path)) as container:
            yield _chosen(container)
    except (av.FFmpegError, OSError, MemoryError) as error:
        raise VideoError(path, f"expected a readable video, got {reason(error)}") from error
    except BadVideoError as error:
        raise VideoError(path, f"expected {error}") from error


def _check_regular(path: str | os.PathLike[str]) -> None:
    """A pipe or a device would be waited for, for as long as a file may take."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
        raise BadVideoError(f"a regular file, got {kinds.get(stat.S_IFMT(mode), 'a device')}")


@contextlib.contextmanager
def opened_part(stream: av.VideoStream, begin: int, end: int) -> Iterator[av.VideoStream | None]:
    """Bytes `begin` to `end` of the stream's file as a file of their own; None if no video."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(stream.container.name, "rb"))
            found = _chosen(stack.enter_context(_container(_Part(file, begin, end))))
        except (av.FFmpegError, OSError, BadVideoError):
            found = None
        yield found


class _Part(io.RawIOBase):
    """Some bytes of an open file as a file of its name, with positions of its own."""

    def __init__(self, file: io.BufferedReader, begin: int, end: int):
        self.name, self._file, self._begin, self._end = file.name, file, begin, end
        file.seek(begin)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._end - self._file.tell())
        return self._file.read(rest if size < 0 else min(size, rest))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._begin, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}
        return self._file.seek(base[whence] + offset) - self._begin

    def tell(self) -> int:
        return self._file.tell() - self._begin


def container_of(stream: av.VideoStream) -> av.container.InputContainer:
    """The open file that a stream to decode belongs to."""
    return cast("av.container.InputContainer", stream.container)


def _container(source: Any) -> av.container.InputContainer:
    how: dict[str, Any] = {"container_options": _OPTIONS, **_METADATA}
    container = av.open(source, **how)
    # Times that a file does not state are wrong where they are made up: an AVI keeps the order of
    # decoding only, and `clock` knows better what follows from it.
    container.flags &= ~_GENERATE_TIMES
    return container


def _chosen(container: av.container.InputContainer) -> av.VideoStream:
    """The default stream, of several the largest; cover art and thumbnails are no video.

    MP4 and MOV have no default: their muxers enable the first of several tracks and no other.
    """
    streams = [s for s in container.streams.video if not s.disposition & _NO_VIDEO]
    if not streams:
        kinds = sorted({_kind(stream) for stream in container.streams}) or ["nothing"]
        raise BadVideoError(f"a video stream, got only {', '.join(kinds)}")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise BadVideoError("a codec that FFmpeg can decode, got an unknown one")
    may_mark = "mov" not in container.format.name.split(",")
    chosen = max(
        known, key=lambda s: (may_mark and bool(s.disposition & _DEFAULT), s.width * s.height)
    )
    # Parallelism is over clips; a thread team per file only slows short ones down.
    chosen.thread_type = "NONE"
    return chosen


def _kind(stream: av.stream.Stream) -> str:
    return "cover art" if stream.type == "video" else stream.type
