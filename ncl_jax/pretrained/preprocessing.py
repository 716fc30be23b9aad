"""How videos and captions become the arrays that a model's towers read."""

import dataclasses
import math
from typing import Any

from ncl_jax.data.clips import Shapes, View
from ncl_jax.errors import InputError, reason
from ncl_jax.video.colour import Look, check_look

JPEG_QUALITY = 90
"""Of a dataset whose settings do not state it."""


@dataclasses.dataclass(frozen=True)
class StoredFrames:
    """How frames are read from a file; training read them like this too.

    Attributes:
      fps: frames per second, > 0.
      short_side: pixels of the shorter side, >= 1.
      jpeg_quality: 1 to 95; frames pass through JPEG.
      look: `stored` or `shown`, see `video.colour.Look`.
    """

    fps: float
    short_side: int
    jpeg_quality: int = JPEG_QUALITY
    look: Look = "stored"

    def __post_init__(self) -> None:
        if not (_is_number(self.fps) and 0 < self.fps < math.inf):
            raise InputError(f"fps: expected frames per second above 0, got {self.fps!r}")
        if not (type(self.short_side) is int and self.short_side >= 1):
            raise InputError(f"short_side: expected pixels from 1, got {self.short_side!r}")
        if not (type(self.jpeg_quality) is int and 1 <= self.jpeg_quality <= 95):
            raise InputError(f"jpeg_quality: expected 1 to 95, got {self.jpeg_quality!r}")
        check_look(self.look)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From files and captions to what the towers read.

    Attributes:
      frames: how frames are read from files.
      shapes: frames and tokens at most, and pixels of the square that the model sees.
      view: which of the frames, and in which order.

    Example:
      >>> own = Preprocessing(StoredFrames(1.0, 224), Shapes(12, 224, 32))
      >>> Preprocessing.from_json(own.to_json(), "x") == own
      True
    """

    frames: StoredFrames
    shapes: Shapes
    view: View = dataclasses.field(default_factory=View)

    def to_json(self) -> dict[str, Any]:
        """Plain values by name, for a JSON file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Any, source: str) -> "Preprocessing":
        """The inverse of `to_json`.

        Args:
          content: of the file.
          source: its name, for the message.

        Raises:
          ValueError: other fields, or values out of range.
        """
        try:
            found = cls(
                StoredFrames(**content["frames"]), Shapes(**content["shapes"]),
                View(**content["view"]),
            )  # fmt: skip
        except (InputError, KeyError, TypeError) as error:
            raise InputError(
                f"{source}: expected the preprocessing of a model as ncl_jax saves it, got "
                f"another ({reason(error)}); save the model again"
            ) from error
        for name, value in dataclasses.asdict(found.shapes).items():
            if type(value) is not int or value < 1:
                raise InputError(f"{source}: {name}: expected a number from 1, got {value!r}")
        return found


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
