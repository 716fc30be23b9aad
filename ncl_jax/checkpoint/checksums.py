"""Descriptions of a checkpoint's contents, which name the first difference and reveal damage."""

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

BASE = 31  # of the weights that mark the positions of entries
PARTS = 8  # equal parts into which an array is split before it is summed


def describe(
    arrays: dict[str, Array], data: dict[str, Any], metadata: dict[str, Any]
) -> dict[str, Any]:
    """A description of every array, and digests of the rest and of the description itself."""
    parts = {"leaves": describe_arrays(arrays), "data": digest(data), "metadata": digest(metadata)}
    return parts | {"digest": digest(parts)}


def changed(contents: dict[str, Any], data: dict[str, Any], metadata: dict[str, Any]) -> str:
    """The name of the first JSON item that differs from its digest, "" if none does.

    Args:
      contents: from `describe`.
      data: as restored.
      metadata: as restored.

    Raises:
      KeyError: `contents` is not from `describe`.
    """
    own = digest({name: value for name, value in contents.items() if name != "digest"})
    for name, found, expected in (
        ("contents", own, contents["digest"]),
        ("data", digest(data), contents["data"]),
        ("metadata", digest(metadata), contents["metadata"]),
    ):
        if found != expected:
            return name
    return ""


def flatten_state(state: TrainState) -> dict[str, Array]:
    """{"params.logit_scale": array, ...}: every leaf of a state; random keys become their key data.

    Raises:
      InputError: a leaf is neither an array nor a number that JAX stores unchanged.
    """
    return _by_path(state)


def flatten_params(params: Any) -> dict[str, Array]:
    """The parameters only, under the same names as in `flatten_state`."""
    return _by_path({"params": params})


def unflatten_params(arrays: dict[str, Array], like: Any) -> Any:
    """The inverse of `flatten_params`, in the form of `like`."""
    return _from_path(arrays, {"params": like})["params"]


def _by_path(tree: Any) -> dict[str, Array]:
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = (jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named)
    return {name: _storable(name, leaf) for name, (_, leaf) in zip(names, named, strict=True)}


def _from_path(arrays: dict[str, Array], like: Any) -> Any:
    leaves, tree = jax.tree.flatten(like)
    found = (arrays[name] for name in _by_path(like))
    made = (_restore_leaf(array, leaf) for leaf, array in zip(leaves, found, strict=True))
    return jax.tree.unflatten(tree, list(made))


def _restore_leaf(array: Array, like: Any) -> Array:
    """The inverse of `_storable`."""
    if _is_key(like):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
    return array.astype(like.dtype) if isinstance(like, Array) and _is_narrow(like) else array


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_narrow(leaf: Array) -> bool:
    """Whether entries have fewer than eight bits: TensorStore lacks some of these types."""
    return leaf.dtype != bool and not _is_key(leaf) and _width(leaf) < 8


def _storable(name: str, leaf: Any) -> Array:
    """A leaf as an array that can be saved: keys as key data, narrow types as wider ones."""
    if isinstance(leaf, Array):
        if _is_key(leaf):
            return jax.random.key_data(leaf)
        if not _is_narrow(leaf):
            return leaf
        wider = ((jnp.signedinteger, jnp.int8), (jnp.unsignedinteger, jnp.uint8))
        kind = next((to for of, to in wider if jnp.issubdtype(leaf.dtype, of)), jnp.float32)
        return leaf.astype(kind)
    array = None
    with contextlib.suppress(TypeError, ValueError):
        array = jnp.asarray(leaf)
    if array is None or (isinstance(leaf, np.ndarray) and array.dtype != leaf.dtype):
        got = getattr(leaf, "dtype", type(leaf).__name__)
        raise InputError(
            f"{name} of the state: expected an array that JAX stores unchanged, got {got}; make it "
            "a jax.Array"
        )
    return array


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
            # The sum of a sharded array is a collective. On CPUs, the collectives of programs that
            # run at the same time can deadlock, so each sum is awaited before the next.
            sums[name].block_until_ready()
    sums = jax.device_get(sums)
    return {name: [*form(array), int(sums[name])] for name, array in arrays.items()}


def form(array: Array) -> list[Any]:
    """[shape, type] in the form in which JSON returns them."""
    return [list(array.shape), str(array.dtype)]


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of_arrays(tree: Any) -> str:
    """SHA-256 of the bits of all leaves, computed on the host without compilation."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


@jax.jit
def _bit_sum(leaf: Array) -> UInt32[Array, ""]:
    """The sum of the entries' bits modulo 2^32, each entry weighted by its position.

    Integer addition wraps, so the order of summation and the number of devices do not matter. The
    weights are odd, so a change of a single entry always changes the sum.
    """
    bits, rest = _fold(_bits(leaf).astype(jnp.uint32))
    weight = jnp.zeros((), jnp.uint32)
    for axis in range(bits.ndim):
        place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        weight = weight * jnp.uint32(BASE) + jnp.uint32(2) * place
    return jnp.sum(bits * (weight + jnp.uint32(1)) + rest, dtype=jnp.uint32)


def _bits(leaf: Array) -> Array:
    """The bits as unsigned integers of at most 32 bits; wider types get one more axis."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == bool:
        return leaf
    return jax.lax.bitcast_convert_type(leaf, f"uint{min(_width(leaf), 32)}")


def _width(leaf: Array) -> int:
    """Bits of an entry; for complex types, bits of its real part."""
    integer = jnp.issubdtype(leaf.dtype, jnp.integer)
    return int((jnp.iinfo if integer else jnp.finfo)(leaf.dtype).bits)


def _fold(bits: Array) -> tuple[Array, Array | int]:
    """An array of an eighth of the size and a correction: their weighted sum is that of `bits`.

    On a CPU, XLA sums integers one by one, but adds whole arrays several numbers at a time. Weights
    grow linearly along an axis, so the weights of a later part are those of the first part plus a
    constant. The shortest axis is folded, because a sharded state is split along the longest one.
    """
    fitting = [axis for axis in range(bits.ndim) if bits.shape[axis] % PARTS == 0]
    if not fitting:
        return bits, 0
    axis = min(fitting, key=lambda d: (bits.shape[d], -d))
    parts = jnp.split(bits, PARTS, axis=axis)
    step = 2 * parts[0].shape[axis] * BASE ** (bits.ndim - 1 - axis)
    later = sum(part * jnp.uint32(number) for number, part in enumerate(parts))
    return sum(parts[1:], parts[0]), later * jnp.uint32(step % 2**32)
