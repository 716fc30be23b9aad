"""One clip's JPEGs -> the frames the model sees."""

import dataclasses
import threading
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8

from ncl_jax.data import frames, transforms
from ncl_jax.errors import InputError, check_choice

Crop = Literal["centre", "random_resized"]


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What one example looks like: frames and tokens are upper limits, `image_size` pixels."""

    max_frames: int
    image_size: int
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class View:
    """How a clip is looked at. Whatever is random is drawn once for all frames of a clip.

    Attributes:
      choice: which frames, see `frames.choose_frames`.
      order: "ordinary", "reverse" or "random".
      crop: "centre" as CLIP does, or "random_resized".
      least_area: smallest share of the picture that "random_resized" keeps, in (0, 1].
      flip: mirror every second clip, drawn at random. Captions that say "left" become wrong.

    Raises:
      ValueError: a word that is not among the choices, or an area outside (0, 1].
    """

    choice: frames.Choice = "uniform"
    order: frames.Order = "ordinary"
    crop: Crop = "centre"
    least_area: float = 0.5
    flip: bool = False

    def __post_init__(self) -> None:
        check_choice("frame choice", self.choice, get_args(frames.Choice))
        check_choice("frame order", self.order, get_args(frames.Order))
        check_choice("crop", self.crop, get_args(Crop))
        if not 0 < self.least_area <= 1:
            raise InputError(f"least area: expected a share in (0, 1], got {self.least_area}")

    @property
    def is_random(self) -> bool:
        """Whether two looks at a clip may differ."""
        drawn = (self.choice == "tsn_random", self.order == "random", self.crop != "centre")
        return self.flip or any(drawn)


def clip_frames(
    pictures: Sequence[bytes] | UInt8[np.ndarray, "frame height width 3"],
    shapes: Shapes,
    view: View,
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "frame size size 3"], Bool[np.ndarray, " frame"]]:
    """Frames of one clip, chosen, decoded, cropped and zero-padded, with their mask.

    Args:
      pictures: JPEGs, of which only the chosen ones are decoded, or RGB pixels.
      shapes: frames at most, and pixels of their sides.
      view: which frames, in which order, how cropped.
      rng: of whatever is random in `view`.

    Raises:
      ValueError: a chosen JPEG cannot be decoded.
    """
    chosen = frames.choose_frames(len(pictures), shapes.max_frames, view.choice, rng)
    chosen = frames.order_frames(chosen, view.order, rng)
    size = shapes.image_size
    box, first = None, (0, 0, 3)
    flip = view.flip and rng.random() < 0.5
    out = np.empty((shapes.max_frames, size, size, 3), np.uint8)
    for place, index in enumerate(chosen):
        picture = pictures[index]
        if isinstance(picture, bytes):
            picture = _decode(picture, int(index))
        if view.crop == "random_resized" and place == 0:
            first = height, width, _ = picture.shape
            box = transforms.random_box(width, height, view.least_area, rng)
        if box:
            own = box if picture.shape == first else transforms.scaled(box, first, picture.shape)
            pixels = transforms.cut_and_resize(picture, own, size)
        else:
            pixels = transforms.resize_and_crop(picture, size)
        out[place] = pixels[:, ::-1] if flip else pixels
    out[len(chosen) :] = 0
    return out, np.arange(shapes.max_frames) < len(chosen)


class _Scratch(threading.local):
    """One picture's memory per thread: a fresh one would be mapped and cleared for every frame."""

    pixels = np.empty(0, np.uint8)


_scratch = _Scratch()


def _decode(jpeg: bytes, index: int) -> UInt8[np.ndarray, "height width 3"]:
    """Straight to an array: Pillow's own pictures have four bytes per pixel to be packed again.

    The array is overwritten by the thread's next call.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        if _scratch.pixels.size < 3 * height * width:
            _scratch.pixels = np.empty(3 * height * width, np.uint8)
        return simplejpeg.decode_jpeg(jpeg, buffer=_scratch.pixels)
    except ValueError as error:
        raise InputError(f"frame {index}: expected a JPEG image, got {error}") from error
