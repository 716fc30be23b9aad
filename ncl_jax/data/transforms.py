"""Image geometry: CLIP's resize and centre crop, and the random crop of training."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

ATTEMPTS = 10  # at a random box before the centre is taken
ASPECT = 3 / 4, 4 / 3  # width over height of a random box


class Box(NamedTuple):
    """A rectangle of pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


def resize_and_crop(
    pixels: UInt8[np.ndarray, "height width 3"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """CLIP's geometry: bicubic resize of the short side to `size`, then the central square.

    The long side is cut down to whole pixels and the margins are rounded to even, as CLIP's own
    preprocessing (torchvision's `Resize` and `CenterCrop`) does. A picture of the right size is
    not resampled, and the result is then a view of it.

    Example:
      >>> resize_and_crop(np.zeros((40, 60, 3), np.uint8), 20).shape
      (20, 20, 3)
    """
    height, width, _ = pixels.shape
    short = min(height, width)
    if short != size:
        width, height = (size * side // short for side in (width, height))
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
    left, top = (round((side - size) / 2) for side in (width, height))
    return pixels[top : top + size, left : left + size]


def cut_and_resize(
    pixels: UInt8[np.ndarray, "height width 3"], box: Box, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """The box, resized to a square without regard to its aspect."""
    cut = Image.fromarray(pixels[box.top : box.bottom, box.left : box.right])
    return np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC))


def scaled(box: Box, old: tuple[int, ...], new: tuple[int, ...]) -> Box:
    """The same part of a picture of another size: a file may change its size on the way.

    Example:
      >>> scaled(Box(10, 0, 30, 20), (20, 40, 3), (40, 20, 3))
      Box(left=5, top=0, right=15, bottom=40)
    """
    high, wide = new[0] / old[0], new[1] / old[1]
    left, top = (math.floor(a * b) for a, b in ((box.left, wide), (box.top, high)))
    right, bottom = (math.ceil(a * b) for a, b in ((box.right, wide), (box.bottom, high)))
    return Box(left, top, min(right, new[1]), min(bottom, new[0]))


def random_box(
    width: int, height: int, least_area: float, rng: np.random.Generator
) -> Box | None:
    """A box for a random-resized crop (Szegedy et al., Going Deeper with Convolutions, 2015).

    Args:
      width: of the image in pixels.
      height: likewise.
      least_area: smallest share of the image's area, in (0, 1]; the share is uniform up to 1.
      rng: draws share, aspect (log-uniform from 3/4 to 4/3) and place.

    Returns:
      The box, or None where no draw fits into the image: then take the centre.
    """
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(least_area, 1)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left = int(rng.integers(width - wide + 1))
            top = int(rng.integers(height - high + 1))
            return Box(left, top, left + wide, top + high)
    return None
