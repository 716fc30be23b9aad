"""A file to find the like of: a picture, which is a clip of one frame, or a clip."""

import os
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ncl_jax.errors import reason
from ncl_jax.video.colour import Look
from ncl_jax.video.container import BadVideoError, VideoError
from ncl_jax.video.decode import decode_frames
from ncl_jax.video.frames import Clip
from ncl_jax.video.picture import Form, fitted

Kind = Literal["picture", "clip", "either"]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Of pictures, by Pillow's names."""
_EXPECTED = "expected a picture (JPEG, PNG, WebP, GIF, BMP or TIFF)"


def decode_example(
    path: str | os.PathLike[str],
    kind: Kind,
    fps: float,
    short_side: int,
    jpeg_quality: int,
    look: Look = "shown",
) -> Clip:
    """JPEG frames of a picture or a clip.

    Args:
      path: of the file.
      kind: what it must be; "either" takes a GIF that moves for a clip.
      fps: frames per second of a clip.
      short_side: pixels of the shorter side.
      jpeg_quality: 1 to 95.
      look: of a clip, see `decode_frames`; pictures are as viewers show them.

    Raises:
      VideoError: it cannot be read as this kind.
    """
    form = Form(short_side, jpeg_quality)
    found = None if kind == "clip" else _picture(path, form, moving=kind == "picture")
    if found is not None:
        return found
    if kind == "picture":
        raise VideoError(path, f"{_EXPECTED}, got another file; give a video by --clip")
    return decode_frames(path, fps, short_side, jpeg_quality, look)


def _picture(path: str | os.PathLike[str], form: Form, moving: bool) -> Clip | None:
    """A clip of one frame, or None for what is no picture, or one that moves unless `moving`."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format == "GIF" and getattr(image, "is_animated", False) and not moving:
                return None
            upright = ImageOps.exif_transpose(image).convert("RGB")
        jpeg = fitted(upright, upright.size, form)
    except UnidentifiedImageError:
        return None
    except BadVideoError as error:
        raise VideoError(path, f"expected {error}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(path, f"{_EXPECTED}, got {reason(error)}") from error
    return Clip([jpeg], np.zeros(1, np.float32), 0.0, *upright.size)
