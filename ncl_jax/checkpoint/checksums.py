"""What a checkpoint holds, in few numbers: to name the first difference, and to notice damage."""

import contextlib
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from ncl_jax.errors import InputError
from ncl_jax.types import TrainState

BASE, PARTS = 31, 8  # of the weights of places; that a sum is folded into


def describe(
    arrays: dict[str, Array], data: dict[str, Any], metadata: dict[str, Any]
) -> dict[str, Any]:
    """Every array described, and digests of the rest and of the description itself."""
    held = {"leaves": describe_arrays(arrays), "data": digest(data), "metadata": digest(metadata)}
    return held | {"digest": digest(held)}


def changed(held: dict[str, Any], data: dict[str, Any], metadata: dict[str, Any]) -> str:
    """Which of the parts that are not arrays is not as `describe` saw it; "" where all are.

    Raises:
      KeyError: `held` is not from `describe`.
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


def flatten_state(state: TrainState) -> dict[str, Array]:
    """{"params.logit_scale": array, ...}: every leaf of a state; random keys as their numbers.

    Raises:
      InputError: a leaf is no array, nor a number that JAX keeps as it is.
    """
    return _by_path(state)


def flatten_params(params: Any) -> dict[str, Array]:
    """The part of `flatten_state` that are parameters."""
    return _by_path({"params": params})


def unflatten_params(arrays: dict[str, Array], like: Any) -> Any:
    """The inverse of `flatten_params`, in the form of `like`."""
    return _from_path(arrays, {"params": like})["params"]


def _by_path(tree: Any) -> dict[str, Array]:
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = (jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named)
    return {name: _numbers(name, leaf) for name, (_, leaf) in zip(names, named, strict=True)}


def _from_path(arrays: dict[str, Array], like: Any) -> Any:
    leaves, tree = jax.tree.flatten(like)
    found = (arrays[name] for name in _by_path(like))
    made = (_as_leaf(array, leaf) for leaf, array in zip(leaves, found, strict=True))
    return jax.tree.unflatten(tree, list(made))


def _as_leaf(array: Array, like: Any) -> Array:
    """The inverse of `_numbers`."""
    if _is_key(like):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
    return array.astype(like.dtype) if isinstance(like, Array) and _is_narrow(like) else array


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_narrow(leaf: Array) -> bool:
    """Of fewer than eight bits: TensorStore does not know all of these."""
    return leaf.dtype != bool and not _is_key(leaf) and _width(leaf) < 8


def _numbers(name: str, leaf: Any) -> Array:
    """A leaf as an array that can be kept: keys as their data, narrow numbers in wider ones."""
    if isinstance(leaf, Array):
        if _is_key(leaf):
            return jax.random.key_data(leaf)
        if not _is_narrow(leaf):
            return leaf
        wider = ((jnp.signedinteger, jnp.int8), (jnp.unsignedinteger, jnp.uint8))
        kind = next((to for of, to in wider if jnp.issubdtype(leaf.dtype, of)), jnp.float32)
        return leaf.astype(kind)
    kept = None
    with contextlib.suppress(TypeError, ValueError):
        kept = jnp.asarray(leaf)
    if kept is None or (isinstance(leaf, np.ndarray) and kept.dtype != leaf.dtype):
        got = getattr(leaf, "dtype", type(leaf).__name__)
        raise InputError(
            f"{name} of the state is {got}, which JAX does not keep as it is; make it a jax.Array"
        )
    return kept


def unflatten_state(arrays: dict[str, Array], like: TrainState) -> TrainState:
    """The inverse of `flatten_state`, in the form of `like`."""
    state: TrainState = _from_path(arrays, like)
    return state


def describe_arrays(arrays: dict[str, Array]) -> dict[str, list[Any]]:
    """{name: [shape, type, sum of its bits]}, the same under every sharding."""
    sums = {}
    for name, array in arrays.items():
        sums[name] = _bit_sum(array)
        if not array.sharding.is_fully_replicated:
            # A sum of a spread array is a collective, and on CPUs those of several programs at
            # once can wait for each other for ever.
            sums[name].block_until_ready()
    sums = jax.device_get(sums)
    return {name: [*form(array), int(sums[name])] for name, array in arrays.items()}


def form(array: Array) -> list[Any]:
    """[shape, type], as JSON gives them back."""
    return [list(array.shape), str(array.dtype)]


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of_arrays(tree: Any) -> str:
    """SHA-256 of the bits of all leaves, taken on the host: nothing is compiled for it."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


@jax.jit
def _bit_sum(leaf: Array) -> UInt32[Array, ""]:
    """The sum of its bits modulo 2^32, every entry weighted by its place.

    Integers wrap, so neither the order of summation nor the number of devices matters, and with
    odd weights no change of a single entry cancels.
    """
    bits, rest = _folded(_bits(leaf).astype(jnp.uint32))
    weight = jnp.zeros((), jnp.uint32)
    for axis in range(bits.ndim):
        place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        weight = weight * jnp.uint32(BASE) + jnp.uint32(2) * place
    return jnp.sum(bits * (weight + jnp.uint32(1)) + rest, dtype=jnp.uint32)


def _bits(leaf: Array) -> Array:
    """Its bits as unsigned numbers of at most 32 bits; wider ones along one more axis."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == bool:
        return leaf
    return jax.lax.bitcast_convert_type(leaf, f"uint{min(_width(leaf), 32)}")


def _width(leaf: Array) -> int:
    """Bits of an entry; of a complex one, of its real part."""
    integer = jnp.issubdtype(leaf.dtype, jnp.integer)
    return int((jnp.iinfo if integer else jnp.finfo)(leaf.dtype).bits)


def _folded(bits: Array) -> tuple[Array, Array | int]:
    """An array of an eighth, whose sum with weights, and with the second, is that of the whole.

    XLA sums integers one by one on a CPU, but adds whole arrays several numbers at a time. Weights
    grow evenly along an axis, so those of a later part are those of the first and a constant. The
    shortest axis is folded: it is not the one that is cut where the state is spread over devices.
    """
    fitting = [axis for axis in range(bits.ndim) if bits.shape[axis] % PARTS == 0]
    if not fitting:
        return bits, 0
    axis = min(fitting, key=lambda d: (bits.shape[d], -d))
    parts = jnp.split(bits, PARTS, axis=axis)
    step = 2 * parts[0].shape[axis] * BASE ** (bits.ndim - 1 - axis)
    later = sum(part * jnp.uint32(number) for number, part in enumerate(parts))
    return sum(parts[1:], parts[0]), later * jnp.uint32(step % 2**32)
