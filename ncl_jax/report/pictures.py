"""Frames of a clip -> one small picture that a page can carry inside it."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from ncl_jax.errors import InputError

FRAMES = 4  # at most; as many as fit
WIDTH = 200  # pixels, of a strip of several frames
HEIGHT = 48  # pixels
QUALITY = 72


class Picture(NamedTuple):
    """A `data:` URI and its size in pixels."""

    uri: str
    width: int
    height: int


def strip(jpegs: Sequence[bytes], height: int = HEIGHT, quality: int = QUALITY) -> Picture:
    """Frames side by side in their order, as one JPEG of `height` pixels.

    Where they do not fit in `WIDTH`, evenly spaced ones of them; the first always.

    Raises:
      ValueError: no frames.
    """
    if not jpegs:
        raise InputError("expected at least one frame of a clip, got none")
    first = _resized(jpegs[0], height)
    fit = min(len(jpegs), max(1, WIDTH // first.width))
    places = [round(i * (len(jpegs) - 1) / max(1, fit - 1)) for i in range(fit)]
    frames = [_resized(jpegs[place], height) for place in places]
    whole = Image.new("RGB", (sum(f.width for f in frames), height))
    left = 0
    for frame in frames:
        whole.paste(frame, (left, 0))
        left += frame.width
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", quality=quality, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/jpeg;base64,{text}", *whole.size)


def _resized(jpeg: bytes, height: int) -> Image.Image:
    with Image.open(io.BytesIO(jpeg)) as opened:
        opened.draft("RGB", (2 * height, 2 * height))  # decodes a large JPEG at a fraction
        frame = opened.convert("RGB")
    return frame.resize((max(1, round(frame.width * height / frame.height)), height))
