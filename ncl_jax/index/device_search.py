"""Exact top-k of biased logits, without sorting everything, over any number of devices.

Each device goes through its items in panels. A panel is scored while it is in cache, and of its
blocks of `WIDTH` items only those stay that are among the k blocks of the highest maximum so far
(every top-k item lies in one of these). The k best of all devices' candidates are the answer.
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
PANEL = 4096
"""Items scored together by many queries, a multiple of `WIDTH`."""
WHOLE = 1 << 23
"""Scores up to which all items are one panel: cutting one out costs a copy of it."""
QUERIES = 1024
"""Queries searched together at most; their panel of scores takes 16 MB."""


class Shards(NamedTuple):
    """A gallery on the devices, padded with items of bias minus infinity.

    The bias is one more coordinate, so it costs one more multiplication in 512. Items are columns:
    the product with one query is then a plain read, where XLA:CPU copies rows to transpose them.
    """

    item: Float[Array, "dim_plus_1 padded"]
    panels: int  # of each device
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
    local = -(-max(1, count) // mesh.size)
    panels = -(-local // PANEL)
    padded = mesh.size * panels * WIDTH * -(-local // (WIDTH * panels))
    folded = np.zeros((item.shape[1] + 1, padded), np.float32)
    folded[:-1, :count], folded[-1, :count], folded[-1, count:] = item.T, bias, -np.inf
    columns = jax.device_put(folded, NamedSharding(mesh, P(None, "gallery")))
    return Shards(columns, panels, mesh, count)


def search(
    query: Float[np.ndarray, "query dim"], shards: Shards, k: int
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The `min(k, items)` best items of each query: scores, best first, and row numbers.

    Equal scores are ordered by row number. Queries are taken in chunks, padded so that few shapes
    are compiled.
    """
    k = min(k, shards.items)
    if k == 0 or not len(query):
        return np.zeros((len(query), k), np.float32), np.zeros((len(query), k), np.int64)
    scores, rows = [], []
    for start in range(0, len(query), QUERIES):
        part = query[start : start + QUERIES]
        folded = np.ones((_padded(len(part)), query.shape[1] + 1), np.float32)
        folded[: len(part), :-1] = part
        best, row = _search(folded, shards.item, k=k, panels=shards.panels, mesh=shards.mesh)
        scores.append(np.asarray(best)[: len(part)])
        rows.append(np.asarray(row)[: len(part)])
    return np.concatenate(scores), np.concatenate(rows).astype(np.int64)


def _padded(queries: int) -> int:
    """At most an eighth more: sixteen sizes per doubling, and each up to 32."""
    step = max(1, (1 << (queries - 1).bit_length()) // 32)
    return -(-queries // step) * step


@partial(jax.jit, static_argnames=("k", "panels", "mesh"))
def _search(
    query: Array, item: Array, *, k: int, panels: int, mesh: Mesh
) -> tuple[Array, Array]:
    local = jax.shard_map(
        partial(_local, k=k, panels=panels),
        mesh=mesh,
        in_specs=(P(), P(None, "gallery")),
        out_specs=(P(None, "gallery"), P(None, "gallery")),
    )
    scores, rows = local(query, item)  # [query, device * k]
    if mesh.size == 1:
        return scores, rows
    best, place = lax.top_k(scores, k)
    return best, jnp.take_along_axis(rows, place, axis=1)


def _local(query: Array, item: Array, *, k: int, panels: int) -> tuple[Array, Array]:
    """Candidates of one device; row numbers are those of the whole gallery."""
    items = item.shape[1]
    k = min(k, items)
    first = lax.axis_index("gallery") * items
    if 2 * k * WIDTH > items:  # most blocks would stay: no use in choosing
        best, row = lax.top_k(_score(query, item), k)
        return best, row + first
    panels = 1 if len(query) * items <= WHOLE else panels
    width = items // panels
    blocks = width // WIDTH

    def step(panel: Array | int, kept: tuple[Array, ...]) -> tuple[Array, ...]:
        top, number, scores = kept
        columns = item
        if panels > 1:
            columns = lax.dynamic_slice_in_dim(item, panel * width, width, axis=1)
        new = _score(query, columns).reshape(len(query), blocks, WIDTH)
        top, chosen = lax.top_k(jnp.concatenate([top, new.max(axis=-1)], axis=1), k)
        numbers = jnp.broadcast_to(jnp.arange(blocks) + panel * blocks, (len(query), blocks))
        number = jnp.take_along_axis(jnp.concatenate([number, numbers], axis=1), chosen, axis=1)
        old = jnp.take_along_axis(scores, jnp.minimum(chosen, k - 1)[:, :, None], axis=1)
        fresh = jnp.take_along_axis(new, jnp.maximum(chosen - k, 0)[:, :, None], axis=1)
        return top, number, jnp.where(chosen[:, :, None] < k, old, fresh)

    start = (
        jnp.full((len(query), k), -jnp.inf),
        jnp.zeros((len(query), k), jnp.int32),
        jnp.full((len(query), k, WIDTH), -jnp.inf),
    )
    start = lax.pcast(start, "gallery", to="varying")
    _, number, scores = (
        step(0, start) if panels == 1 else lax.fori_loop(0, panels, step, start)
    )
    order = jnp.argsort(number, axis=1)  # so that equal scores stay in the order of their rows
    number = jnp.take_along_axis(number, order, axis=1)
    scores = jnp.take_along_axis(scores, order[:, :, None], axis=1)
    best, place = lax.top_k(scores.reshape(len(query), -1), k)
    row = jnp.take_along_axis(number, place // WIDTH, axis=1) * WIDTH + place % WIDTH
    return best, row + first


def _score(query: Array, columns: Array) -> Array:
    return jnp.dot(query, columns, precision=lax.Precision.HIGHEST)
