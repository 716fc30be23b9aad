"""Image geometry of CLIP: short side to the model's size, then the centre."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def resize_and_crop(
    image: UInt8[np.ndarray, "height width 3"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Bicubic resize of the short side to `size`, then the central square.

    Returns the input itself where it already has the right size.

    Example:
      >>> resize_and_crop(np.zeros((40, 60, 3), np.uint8), 20).shape
      (20, 20, 3)
    """
    height, width = image.shape[:2]
    if min(height, width) != size:
        ratio = size / min(height, width)
        shape = max(size, round(width * ratio)), max(size, round(height * ratio))
        image = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC))
        height, width = image.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]
