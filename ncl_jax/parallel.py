"""Devices: one mesh over all of them, and the step mapped over its axis `data`."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ncl_jax.types import Batch, TrainState

AXIS = "data"
Mapper = Literal["shard_map", "pmap"]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


class MappedStep(NamedTuple):
    """A per-device step made global.

    `place` turns a host batch into the form `run` takes; the state is replicated and has no
    device axis under either mapper. `run` gives its state argument's memory away.
    """

    place: Callable[[Batch], Batch]
    run: Step


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `data` over the given devices (default: all)."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise where the global batch does not divide among the devices."""
    if batch_size % mesh.size:
        raise ValueError(
            f"train.batch_size: expected a multiple of the {mesh.size} devices, got {batch_size}"
        )


def map_step(step: Step, mesh: Mesh, mapper: Mapper) -> MappedStep:
    """Map a per-device step with collectives over `data` to all devices of the mesh.

    `step` must return the same state and metrics on every device: it has to psum its gradients
    itself, since `check_vma=False` leaves them local. pmap is kept because JAX implements it by
    shard_map; both give the same numbers.
    """
    if mapper not in get_args(Mapper):
        raise ValueError(f"mapper: expected one of {get_args(Mapper)}, got {mapper!r}")
    if mapper == "pmap":
        return MappedStep(
            place=lambda batch: jax.tree.map(lambda x: _split(x, mesh), batch),
            run=jax.pmap(
                step,
                axis_name=AXIS,
                in_axes=(None, 0),
                out_axes=None,
                devices=list(mesh.devices.flat),
                donate_argnums=0,
            ),
        )
    replicated, split = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(replicated, split), out_specs=replicated, check_vma=False
    )
    return MappedStep(
        place=lambda batch: shard(batch, mesh), run=jax.jit(mapped, donate_argnums=0)
    )


def shard(tree: Any, mesh: Mesh) -> Any:
    """Host arrays -> global arrays split over `data`; each process brings its own rows."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Host or device arrays -> copies present on every device (safe to donate)."""
    return jax.device_put(jax.tree.map(jnp.copy, tree), NamedSharding(mesh, PartitionSpec()))


def _split(rows: np.ndarray, mesh: Mesh) -> np.ndarray:
    return rows.reshape(mesh.local_mesh.size, -1, *rows.shape[1:])
