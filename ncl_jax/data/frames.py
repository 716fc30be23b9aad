"""Which frames of a clip are shown, and in which order."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from ncl_jax.errors import InputError, check_choice

Choice = Literal["uniform", "head", "tail", "tsn_centre", "tsn_random"]
Order = Literal["ordinary", "reverse", "random"]


def choose_frames(
    count: int, limit: int, how: Choice = "uniform", rng: np.random.Generator | None = None
) -> Int[np.ndarray, " frame"]:
    """Picks at most `limit` of `count` frame positions, in order.

    Args:
      count: frames there are, >= 0.
      limit: frames wanted, >= 1.
      how: "uniform" spreads integer positions evenly from the first to the last frame, "head"
        takes the first ones, "tail" the last ones. The others cut the clip into `limit` equal
        segments (Wang et al., Temporal Segment Networks, 2016) and take the centre of each, or
        a random frame of each.
      rng: for "tsn_random" only.

    Returns:
      int64 [min(count, limit)], strictly increasing; all positions if `count <= limit`.

    Example:
      >>> choose_frames(10, 4).tolist(), choose_frames(10, 3, "tsn_centre").tolist()
      ([0, 3, 6, 9], [1, 4, 7])
    """
    if limit < 1:
        raise InputError(f"limit: expected at least 1 frame, got {limit}")
    check_choice("frame choice", how, get_args(Choice))
    if count <= limit or how == "head":
        return np.arange(min(count, limit))
    if how == "tail":
        return np.arange(count - limit, count)
    if how == "uniform":
        return np.linspace(0, count - 1, num=limit, dtype=np.int64)
    edges = np.arange(limit + 1) * count // limit
    if how == "tsn_centre":
        return (edges[:-1] + edges[1:] - 1) // 2
    if rng is None:
        raise InputError("rng: 'tsn_random' draws frames and needs a generator")
    return rng.integers(edges[:-1], edges[1:])


def order_frames(
    chosen: Int[np.ndarray, " frame"], order: Order, rng: np.random.Generator | None = None
) -> Int[np.ndarray, " frame"]:
    """The chosen positions as they are, backwards, or permuted by `rng`.

    Example:
      >>> order_frames(np.array([0, 4, 8]), "reverse").tolist()
      [8, 4, 0]
    """
    check_choice("frame order", order, get_args(Order))
    if order == "random":
        if rng is None:
            raise InputError("rng: the order 'random' needs a generator")
        return rng.permutation(chosen)
    return chosen[::-1] if order == "reverse" else chosen


def length_of(times: Sequence[float] | Float[np.ndarray, " frame"]) -> float:
    """Seconds that frames at these times stand for: the last one as long as the one before it.

    Example:
      >>> length_of([0.0, 0.5]), length_of([0.0]), length_of([])
      (1.0, 1.0, 0.0)
    """
    if not len(times):
        return 0.0
    step = float(times[-1] - times[-2]) if len(times) > 1 else 1.0
    return float(times[-1]) + step
