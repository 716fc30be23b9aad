"""Exact top-k of biased logits, without sorting everything, over any number of devices.

Each device scores its rows of the gallery, takes the maximum of every block of `WIDTH` items,
looks into the k best blocks only (every top-k item lies in one of them) and hands back k
candidates; the k best of all devices' candidates are the answer.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

WIDTH = 128
"""Items per block; the last step then looks at `k * WIDTH` of them."""
CHUNK = 1 << 27
"""Scores held at once (512 MB of float32), over all devices."""


class Shards(NamedTuple):
    """A gallery on the devices, padded to equal shards with items of bias minus infinity.

    Items are columns: the product with one query is then a plain read, where XLA:CPU copies the
    whole gallery to transpose it.
    """

    item: Float[Array, "dim padded"]
    bias: Float[Array, " padded"]
    mesh: Mesh
    items: int


def place(
    item: Float[np.ndarray, "item dim"],
    bias: Float[np.ndarray, " item"],
    devices: list[jax.Device] | None = None,
) -> Shards:
    """Items and biases (both in the unit of the scores) spread over `devices` (default: all)."""
    mesh = Mesh(np.asarray(devices or jax.devices()), ("gallery",))
    count = len(item)
    padding = -count % (WIDTH * mesh.size) if count else WIDTH * mesh.size
    item = np.pad(np.asarray(item, np.float32), ((0, padding), (0, 0)))
    bias = np.pad(np.asarray(bias, np.float32), (0, padding), constant_values=-np.inf)
    columns = jax.device_put(item.T, NamedSharding(mesh, P(None, "gallery")))
    return Shards(columns, jax.device_put(bias, NamedSharding(mesh, P("gallery"))), mesh, count)


def search(
    query: Float[np.ndarray, "query dim"], shards: Shards, k: int
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The `min(k, items)` best items of each query: scores, best first, and row numbers.

    Equal scores are ordered by row number. Queries are taken in chunks, padded to a power of two
    so that few shapes are compiled.
    """
    k = min(k, shards.items)
    if k == 0 or not len(query):
        return np.zeros((len(query), k), np.float32), np.zeros((len(query), k), np.int64)
    most = max(1, CHUNK // shards.item.shape[1])
    chunk = min(1 << (len(query) - 1).bit_length(), 1 << (most.bit_length() - 1))
    scores, rows = [], []
    for start in range(0, len(query), chunk):
        part = query[start : start + chunk]
        part_size = len(part)
        if part_size < chunk:
            size = min(chunk, 1 << (part_size - 1).bit_length())
            part = np.pad(part, ((0, size - part_size), (0, 0)))
        best, row = _search(part, shards.item, shards.bias, k=k, mesh=shards.mesh)
        scores.append(np.asarray(best)[:part_size])
        rows.append(np.asarray(row)[:part_size])
    return np.concatenate(scores), np.concatenate(rows).astype(np.int64)


@partial(jax.jit, static_argnames=("k", "mesh"))
def _search(query: Array, item: Array, bias: Array, *, k: int, mesh: Mesh) -> tuple[Array, Array]:
    local = jax.shard_map(
        partial(_local, k=k),
        mesh=mesh,
        in_specs=(P(), P(None, "gallery"), P("gallery")),
        out_specs=(P(None, "gallery"), P(None, "gallery")),
    )
    scores, rows = local(query, item, bias)  # [query, device * k]
    if mesh.size == 1:
        return scores, rows
    best, place = lax.top_k(scores, k)
    return best, jnp.take_along_axis(rows, place, axis=1)


def _local(query: Array, item: Array, bias: Array, *, k: int) -> tuple[Array, Array]:
    """Candidates of one device; row numbers are those of the whole gallery."""
    scores = jnp.dot(query, item, precision=lax.Precision.HIGHEST)
    scores = lax.optimization_barrier(scores) + bias  # else XLA:CPU fuses into a slow product
    best, row = top_k(scores, min(k, scores.shape[1]))
    return best, row + lax.axis_index("gallery") * scores.shape[1]


def top_k(scores: Float[Array, "query item"], k: int) -> tuple[Array, Array]:
    """`lax.top_k` of each row (ties included), reading the rows once and sorting few values.

    The number of items must be a multiple of `WIDTH`.
    """
    queries, items = scores.shape
    if items // WIDTH <= k:
        return lax.top_k(scores, k)
    blocks = scores.reshape(queries, -1, WIDTH)
    _, block = lax.top_k(blocks.max(axis=-1), k)
    block = jnp.sort(block, axis=1)  # so that equal scores stay in the order of their rows
    few = jnp.take_along_axis(blocks, block[:, :, None], axis=1).reshape(queries, -1)
    best, place = lax.top_k(few, k)
    return best, jnp.take_along_axis(block, place // WIDTH, axis=1) * WIDTH + place % WIDTH
