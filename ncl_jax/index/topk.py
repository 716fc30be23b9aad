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
"""Items scored together at most, a multiple of `WIDTH`."""
QUERIES = 1024
"""Queries searched together at most; their panel of scores takes 16 MB."""


class Shards(NamedTuple):
    """A gallery on the devices, in panels, padded with items of bias minus infinity.

    The bias is one more coordinate, so it costs one more multiplication in 512. Items are columns:
    the product with one query is then a plain read, where XLA:CPU copies rows to transpose them.
    """

    item: Float[Array, "panel dim_plus_1 width"]
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
    width = min(PANEL, WIDTH * max(1, -(-count // (WIDTH * mesh.size))))
    panels = mesh.size * max(1, -(-count // (width * mesh.size)))
    folded = np.zeros((panels * width, item.shape[1] + 1), np.float32)
    folded[:count, :-1], folded[:count, -1], folded[count:, -1] = item, bias, -np.inf
    columns = np.ascontiguousarray(folded.reshape(panels, width, -1).swapaxes(1, 2))
    return Shards(jax.device_put(columns, NamedSharding(mesh, P("gallery"))), mesh, count)


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
        best, row = _search(folded, shards.item, k=k, mesh=shards.mesh)
        scores.append(np.asarray(best)[: len(part)])
        rows.append(np.asarray(row)[: len(part)])
    return np.concatenate(scores), np.concatenate(rows).astype(np.int64)


def _padded(queries: int) -> int:
    """At most an eighth more: sixteen sizes per doubling, and each up to 32."""
    step = max(1, (1 << (queries - 1).bit_length()) // 32)
    return -(-queries // step) * step


@partial(jax.jit, static_argnames=("k", "mesh"))
def _search(query: Array, item: Array, *, k: int, mesh: Mesh) -> tuple[Array, Array]:
    local = jax.shard_map(
        partial(_local, k=k),
        mesh=mesh,
        in_specs=(P(), P("gallery")),
        out_specs=(P(None, "gallery"), P(None, "gallery")),
    )
    scores, rows = local(query, item)  # [query, device * k]
    if mesh.size == 1:
        return scores, rows
    best, place = lax.top_k(scores, k)
    return best, jnp.take_along_axis(rows, place, axis=1)


def _local(query: Array, item: Array, *, k: int) -> tuple[Array, Array]:
    """Candidates of one device; row numbers are those of the whole gallery."""
    panels, _, width = item.shape
    k = min(k, panels * width)
    first = lax.axis_index("gallery") * panels * width
    if 2 * k * WIDTH > panels * width:  # most blocks would stay: no use in choosing
        scores = jnp.concatenate([_score(query, panel) for panel in item], axis=1)
        best, row = lax.top_k(scores, k)
        return best, row + first
    blocks = width // WIDTH

    def step(kept: tuple[Array, ...], panel: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        top, number, scores = kept
        number_of_panel, columns = panel
        new = _score(query, columns).reshape(len(query), blocks, WIDTH)
        top, chosen = lax.top_k(jnp.concatenate([top, new.max(axis=-1)], axis=1), k)
        numbers = jnp.arange(blocks) + number_of_panel * blocks
        numbers = jnp.broadcast_to(numbers, (len(query), blocks))
        number = jnp.take_along_axis(jnp.concatenate([number, numbers], axis=1), chosen, axis=1)
        old = jnp.take_along_axis(scores, jnp.minimum(chosen, k - 1)[:, :, None], axis=1)
        fresh = jnp.take_along_axis(new, jnp.maximum(chosen - k, 0)[:, :, None], axis=1)
        return (top, number, jnp.where(chosen[:, :, None] < k, old, fresh)), None

    start = (
        jnp.full((len(query), k), -jnp.inf),
        jnp.zeros((len(query), k), jnp.int32),
        jnp.full((len(query), k, WIDTH), -jnp.inf),
    )
    start = lax.pcast(start, "gallery", to="varying")
    (_, number, scores), _ = lax.scan(step, start, (jnp.arange(panels), item))
    order = jnp.argsort(number, axis=1)  # so that equal scores stay in the order of their rows
    number = jnp.take_along_axis(number, order, axis=1)
    scores = jnp.take_along_axis(scores, order[:, :, None], axis=1)
    best, place = lax.top_k(scores.reshape(len(query), -1), k)
    row = jnp.take_along_axis(number, place // WIDTH, axis=1) * WIDTH + place % WIDTH
    return best, row + first


def _score(query: Array, columns: Array) -> Array:
    return jnp.dot(query, columns, precision=lax.Precision.HIGHEST)
