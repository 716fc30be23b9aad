"""Video files to frames, and frames to JPEG bytes.

The only home of decoding, in parts: `container` opens, `packets` and `plan` decode, `clock` and
`times` say when, `frames` and `preview` find frames and seconds, `orientation`, `colour` and
`picture` say how they look. No JAX here, so that
dataset builders and reader threads can use it cheaply; PyAV and Pillow release the interpreter lock
while they work.
"""

import math
import os
from typing import NamedTuple

import av

from ncl_jax.errors import InputError
from ncl_jax.video import packets, preview
from ncl_jax.video.clock import Clock
from ncl_jax.video.colour import Look, check_look
from ncl_jax.video.container import SUFFIXES, VideoError, container_of, file_name, opened
from ncl_jax.video.frames import Clip, decode_plainly, decode_planned, no_frame
from ncl_jax.video.orientation import Seen
from ncl_jax.video.picture import Form, Frame, Pictures
from ncl_jax.video.picture import from_jpeg as decode_jpeg
from ncl_jax.video.times import rate
from ncl_jax.video.transcode import plays

__all__ = [
    "SUFFIXES", "VERSION", "Clip", "Frame", "Look", "Probe", "VideoError", "begin_of",
    "check_look", "decode_frames", "decode_jpeg", "file_name", "jpeg_at", "plays", "probe",
]  # fmt: skip

VERSION = 2
"""Of the rules by which frames are chosen and shown; 1 had neither clocks that change, the order of
showing in AVI files, mirrors, nor the choice of a stream."""


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
    depend on are decoded; the result is the same (`tests/video/files_test.py` compares them).

    Args:
      path: video file in any container FFmpeg reads; of several streams `container` chooses.
      fps: ticks per second, > 0. At 1.0 these are the first frames of each second.
      short_side: pixels of the shorter side after a bicubic resize (nothing is cropped), or
        None to keep the size.
      jpeg_quality: 1 to 95 compresses each frame as it comes, so that a long file needs little
        memory; None keeps pixels.
      look: `stored` for pixels and colours as the published pipelines read them, `shown` for what
        a player shows: square pixels, BT.709 for untagged HD, HDR tone-mapped (`colour`).
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
    return decode_planned(path, fps, form) or decode_plainly(path, fps, form)


def probe(path: str | os.PathLike[str], deep: bool = False) -> Probe:
    """Opens a file and decodes its first frame, or all of them if `deep`.

    Raises:
      VideoError: the file cannot be opened or holds no decodable frame.
    """
    damaged: list[str] = []
    with opened(path) as stream:
        pictures = packets.decode_all(stream, Clock(), damaged)
        first = next(pictures, None)
        if first is None:
            raise no_frame(damaged)
        width, height = Pictures(stream, Form()).shape(first)
        return Probe(
            stream.codec_context.name,
            rate(stream),
            (container_of(stream).duration or 0) / av.time_base,
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

    It is the one that `decode_frames` would keep, by a shorter way (`preview`): quick in a
    long file.

    Raises:
      VideoError: as `decode_frames`.
    """
    form = Form(short_side, jpeg_quality, look)

    def jpeg(stream: av.VideoStream, picture: av.VideoFrame, first: Seen) -> bytes:
        return Pictures(stream, form, first).image(picture)[0]

    return preview.picture_at(path, seconds, jpeg)


def begin_of(path: str | os.PathLike[str]) -> float:
    """What a file's own clock, which players show, says at its first frame, in seconds >= 0.

    Raises:
      VideoError: as `decode_frames`.
    """
    return max(0.0, preview.beginning_of(path).seconds)
