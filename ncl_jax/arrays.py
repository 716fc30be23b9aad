"""Numbers that users bring: what an array may hold, so that nothing of it is dropped in silence."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ncl_jax.errors import InputError


def real(values: ArrayLike, what: str) -> np.ndarray:
    """An array of real numbers as it is.

    Args:
      values: integers or floats of any width, `bfloat16` and its like among them.
      what: name for the message.

    Raises:
      ValueError: booleans, complex numbers, text, dates, objects, or records.

    Example:
      >>> real([1, 2], "scores").dtype.kind
      'i'
    """
    array = _array(values, what)
    kinds = (np.integer, np.floating)
    if not any(_is(array.dtype, kind) for kind in kinds):
        raise InputError(
            f"{what}: expected real numbers, got {array.dtype} of shape {array.shape}; convert "
            "them to float32"
        )
    return array


def single(values: ArrayLike, what: str) -> np.ndarray:
    """The same as float32.

    Raises:
      ValueError: as `real`; also finite numbers that float32 cannot hold.

    Example:
      >>> single([0.5], "rows").dtype.name
      'float32'
    """
    array = real(values, what)
    if array.dtype == np.float32:
        return array
    with np.errstate(over="ignore"):
        held = array.astype(np.float32)
    if np.isinf(held).any() and np.isinf(held).sum() > np.isinf(array.astype(np.float64)).sum():
        raise InputError(f"{what}: expected numbers below 3.4e38, which float32 can hold")
    return held


def whole(values: ArrayLike, what: str) -> np.ndarray:
    """An array of integers as int64; an empty one may be of any type.

    Raises:
      ValueError: anything but integers; numbers such as 1.0 too, for who knows what was lost.

    Example:
      >>> whole([0, 2], "video_of_text").tolist()
      [0, 2]
    """
    array = _array(values, what)
    if array.size and not _is(array.dtype, np.integer):
        raise InputError(
            f"{what}: expected integers, got {array.dtype} of shape {array.shape}; convert them "
            "to int64"
        )
    return array.astype(np.int64)


def _array(values: ArrayLike, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{what}: expected an array of numbers, got {error}") from error


def _is(dtype: np.dtype, kind: Any) -> bool:
    if dtype.kind != "V":
        return np.issubdtype(dtype, kind)
    import jax.numpy as jnp  # knows types that NumPy does not; who has them has imported it

    return bool(jnp.issubdtype(dtype, kind))
