"""Pairs of a batch that show the same clip, and sums over them without a B x B mask."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Positives = Literal["same_clip", "diagonal"]


class Pairs(NamedTuple):
    """The whole batch, equal on every device, and the position of this device's first row.

    `slot` numbers the clips: pairs with equal slots are positives of each other. None stands for
    "diagonal", where a pair is its own only positive. `sharing` is the number of valid pairs in
    the slot of each pair.
    """

    valid: Bool[Array, " batch"]
    slot: Int[Array, " batch"] | None
    sharing: Float[Array, " batch"]
    first: Int[Array, ""]


def make_pairs(
    video_id: Int[Array, " local"],
    valid: Bool[Array, " local"],
    dtype: jnp.dtype,
    positives: Positives,
    axis_name: str | None,
) -> Pairs:
    """Gathers the validity of all pairs and, unless "diagonal", their ids."""
    size = valid.shape[0]
    first = jnp.zeros((), jnp.int32)
    if axis_name is not None:
        first = lax.axis_index(axis_name) * size
    everyone = gather(valid, axis_name)
    if positives == "diagonal":
        return Pairs(everyone, None, jnp.ones(everyone.shape, dtype), first)
    ids = gather(video_id, axis_name)
    _, slot = jnp.unique(ids, return_inverse=True, size=ids.shape[0])
    slot = slot.reshape(-1)
    alone = Pairs(everyone, slot, jnp.ones(everyone.shape, dtype), first)
    count = group_sum(everyone.astype(dtype), alone)
    return alone._replace(sharing=jnp.maximum(count, 1))


def group_sum(of_all: Float[Array, "batch *dim"], pairs: Pairs) -> Float[Array, "batch *dim"]:
    """Sum over the positives of each pair; `of_all` is zero at padded rows."""
    if pairs.slot is None:
        return of_all
    return jax.ops.segment_sum(of_all, pairs.slot, pairs.slot.shape[0])[pairs.slot]


def group_sum_of_local(
    of_local: Float[Array, "local *dim"], pairs: Pairs
) -> Float[Array, "batch *dim"]:
    """The local rows' part of `group_sum`; the sum over devices completes it."""
    size, everyone = of_local.shape[0], pairs.valid.shape[0]
    if pairs.slot is None:
        if size == everyone:
            return of_local
        full = jnp.zeros((everyone, *of_local.shape[1:]), of_local.dtype)
        return lax.dynamic_update_slice_in_dim(full, of_local, pairs.first, 0)
    sums = jax.ops.segment_sum(of_local, local(pairs.slot, pairs, size), everyone)
    return sums[pairs.slot]


def local(of_all: Array, pairs: Pairs, size: int) -> Array:
    """The `size` entries that belong to this device."""
    if of_all.shape[0] == size:
        return of_all
    return lax.dynamic_slice_in_dim(of_all, pairs.first, size)


def gather(x: Array, axis_name: str | None) -> Array:
    """The rows of all devices, in order."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


def scatter_sum(x: Array, axis_name: str | None) -> Array:
    """The sum over devices, of which each keeps its own rows: the transpose of `gather`."""
    return x if axis_name is None else lax.psum_scatter(x, axis_name, tiled=True)
