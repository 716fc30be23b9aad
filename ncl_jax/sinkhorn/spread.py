"""Balancing a score matrix that no single device could hold, over all devices of a job."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ncl_jax.sinkhorn import iterate
from ncl_jax.sinkhorn import kernel as kernels
from ncl_jax.sinkhorn.iterate import Masses, Plan
from ncl_jax.sinkhorn.panels import Tiled
from ncl_jax.types import Biases, SinkhornReport

AXIS = "rows"
CONVERGED = 1e-3


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

    The texts are split among the devices; each recomputes panels of its own rows in every update
    and never holds more than one. An update costs one sum of a number per video over the devices.

    Args:
      text: unit rows; the same host array on every process.
      video: likewise; kept whole on every device.
      scale: logits per cosine, > 0.
      iterations: pairs of updates, the video side first and last.
      strength: as in `sinkhorn.solve`.
      devices: default all, of all processes; all processes must call.

    Relations: equals `sinkhorn.solve` of the whole matrix, to rounding.
    """
    devices = devices or jax.devices()
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    missing = -len(text) % len(devices)
    rows = np.pad(np.asarray(text, np.float32) * np.float32(scale), [(0, missing), (0, 0)])
    log_mass = np.zeros(len(rows), np.float32)
    log_mass[len(text) :] = -np.inf
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    run = jax.shard_map(
        partial(_local, Plan(iterations, None, False, strength, AXIS)),
        mesh=mesh,
        in_specs=(split, split, whole, whole),
        out_specs=whole,
        check_vma=False,
    )
    share = np.float32(math.log(len(text) / len(video)))
    solved = jax.jit(run)(
        _placed(rows, mesh, split),
        _placed(log_mass, mesh, split),
        _placed(np.asarray(video, np.float32), mesh, whole),
        _placed(np.full(len(video), share), mesh, whole),
    )
    a, b, error = (np.asarray(x) for x in solved)
    shift = b.mean() if strength == 1 else np.float32(0)
    biases = Biases(jnp.asarray(a[: len(text)] + shift), jnp.asarray(b - shift))
    report = SinkhornReport(*map(jnp.asarray, (error, iterations, error < CONVERGED)))
    return biases, report


def _local(
    plan: Plan, rows: Array, log_row: Array, video: Array, log_col: Array
) -> tuple[Array, Array, Array]:
    scores, masses = Tiled(rows, video), Masses(log_row, log_col)
    first = iterate.exact_first_columns(scores, masses, plan, masses.free_row())
    update = iterate.exact_pair(scores, masses, plan)
    state, _ = iterate.run(update, masses.free_row(), first, masses, plan)
    _, lse = scores.fold(
        lambda _, s, __: (None, kernels.exact_row_lse(s, state.b)), None, log_row
    )
    error = iterate.row_error(lse, state.a, masses, plan)
    return lax.all_gather(state.a, AXIS, tiled=True), state.b, error


def _placed(array: np.ndarray, mesh: Mesh, spec: PartitionSpec) -> Array:
    """A host array that every process has, as a global one."""
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
