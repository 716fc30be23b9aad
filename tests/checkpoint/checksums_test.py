"""Sums and leaves of a state: every bit counts, every kind of leaf comes back."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncl_jax.checkpoint import checkpointer as checkpointing
from ncl_jax.checkpoint import checksums
from ncl_jax.errors import InputError
from ncl_jax.training.step import init_state
from ncl_jax.types import TrainState
from tests.checkpoint.checkpointer_test import DATA, METADATA, restore, save


@pytest.mark.parametrize("shape", [(5, 7), (16, 24), (3, 8, 5), (40,), ()])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16])
def test_sums_see_every_bit_and_every_swap(shape, dtype):
    rng = np.random.default_rng(0)

    def described(array):
        state = init_state({"w": jnp.asarray(array)}, optax.sgd(1.0), 0)
        return checksums.describe_arrays(checksums.flatten_state(state))["params.w"][2]

    array = np.asarray(rng.normal(size=shape) * 100).astype(dtype)
    base = described(array)
    assert base == weighted_sum(array)
    if array.size > 1:
        swapped = array.copy()
        swapped.flat[[1, -1]] = array.flat[[-1, 1]]
        assert described(swapped) != base
    for place in rng.integers(0, array.nbytes, 10):
        flipped = array.copy()
        flipped.reshape(-1).view(np.uint8)[place] ^= 1 << (place % 8)
        assert described(flipped) != base


def with_odd_leaves():
    """Leaves of every kind that an optimizer's state may have."""
    rng = np.random.default_rng(0)
    complex64 = rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3))
    inner = {
        "key": jax.random.key(3, impl="rbg"),
        "keys": jax.random.split(jax.random.key(4), 5),
        "int4": jnp.asarray(rng.integers(-8, 8, (6, 8)), jnp.int4),
        "uint4": jnp.asarray(rng.integers(0, 16, (16,)), jnp.uint4),
        "float4": jnp.asarray(rng.normal(size=(5,)), jnp.float4_e2m1fn),
        "complex": jnp.asarray(complex64, jnp.complex64),
        "float8": jnp.asarray(rng.normal(size=(5,)), jnp.float8_e4m3fn),
        "flag": jnp.asarray([True, False]),
        "int8": jnp.asarray([-3, 4], jnp.int8),
        "count": 3,
    }
    return TrainState(jnp.int32(1), {"w": jnp.ones(3)}, (inner,), jax.random.key(0))


def test_every_kind_of_leaf_comes_back(tmp_path):
    state = with_odd_leaves()
    save(tmp_path, state)
    read = restore(tmp_path, state).state.opt_state[0]
    for name, leaf in state.opt_state[0].items():
        again = read[name]
        if name.startswith("key"):
            assert jax.random.key_impl(again) == jax.random.key_impl(leaf)
            again, leaf = jax.random.key_data(again), jax.random.key_data(leaf)
        leaf = jnp.asarray(leaf)
        assert again.dtype == leaf.dtype, name
        np.testing.assert_array_equal(np.asarray(again), np.asarray(leaf), err_msg=name)


@pytest.mark.parametrize("dtype", ["int4", "complex64", "complex128", "float64", "int64"])
def test_sums_see_every_bit_of_narrow_and_wide_types(dtype):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        array = np.asarray(rng.integers(-8, 8, (8, 3))).astype(jnp.dtype(dtype))
        base = checksums.describe_arrays({"a": jnp.asarray(array)})["a"]
        assert base[1] == dtype
        used = 4 if dtype == "int4" else 8 * array.dtype.itemsize
        for bit in range(used):
            flipped = array.copy()
            flipped.reshape(-1)[5:6].view(np.uint8)[bit // 8] ^= 1 << bit % 8
            assert checksums.describe_arrays({"a": jnp.asarray(flipped)})["a"] != base, bit


@pytest.mark.parametrize("leaf", [np.zeros(2), "text", np.asarray(["a"])])
def test_a_leaf_that_would_change_is_refused(tmp_path, leaf):
    state = with_odd_leaves()._replace(opt_state={"odd": leaf})
    with (
        contextlib.closing(checkpointing.Checkpointer(tmp_path)) as checkpointer,
        pytest.raises(InputError, match=r"opt_state.odd of the state: .* make it a jax.Array"),
    ):
        checkpointer.save(state, DATA, METADATA)


def weighted_sum(array):
    """The sum of bits, entry by entry."""
    bits = array.reshape(-1).view(f"uint{8 * array.dtype.itemsize}").reshape(array.shape)
    total = 0
    for place in np.ndindex(array.shape):
        number = 0
        for index in place:
            number = number * 31 + index
        total += int(bits[place]) * (2 * number + 1)
    return total % 2**32
