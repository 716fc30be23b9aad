"""Decoded pictures to RGB, as they are stored or as players show them.

Three things that a player does are left out where frames must be those of the published pipelines
(`Look`): the shape of pixels is `picture`'s part, two are done here.

- HD video that does not name its matrix is BT.709, as players take it; FFmpeg's scaler takes
  BT.601 at any size. HD is 1280 pixels wide or more than 576 high (mpv's rule).
- HDR video (PQ, HLG; SMPTE ST 2084, ARIB STD-B67) is brought to the range of a common screen. The
  rule: light is measured in units of reference white, 203 cd/m2 (ITU-R BT.2408); HLG is taken as
  it looks on a screen of 1,000 cd/m2 (BT.2100); colours are converted from BT.2020 to BT.709; light
  x up to k = `KNEE` stays as it is, and brighter light becomes 1 - (1 - k) exp(-(x - k) / (1 - k)),
  by the largest of the three colours, so that hues stay; the result is coded for a screen of gamma
  2.4 (BT.1886). No metadata of the file is used, and every frame is treated alike.
"""

import functools
from typing import Any, Literal, get_args

import av
import numpy as np

from ncl_jax.errors import check_choice

Look = Literal["stored", "shown"]
"""`stored`: pixels and colours as FFmpeg's scaler gives them, which is what the published pipelines
read. `shown`: as a player shows them."""

KNEE = 0.75
_WHITE = 203.0
_GAMMA = 2.4
_UNSPECIFIED, _BT709, _BT2020 = 2, 1, 9
_PQ, _HLG = 16, 18
_SWS_709, _SWS_2020 = 1, 9
# Most video: becomes RGB without scaling, where preparing a filter would only cost time.
_UNSCALED = ("yuv420p", "yuvj420p")
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)


def check_look(look: str) -> None:
    """InputError, with the choices, for an unknown look."""
    check_choice("look", look, get_args(Look))


def to_rgb(picture: av.VideoFrame, look: Look, side: int | None = None) -> np.ndarray:
    """RGB pixels of a decoded picture as it is stored, not turned.

    Args:
      picture: of any format.
      look: `stored` or `shown`.
      side: what the shorter side will be resized to; HDR pictures of more than twice that size are
        shrunk by a whole number before they are tone-mapped, which takes half a second for
        1920 x 1080.

    Returns:
      uint8 [height, width, 3], of the picture's size unless it was shrunk.
    """
    if look == "shown" and picture.color_trc in (_PQ, _HLG):
        short = min(picture.width, picture.height)
        codes = _pixels(picture, "rgb48", _SWS_2020, max(1, short // (2 * (side or short))))
        return tone_mapped(codes, picture.color_trc == _HLG, picture.color_primaries != _BT709)
    hd = picture.width >= 1280 or picture.height > 576
    return _pixels(picture, "rgb24", _SWS_709 if look == "shown" and hd else None)


def _pixels(picture: av.VideoFrame, form: str, matrix: int | None, shrink: int = 1) -> np.ndarray:
    """`matrix` is for pictures that do not name their own."""
    how: dict[str, Any] = {"format": form, "threads": 1}
    if shrink > 1:
        size = {"width": picture.width // shrink, "height": picture.height // shrink}
        how |= size | {"interpolation": "AREA"}
    elif picture.format.name not in _UNSCALED or picture.width % 2 or picture.height % 2:
        how["interpolation"] = "BICUBIC"  # of chroma, as FFmpeg's own command has it
    if matrix is not None and picture.colorspace == _UNSPECIFIED and not picture.format.is_rgb:
        how["src_colorspace"] = matrix
    return picture.to_ndarray(**how)


def tone_mapped(codes: np.ndarray, hlg: bool, wide: bool = True) -> np.ndarray:
    """HDR codes to the codes of a common screen, by the rule at the top of this module.

    Args:
      codes: uint16 [..., 3], full range, of PQ or HLG.
      hlg: HLG instead of PQ.
      wide: the colours are those of BT.2020 instead of BT.709.

    Returns:
      uint8 [..., 3].

    Example:
      >>> white = np.full((1, 3), round(0.5807 * 65535), np.uint16)  # PQ's code of 203 cd/m2
      >>> tone_mapped(white, hlg=False)
      array([[245, 245, 245]], dtype=uint8)
    """
    light = _light(hlg)[codes]
    if hlg:  # what a screen of 1,000 cd/m2 makes of the scene's light
        light *= (1000 / _WHITE) * np.power(light @ _LUMA_2020, 0.2)[..., None]
    if wide:
        light = np.maximum(light @ _TO_709.T, 0)
    largest = light.max(-1, keepdims=True)
    bright = np.maximum(largest, KNEE)
    light *= (1 - (1 - KNEE) * np.exp((KNEE - bright) / (1 - KNEE))) / bright
    return (np.power(light, 1 / _GAMMA) * 255).round().astype(np.uint8)


@functools.cache
def _light(hlg: bool) -> np.ndarray:
    """Light of each 16-bit code: HLG's of the scene, 0 to 1; PQ's of the screen, 1 for white."""
    code = np.arange(65536) / 65535
    if hlg:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype("f4")
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = code ** (1 / m2)
    light = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return (light / _WHITE).astype("f4")
