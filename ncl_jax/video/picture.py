"""One decoded picture to the image that is kept: upright, in shape, resized, compressed."""

import io
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from ncl_jax.video import colour, orientation
from ncl_jax.video.colour import Look
from ncl_jax.video.container import BadVideoError
from ncl_jax.video.orientation import Orientation, Seen

Frame = np.ndarray  # uint8 [height, width, 3], RGB

# A picture of 2 x 16,000 pixels would grow into gigabytes when its short side is resized.
_MAX_ASPECT = 64
# Pixels of a stranger shape are an error of the file: anamorphic film has 2, DVDs at most 2.9.
_MAX_PIXEL_ASPECT = 5


class Form(NamedTuple):
    """What is made of a picture.

    Attributes:
      short_side: pixels of the shorter side after a bicubic resize (nothing is cropped), or None
        to keep the size.
      jpeg_quality: 1 to 95 for JPEG bytes, None for pixels.
      look: `stored` or `shown`, see `colour.Look`.
    """

    short_side: int | None = None
    jpeg_quality: int | None = None
    look: Look = "stored"


class Shape(NamedTuple):
    """Size of an upright picture in square pixels."""

    width: int
    height: int


class Pictures:
    """Makes images of a stream's pictures.

    Attributes:
      remarks: a sentence for every kind of thing that was ignored.
    """

    def __init__(self, stream: av.VideoStream, form: Form, before: Seen | None = None):
        """`before`: the display matrix of the file's first picture, where that will not come."""
        self._stream, self._form, self._seen = stream, form, before
        self._turn = Orientation()
        self.remarks: list[str] = []
        self._orient()

    def image(self, picture: av.VideoFrame) -> tuple[Any, Shape]:
        """The image of a picture, and the picture's size before resizing.

        Raises:
          BadVideoError: its sides differ too much.
        """
        shape = self.shape(picture)
        _check_aspect(shape)
        pixels = colour.to_rgb(picture, self._form.look, self._form.short_side)
        return fitted(Image.fromarray(self._turn.apply(pixels)), shape, self._form), shape

    def shape(self, picture: av.VideoFrame) -> Shape:
        """Size of the picture as its image would show it, before resizing."""
        before, self._seen = self._seen, orientation.seen(picture, self._seen)
        if self._seen is not before:
            self._orient()
        width = picture.width
        if self._form.look == "shown":
            width = max(1, round(width * self._pixel_aspect()))
        size = (picture.height, width) if self._turn.transpose else (width, picture.height)
        return Shape(*size)

    def _orient(self) -> None:
        if self._seen is None or self._seen.matrix is None:
            return
        turn = orientation.from_matrix(self._seen.matrix)
        if turn is None:
            self._remark("a display matrix that is no orientation is ignored")
        self._turn = turn or Orientation()

    def _pixel_aspect(self) -> Fraction:
        """Width of a pixel over its height; what the container says counts more than the codec.

        In transport and programme streams the codec alone says it, and may change its mind.
        """
        said = self._stream.sample_aspect_ratio
        if self._stream.container.format.name in ("mpegts", "mpeg"):
            said = self._stream.codec_context.sample_aspect_ratio
        aspect = Fraction(said.numerator, said.denominator) if said else Fraction(1)
        if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
            self._remark(f"a pixel aspect ratio of {aspect} is ignored")
            return Fraction(1)
        return aspect

    def _remark(self, sentence: str) -> None:
        if sentence not in self.remarks:
            self.remarks.append(sentence)


def fitted(image: Image.Image, shape: tuple[int, int], form: Form) -> Any:
    """An upright image, to be shown at `shape`, in the size and the form that is kept.

    Raises:
      BadVideoError: its sides differ too much.
    """
    _check_aspect(Shape(*shape))
    image = _resized(image, Shape(*shape), form.short_side)
    return np.asarray(image) if form.jpeg_quality is None else to_jpeg(image, form.jpeg_quality)


def _check_aspect(shape: Shape) -> None:
    if max(shape) > _MAX_ASPECT * min(shape):
        raise BadVideoError(f"sides within 1:{_MAX_ASPECT}, got {shape[0]} x {shape[1]} pixels")


def _resized(image: Image.Image, shape: Shape, short_side: int | None) -> Image.Image:
    """The long side is cut down to whole pixels, as CLIP's own preprocessing does."""
    short = min(shape)
    if short_side is not None:
        shape = Shape(*(short_side * side // short for side in shape))
    return image if image.size == shape else image.resize(shape, Image.Resampling.BICUBIC)


def to_jpeg(image: Image.Image, quality: int) -> bytes:
    """The image as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def from_jpeg(data: bytes) -> Frame:
    """RGB pixels, uint8 [height, width, 3], of one JPEG image."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
