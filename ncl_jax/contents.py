"""What a checkpoint holds, in few numbers: to name the first difference, and to notice damage."""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from ncl_jax.types import TrainState


def of(state: TrainState, data: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Every leaf described, and digests of the rest and of the description itself."""
    held = {"leaves": described(state), "data": digest(data), "metadata": digest(metadata)}
    return held | {"digest": digest(held)}


def changed(held: dict[str, Any], data: dict[str, Any], metadata: dict[str, Any]) -> str:
    """Which of the parts that are not arrays is not as `of` saw it; "" where all are.

    Raises:
      KeyError: `held` is not from `of`.
    """
    own = digest({name: value for name, value in held.items() if name != "digest"})
    for name, found, expected in (
        ("contents", own, held["digest"]),
        ("data", digest(data), held["data"]),
        ("metadata", digest(metadata), held["metadata"]),
    ):
        if found != expected:
            return name
    return ""


def described(state: TrainState) -> dict[str, list[Any]]:
    """{path of a leaf: [shape, type, sum of its bits]}, the same under every sharding."""
    plain = state._replace(rng=jax.random.key_data(state.rng))
    flat, _ = jax.tree_util.tree_flatten_with_path(plain)
    sums = jax.device_get(_bit_sums([leaf for _, leaf in flat]))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."):
            [list(leaf.shape), str(leaf.dtype), int(total)]
        for (path, leaf), total in zip(flat, sums, strict=True)
    }  # fmt: skip


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@jax.jit
def _bit_sums(leaves: list[Array]) -> list[UInt32[Array, ""]]:
    """Of each leaf the sum of its bits modulo 2^32, every entry weighted by its place.

    Integers wrap, so neither the order of summation nor the number of devices matters, and with
    odd weights no change of a single entry cancels.
    """

    def one(leaf: Array) -> Array:
        bits = leaf
        if leaf.dtype != bool:
            bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        weight = jnp.zeros((), jnp.uint32)
        for axis in range(leaf.ndim):
            place = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
            weight = weight * jnp.uint32(31) + jnp.uint32(2) * place
        return jnp.sum(bits.astype(jnp.uint32) * (weight + jnp.uint32(1)), dtype=jnp.uint32)

    return [one(leaf) for leaf in leaves]
