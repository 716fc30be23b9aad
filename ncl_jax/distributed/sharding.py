"""One mesh over all devices, the sharding of the state, and the step mapped over `data`."""

import collections
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ncl_jax.errors import InputError, check_choice
from ncl_jax.types import Batch, TrainState

AXIS = "data"
MIN_SHARDED = 1 << 12
"""Parameters with fewer entries stay replicated: a gather would cost more than it saves."""
ParallelBackend = Literal["shard_map", "pmap"]
Sharding = Literal["replicated", "fsdp"]
Metrics = dict[str, Array]


class Step(NamedTuple):
    """A training step in two halves, so that one definition serves every sharding.

    `gradient`: (params, one device's rows) -> (that device's share of the gradient, metrics). It
    may use collectives over `data`; the shares add up to the gradient, and the metrics are the
    same on every device.
    `update`: (state, gradient, metrics) -> (state, metrics), of whole arrays.
    """

    gradient: Callable[[Any, Batch], tuple[Any, Metrics]]
    update: Callable[[TrainState, Any, Metrics], tuple[TrainState, Metrics]]


class MappedStep(NamedTuple):
    """A step mapped to all devices.

    `place` turns this process's rows of a batch into the form that `run` takes; the state has no
    device axis under either backend. `run` donates its state argument, which is invalid afterwards.
    """

    place: Callable[[Batch], Batch]
    run: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `data` over the given devices (default: all, of all processes)."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh, micro: int = 0) -> None:
    """Raise if the global batch does not divide among the devices and their micro-batches.

    Processes contribute equal shares, so each must have the same number of devices.
    """
    local = collections.Counter(device.process_index for device in mesh.devices.flat)
    if len(set(local.values())) > 1:
        raise InputError(
            f"expected as many devices in every process, got {dict(sorted(local.items()))} "
            "(process: devices); start processes on hosts of one kind"
        )
    if batch_size % mesh.size:
        raise InputError(
            f"train.batch_size: expected a multiple of the {mesh.size} devices, got {batch_size}"
        )
    each = batch_size // mesh.size
    if micro and each > micro and each % micro:
        raise InputError(
            f"batch.micro_batch_size: expected a divisor of the {each} pairs of each device "
            f"(train.batch_size={batch_size} over {mesh.size}), got {micro}"
        )


def state_sharding(state: Any, mesh: Mesh, rule: Sharding) -> Any:
    """The `NamedSharding` of every leaf of a state.

    "replicated" keeps a copy on every device. "fsdp" splits each leaf of at least `MIN_SHARDED`
    entries along its longest axis that divides among the devices. The rule depends on shapes only,
    so the moments of an optimizer are sharded like their parameters.
    """
    check_choice("sharding", rule, get_args(Sharding))

    def spec(leaf: Any) -> PartitionSpec:
        shape = np.shape(leaf)
        fitting = [d for d, size in enumerate(shape) if size % mesh.size == 0]
        if rule == "replicated" or np.prod(shape) < MIN_SHARDED or not fitting:
            return PartitionSpec()
        longest = max(fitting, key=lambda d: shape[d])
        return PartitionSpec(*[AXIS if d == longest else None for d in range(len(shape))])

    return jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf)), state)


def place_state(state: Any, sharding: Any) -> Any:
    """The same host state on every process -> newly allocated global arrays (safe to donate)."""
    # Without copies jit may return its arguments themselves, which belong to the caller.
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=sharding)
    return copy(state)


def map_step(
    step: Step, mesh: Mesh, parallel_backend: ParallelBackend, shardings: Any
) -> MappedStep:
    """Map a step to all devices of the mesh.

    Args:
      step: both halves.
      mesh: from `data_mesh`.
      parallel_backend: "shard_map", or "pmap", which JAX implements by shard_map: same results.
      shardings: of the state, from `state_sharding`. With sharded leaves, each device gathers the
        parameters at the start of the step and keeps its shard of the summed gradient at the end;
        the optimizer state and the update are never gathered.

    Raises:
      ValueError: an unknown backend, or pmap with a sharded state.
    """
    check_choice("parallel_backend", parallel_backend, get_args(ParallelBackend))
    specs = jax.tree.map(lambda leaf: leaf.spec, shardings)
    whole = all(spec == PartitionSpec() for spec in jax.tree.leaves(specs))
    if parallel_backend == "pmap":
        if not whole:
            raise InputError(
                "parallel_backend: pmap keeps a whole copy of the state on every device; use "
                "parallel_backend=shard_map for sharding=fsdp, or sharding=replicated"
            )
        return _by_pmap(step, mesh)

    def shares(params: Any, batch: Batch) -> tuple[Any, Metrics]:
        params = jax.tree.map(_gather, params, specs.params)
        grads, metrics = step.gradient(params, batch)
        return jax.tree.map(_reduce, grads, specs.params), metrics

    gradient = jax.shard_map(
        shares,
        mesh=mesh,
        in_specs=(specs.params, PartitionSpec(AXIS)),
        out_specs=(specs.params, PartitionSpec()),
        check_vma=False,
    )

    def run(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return step.update(state, *gradient(state.params, batch))

    everywhere = NamedSharding(mesh, PartitionSpec())
    return MappedStep(
        place=lambda batch: shard(batch, mesh),
        run=jax.jit(run, donate_argnums=0, out_shardings=(shardings, everywhere)),
    )


def shard(tree: Any, mesh: Mesh) -> Any:
    """Host arrays -> global arrays split over `data`; each process passes its own rows."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def gathered(encode: Callable[..., Array], mesh: Mesh) -> Callable[..., tuple[Array, Array]]:
    """An encoder of rows, distributed over all devices of all processes.

    Args:
      encode: (params, *rows) -> embeddings [row dim].
      mesh: from `data_mesh`.

    Returns:
      (params, ids, *rows) -> (ids, embeddings): each process passes its own rows and receives
      those of all processes.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    run = jax.jit(
        lambda params, ids, *rows: (ids, encode(params, *rows)), out_shardings=everywhere
    )
    return lambda params, *batch: run(params, *shard(batch, mesh))


def _by_pmap(step: Step, mesh: Mesh) -> MappedStep:
    def run(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, metrics = step.gradient(state.params, batch)
        return step.update(state, jax.lax.psum(grads, AXIS), metrics)

    rows = mesh.local_mesh.size
    mapped = jax.pmap(
        run,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=0,
    )
    everywhere = NamedSharding(mesh, PartitionSpec())

    def to_global(leaf: Array) -> Array:
        """An array of this process's devices, as pmap returns it -> a global, replicated array."""
        local = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, local)

    def run_all(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = mapped(state, batch)
        return jax.tree.map(to_global, state), metrics

    return MappedStep(
        place=lambda batch: jax.tree.map(lambda x: x.reshape(rows, -1, *x.shape[1:]), batch),
        run=mapped if jax.process_count() == 1 else run_all,
    )


def _gather(leaf: Array, spec: PartitionSpec) -> Array:
    return jax.lax.all_gather(leaf, AXIS, axis=spec.index(AXIS), tiled=True) if spec else leaf


def _reduce(share: Array, spec: PartitionSpec) -> Array:
    if not spec:
        return jax.lax.psum(share, AXIS)
    return jax.lax.psum_scatter(share, AXIS, scatter_dimension=spec.index(AXIS), tiled=True)
