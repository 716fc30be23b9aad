"""A window of a file in the form that every browser plays: H.264 and AAC in an MP4.

The picture is that of `look="shown"`, at most `SHORT_SIDE` pixels on its shorter side and at most
`RATE` pictures per second.
"""

import collections
import contextlib
import io
import itertools
import math
import os
from collections.abc import Iterator
from fractions import Fraction

import av

from ncl_jax.video import preview
from ncl_jax.video.container import BadVideoError, container_of, opened
from ncl_jax.video.orientation import Seen
from ncl_jax.video.picture import Form, Pictures
from ncl_jax.video.preview import Timed

SHORT_SIDE, RATE = 480, 30
_CLOCK = Fraction(1, 90_000)
_SOUND_RATE = 48_000
_SLACK = 1e-3
# "faststart" would open the output again by a name, which a buffer does not have.
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
# Pictures that lean on later ones would come late by their number, beside the sound.
_ENCODER = {"preset": "veryfast", "crf": "23", "bf": "0"}
_CODECS = {
    "mov,mp4,m4a,3gp,3g2,mj2": {"h264", "av1", "vp9"},
    "matroska,webm": {"h264", "av1", "vp8", "vp9"},
}
"""What browsers play, by container."""
_SOUND = {"aac", "mp3", "opus", "vorbis", "flac"}
_PIXELS = {"yuv420p", "yuvj420p"}


def plays(path: str | os.PathLike[str]) -> bool:
    """Whether common browsers play the file as it is.

    Raises:
      VideoError: the file cannot be opened.
    """
    with opened(path) as stream:
        container, codec = container_of(stream), stream.codec_context
        sound = {s.codec_context.name for s in container.streams.audio}
        return (
            codec.name in _CODECS.get(container.format.name, set())
            and codec.pix_fmt in _PIXELS and sound <= _SOUND
        )  # fmt: skip


def transcode(path: str | os.PathLike[str], start: float, end: float) -> bytes:
    """The seconds from `start` to `end`, counted from the file's first picture, as an MP4.

    Sound that cannot be decoded is left out.

    Args:
      path: of the file.
      start: in seconds, >= 0.
      end: later than `start`.

    Raises:
      VideoError: the file cannot be opened, or has no picture there.
    """
    sound = collections.deque(_sound(path, start, end))

    def encoded(stream: av.VideoStream, pictures: Timed, first: Seen) -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", "mp4", options=_FRAGMENTED) as out:
            _encode(out, _pictures(stream, pictures, first, start, end), sound)
        return buffer.getvalue()

    return preview.pictures_from(path, start, encoded)


def _encode(
    out: av.container.OutputContainer,
    pictures: Iterator[av.VideoFrame],
    sound: collections.deque[av.AudioFrame],
) -> None:
    """Both streams are there before the first packet, which writes the header; sound goes along."""
    first = next(pictures, None)
    if first is None:
        raise BadVideoError("at least one decodable frame there, got none")
    video = out.add_stream("libx264", options=_ENCODER)
    video.width, video.height, video.pix_fmt = first.width, first.height, first.format.name
    video.time_base = video.codec_context.time_base = _CLOCK
    audio = None
    if sound:
        audio = out.add_stream("aac", rate=_SOUND_RATE, layout=sound[0].layout.name)
    for picture in itertools.chain([first], pictures):
        out.mux(video.encode(picture))
        while audio and sound and (sound[0].time or 0) <= (picture.time or 0):
            out.mux(audio.encode(sound.popleft()))
    out.mux(video.encode())
    if audio:
        for part in sound:
            out.mux(audio.encode(part))
        out.mux(audio.encode())


def _pictures(
    stream: av.VideoStream, pictures: Timed, first: Seen, start: float, end: float
) -> Iterator[av.VideoFrame]:
    """As shown, of even sides, their times counted from `start`; at least one if there is any."""
    side = min(SHORT_SIDE, stream.codec_context.width, stream.codec_context.height)
    shown = Pictures(stream, Form(side, None, "shown"), first)
    due = -math.inf
    for time, picture in pictures:
        if time >= end and due > -math.inf:
            return
        if time + _SLACK < due:
            continue
        due = max(due, time) + 1 / RATE
        pixels = shown.image(picture)[0]
        height, width = (length // 2 * 2 for length in pixels.shape[:2])
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(width, height, "yuv420p")
        frame.pts, frame.time_base = max(0, round((time - start) / _CLOCK)), _CLOCK
        yield frame


def _sound(path: str | os.PathLike[str], start: float, end: float) -> list[av.AudioFrame]:
    """What can be decoded of the first sound, times counted from `start` of the pictures."""
    begin, parts = preview.beginning_of(path).seconds, list[av.AudioFrame]()
    with opened(path) as stream:
        container = container_of(stream)
        if not container.streams.audio:
            return []
        mono = container.streams.audio[0].codec_context.channels == 1
        resampler = av.AudioResampler("fltp", "mono" if mono else "stereo", _SOUND_RATE)
        with contextlib.suppress(av.FFmpegError):
            for time, frame in _sounds(container, begin + start, begin + end):
                at = max(0, round((time - begin - start) * _SOUND_RATE))
                for part in resampler.resample(frame):
                    part.pts, part.time_base = at, Fraction(1, _SOUND_RATE)
                    at += part.samples
                    parts.append(part)
    return parts


def _sounds(
    container: av.container.InputContainer, start: float, end: float
) -> Iterator[tuple[float, av.AudioFrame]]:
    source = container.streams.audio[0]
    with contextlib.suppress(av.FFmpegError):
        container.seek(max(0, int(start * av.time_base)))
    for frame in container.decode(source):
        if frame.time is None or frame.time >= end:
            return
        if frame.time >= start:
            yield frame.time, frame
