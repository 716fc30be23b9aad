"""Display matrices: how a stored picture has to be turned or mirrored before it is shown.

A matrix takes a stored pixel (x, y), y downwards, to (a x + c y, b x + d y), plus an offset that
only says where the picture lands. Eight matrices are orientations: the rows and columns may change
places, and each direction may be reversed. A file can hold any nine numbers.
"""

from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import Type

# Numbers up to this share of the large ones are rounding errors: one degree, as FFmpeg has it.
_SMALL = 0.0175
# Kinds of side data that FFmpeg may know beyond those of PyAV, which are numbered from 0.
_NEW_KINDS = 8


class Orientation(NamedTuple):
    """Turns a stored picture into the shown one: first `transpose`, then the mirrors.

    Attributes:
      transpose: rows become columns.
      mirror: left and right change places.
      flip: top and bottom change places.
    """

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The shown picture [height, width, ...], a view of the stored one."""
        image = image.swapaxes(0, 1) if self.transpose else image
        image = image[:, ::-1] if self.mirror else image
        return image[::-1] if self.flip else image


def from_matrix(matrix: bytes) -> Orientation | None:
    """The orientation that a display matrix asks for.

    Args:
      matrix: nine native 32-bit integers a, b, u, c, d, v, x, y, w; a to d in units of 1 / 65536.

    Returns:
      None where it is no orientation: zeros, another angle, shear.

    Example:
      >>> from_matrix(np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], np.int32).tobytes())
      Orientation(transpose=True, mirror=True, flip=False)
    """
    if len(matrix) != 36:
        return None
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    straight, crossed = (a, d), (c, b)
    for (across, down), other in ((straight, crossed), (crossed, straight)):
        if across and down and max(map(abs, other)) <= _SMALL * min(abs(across), abs(down)):
            return Orientation(other is straight, across < 0, down < 0)
    return None


class Seen(NamedTuple):
    """The display matrix that holds for a picture.

    Attributes:
      angle: PyAV's reading of the picture's own matrix, 0 without one; it tells mirrors from turns
        as little as zeros from a turn.
      matrix: that holds, None if there was none.
    """

    angle: int
    matrix: bytes | None


def seen(picture: av.VideoFrame, before: Seen | None) -> Seen:
    """What holds for a picture after what held for the one before: a matrix, until another comes.

    The matrix is read when the angle is another one. (In PyAV before 19 reading makes a cycle of
    references, by which a picture lives until the garbage collector comes by.)
    """
    if before is not None and picture.rotation == before.angle:
        return before
    matrix = matrix_of(picture)
    if matrix is None and before is not None:
        matrix = before.matrix
    return Seen(picture.rotation, matrix)


def matrix_of(picture: av.VideoFrame) -> bytes | None:
    """The display matrix beside a decoded picture; None if there is none."""
    try:
        beside = picture.side_data
    except ValueError:  # PyAV before 19 fails at kinds that came after it
        beside = _without_new_kinds(picture).side_data
    found = beside.get(Type.DISPLAYMATRIX)
    return None if found is None else bytes(found)


def _without_new_kinds(picture: av.VideoFrame) -> av.VideoFrame:
    graph = av.filter.Graph()
    last = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format,
        time_base=picture.time_base or Fraction(1),
    )  # fmt: skip
    for kind in range(len(Type), len(Type) + _NEW_KINDS):
        kept = graph.add("sidedata", f"mode=delete:type={kind}")
        last.link_to(kept)
        last = kept
    end = graph.add("buffersink")
    last.link_to(end)
    graph.configure()
    graph.push(picture)
    return cast("av.VideoFrame", graph.pull())
