"""Compiles the training step for a TPU topology that is not there, and says what it needs.

    python -m benchmarks.aot --config=configs/msvd.py --topology=v5e:4x8 --clips=64,256 --within=16
    python -m benchmarks.aot --topology=v5e:4x8 --pairs=8192,32768,131072

Needs requirements-tpu.txt, in an environment of its own. Weights and data are shapes only. Peak
memory, collectives and what fits are the compiler's word; nothing is run, so nothing here is about
speed.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# No chip is looked for, nor kept from others: JAX itself runs on the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
# What libtpu asks of a host in the cloud; any answer will do, and none is complained of.
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-32")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import jax.numpy as jnp
import ml_collections
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import config_flags

from benchmarks.batch_memory import VOCABULARY, abstract_batch
from benchmarks.hlo import traffic
from ncl_jax import losses
from ncl_jax.distributed import sharding
from ncl_jax.experiment import build
from ncl_jax.models import clip
from ncl_jax.training.step import init_state

FORMS = ("plain", "remat", "cached", "cached+remat")


class Compiled(NamedTuple):
    """What one chip holds and does in a step, by the compiler. Bytes and FLOPs."""

    arguments: int  # state and batch
    peak: int
    flops: float
    collectives: list[tuple[str, int, int]]  # (operation, ring bytes, executions)
    seconds: float  # of compilation

    @property
    def sent(self) -> int:
        return sum(size * times for _, size, times in self.collectives)


def topology_mesh(name: str) -> Mesh:
    """The mesh of `parallel.data_mesh` over the chips of, say, "v5e:4x8".

    Raises:
      ValueError: no such topology, or libtpu is not installed.
    """
    # As on real pods, the two cores of a v4 chip are one device; others know it by themselves.
    kind = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        return sharding.data_mesh(topologies.get_topology_desc(name, "tpu", **kind).devices)
    except Exception as error:  # of the plugin: whatever it raises
        raise ValueError(
            f"--topology: expected one libtpu knows, as v5e:4x8, and requirements-tpu.txt "
            f"installed; got {name!r} ({str(error).splitlines()[0][:200]})"
        ) from error


def compile_step(config: ml_collections.ConfigDict, mesh: Mesh) -> Compiled | None:
    """The step that `ncl_jax.main` trains with, for these devices; None where it does not fit."""
    towers, params = clip.abstract(build.build_sizes(config, VOCABULARY))
    optimizer = build.build_optimizer(config)
    step = build.build_step(config, towers, optimizer)
    state = jax.eval_shape(lambda p: init_state(p, optimizer, 0), params)
    shardings = sharding.state_sharding(state, mesh, config.sharding)
    run = sharding.map_step(step, mesh, config.parallel_backend, shardings).run
    rows = NamedSharding(mesh, PartitionSpec(sharding.AXIS))
    batch = abstract_batch(config)
    args = _lying(state, shardings), _lying(batch, jax.tree.map(lambda _: rows, batch))
    return _compile(run, args, mesh.size)


def compile_loss(
    mesh: Mesh, name: str, size: int, materialize: str, dim: int = 512
) -> Compiled | None:
    """The loss alone with its gradient, at a global batch of `size` pairs."""
    # Finding the pairs of a clip costs both losses the same, and most of the compilation.
    options: dict[str, Any] = {
        "axis_name": sharding.AXIS, "materialize": materialize, "positives": "diagonal"
    }  # fmt: skip

    def total(*args: Any) -> jax.Array:
        values = losses.infonce(*args, **options)
        return values.sum() if name == "infonce" else losses.ncl(*args, **options)[0].sum()

    rows, whole = PartitionSpec(sharding.AXIS), PartitionSpec()
    gradient = jax.shard_map(
        lambda *args: jax.grad(total, (0, 1))(*args), mesh=mesh,
        in_specs=(rows, rows, whole, rows, rows), out_specs=(rows, rows), check_vma=False,
    )  # fmt: skip
    shapes = [((size, dim), jnp.float32)] * 2
    shapes += [((), jnp.float32), ((size,), jnp.int32), ((size,), jnp.bool_)]
    args = tuple(
        jax.ShapeDtypeStruct(shape, kind, sharding=NamedSharding(mesh, rows if shape else whole))
        for shape, kind in shapes
    )
    return _compile(jax.jit(gradient), args, mesh.size)


def _lying(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        tree, shardings,
    )  # fmt: skip


def _compile(function: Any, args: tuple[Any, ...], chips: int) -> Compiled | None:
    start = time.perf_counter()
    try:
        compiled = function.lower(*args).compile()
    except jax.errors.JaxRuntimeError as error:
        if "hbm" in str(error).lower() or "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise
    memory = compiled.memory_analysis()
    return Compiled(
        memory.argument_size_in_bytes,
        memory.peak_memory_in_bytes,
        compiled.cost_analysis()["flops"],
        traffic(compiled.as_text(), chips),
        time.perf_counter() - start,
    )


def set_form(config: ml_collections.ConfigDict, form: str, micro: int) -> None:
    """With or without recomputed blocks and gradient caching."""
    config.model.remat = "remat" in form
    config.batch.micro_batch_size = micro if "cached" in form else 0


def step_table(config: ml_collections.ConfigDict, mesh: Mesh, clips: list[int]) -> None:
    """One line per loss, form and clips per chip, up to the largest that fits."""
    print("| loss | form | clips per chip | peak GB | state and batch GB | TFLOP | collectives |"
          " MB sent | compiled in s |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for form in flags.FLAGS.form:
        for loss in flags.FLAGS.losses:
            config.loss.name = loss
            set_form(config, form, flags.FLAGS.micro)

            def fits(each: int, label: str = f"{loss} | {form}") -> bool:
                config.train.batch_size = each * mesh.size
                done = compile_step(config, mesh)
                print(f"| {label} | {each} | {_cells(done)} |", flush=True)
                return done is not None

            largest = largest_fitting(fits, clips, flags.FLAGS.within)
            print(f"{loss}, {form}: {largest} clips per chip fit, the most tried", flush=True)


def largest_fitting(fits: Callable[[int], bool], given: list[int], within: int) -> int:
    """The largest number that fits: of those given, or, with `within`, between them and so near.

    Args:
      fits: tried as seldom as can be.
      given: ascending.
      within: how far the largest may be missed, and the step between those tried, which cached
        forms want to be a multiple of the micro-batch; 0 tries no others than the given.

    Example:
      >>> largest_fitting(lambda n: n <= 150, [16, 64, 256], 16)
      144
    """
    low, high = 0, None
    for number in given:
        if not fits(number):
            high = number
            break
        low = number
    while within and high is not None and high - low > within:
        step = max(within, (high - low) // 2 // within * within)
        if fits(low + step):
            low += step
        else:
            high = low + step
    return low


def loss_table(mesh: Mesh, sizes: list[int]) -> None:
    """Peak bytes per chip of both losses alone, and what NCL adds, over batch sizes."""
    print("| scores | pairs | InfoNCE MB | NCL MB | NCL adds, bytes per pair | B^2/P, MB |"
          "\n|---|---|---|---|---|---|")  # fmt: skip
    for materialize in ("always", "never"):
        for size in sizes:
            one, other = (compile_loss(mesh, n, size, materialize) for n in ("infonce", "ncl"))
            if one is None or other is None:
                print(f"| {materialize} | {size} | does not fit | | | |", flush=True)
                break
            added = (other.peak - one.peak) / size
            print(f"| {materialize} | {size} | {one.peak / 1e6:.1f} | {other.peak / 1e6:.1f}"
                  f" | {added:.0f} | {4e-6 * size**2 / mesh.size:.1f} |", flush=True)  # fmt: skip


def _cells(done: Compiled | None) -> str:
    if done is None:
        return "does not fit | | | | | "
    counts: dict[str, int] = {}
    for name, _, times in done.collectives:
        counts[name] = counts.get(name, 0) + times
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return (
        f"{done.peak / 1e9:.2f} | {done.arguments / 1e9:.2f} | {done.flops / 1e12:.2f} | {kinds} | "
        f"{done.sent / 1e6:.1f} | {done.seconds:.0f}"
    )


def define_flags() -> None:
    """Not at import: others define --config too."""
    config_flags.DEFINE_config_file("config", "configs/msvd.py", "Config file")
    flags.DEFINE_string("topology", "v5e:4x8", "Chips, as v5e:4x8, v4:2x2x4, v5p:4x4x4")
    flags.DEFINE_list("clips", [], "Clips per chip, ascending, for the whole step")
    flags.DEFINE_integer(
        "within", 0, "Look between the clips given for the largest that fits, so near; 0: do not"
    )
    flags.DEFINE_list("losses", ["ncl", "infonce"], "Losses of the whole step")
    flags.DEFINE_multi_enum("form", ["plain"], FORMS, "Of the whole step; several may be given")
    flags.DEFINE_integer("micro", 16, "Clips of a micro-batch of the cached forms")
    flags.DEFINE_list("pairs", [], "Global batches at which the losses alone are compared")


def main(argv: list[str]) -> None:
    del argv
    try:
        mesh = topology_mesh(flags.FLAGS.topology)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    hosts = {device.process_index for device in mesh.devices.flat}
    print(f"{flags.FLAGS.topology}: {mesh.size} chips, {len(hosts)} hosts; jax {jax.__version__}")
    if flags.FLAGS.clips:
        step_table(flags.FLAGS.config, mesh, [int(x) for x in flags.FLAGS.clips])
    if flags.FLAGS.pairs:
        loss_table(mesh, [int(x) for x in flags.FLAGS.pairs])


if __name__ == "__main__":
    define_flags()
    app.run(main)
