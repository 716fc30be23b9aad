"""Frames of a clip -> one small picture that a page can carry inside it."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

FRAMES = 4
HEIGHT = 48  # pixels
QUALITY = 72


class Picture(NamedTuple):
    """A `data:` URI and its size in pixels."""

    uri: str
    width: int
    height: int


def strip(jpegs: Sequence[bytes], height: int = HEIGHT, quality: int = QUALITY) -> Picture:
    """Frames side by side in their order, as one JPEG of `height` pixels.

    Raises:
      ValueError: no frames.
    """
    if not jpegs:
        raise ValueError("expected at least one frame of a clip, got none")
    frames = [_resized(jpeg, height) for jpeg in jpegs]
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
