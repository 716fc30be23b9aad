"""Balances scores of a gallery too large for one device, over all devices of a job."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ncl_jax.sinkhorn import iterate
from ncl_jax.sinkhorn.blocks import Tiled
from ncl_jax.sinkhorn.iterate import IterationOptions, Masses
from ncl_jax.types import CONVERGED, Biases, SinkhornReport

AXIS = "rows"


def balance(
    text: Float[np.ndarray, "text dim"],
    video: Float[np.ndarray, "video dim"],
    scale: float,
    *,
    iterations: int,
    strength: float = 1.0,
    devices: list[jax.Device] | None = None,
) -> tuple[Biases, SinkhornReport]:
    """Biases that balance `exp(scale * text @ video.T)`: mass 1 per text, texts / videos per video.

    The videos are split among the devices. In every update, each device recomputes the panels of
    its own videos one at a time; the devices then sum one number per text.

    Args:
      text: unit-norm rows; the same host array on every process, copied whole to every device.
      video: unit-norm rows; the same host array on every process, split among the devices.
      scale: logits per cosine, > 0.
      iterations: pairs of updates, the video side first and last.
      strength: as in `sinkhorn.solve`.
      devices: by default all devices of all processes; every process must call this function.

    Relations: equals `sinkhorn.solve` of the whole matrix up to rounding.
    """
    devices = devices or jax.devices()
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    missing = -len(video) % len(devices)
    rows = np.pad(np.asarray(video, np.float32) * np.float32(scale), [(0, missing), (0, 0)])
    log_mass = np.full(len(rows), math.log(len(text) / len(video)), np.float32)
    log_mass[len(video) :] = -np.inf
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    run = jax.shard_map(
        partial(_local, iterations, strength),
        mesh=mesh,
        in_specs=(split, split, whole, whole),
        out_specs=whole,
        check_vma=False,
    )
    solved = jax.jit(run)(
        _place(rows, mesh, split),
        _place(log_mass, mesh, split),
        _place(np.asarray(text, np.float32), mesh, whole),
        _place(np.zeros(len(text), np.float32), mesh, whole),
    )
    b, a, error = (np.asarray(x) for x in solved)
    b = b[: len(video)]
    shift = b.mean() if strength == 1 else np.float32(0)
    biases = Biases(jnp.asarray(a + shift), jnp.asarray(b - shift))
    report = SinkhornReport(*map(jnp.asarray, (error, iterations, error < CONVERGED)))
    return biases, report


def _local(
    iterations: int, strength: float, rows: Array, log_row: Array, text: Array, log_col: Array
) -> tuple[Array, Array, Array]:
    """Solves with this device's videos as rows, updated first, and all texts as columns."""
    options = IterationOptions(max(0, iterations - 1), None, False, strength, AXIS)
    scores, masses = Tiled(rows, text), Masses(log_row, log_col)
    b = masses.free_col()
    a = iterate.exact_rows(scores, masses, options, b)
    if iterations:
        b = iterate.exact_first_columns(scores, masses, options, a)
        update = iterate.exact_pair(scores, masses, options)
        b = iterate.run(update, a, b, masses, options)[0].b
        a = iterate.exact_rows(scores, masses, options, b)
    error = iterate.col_error(scores, a, b, masses, options)
    return lax.all_gather(a, AXIS, tiled=True), b, error


def _place(array: np.ndarray, mesh: Mesh, spec: PartitionSpec) -> Array:
    """A global array from a host array that every process has."""
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
