"""What a training step will need on devices that are not there: a calculation, nothing is run.

    python -m benchmarks.plan --config=configs/msvd.py --devices=256 --kind=v5e --clips=128
    python -m benchmarks.plan --config=configs/msvd.py --devices=64 --kind=h100 --clips=256

What the model needs per pair is counted from its traced functions; the rest are closed forms
(docs/pods.md). Times assume that the towers reach `--use` of the peak rate and that nothing is
sent while something is computed.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from benchmarks.batch_memory import VOCABULARY, abstract_batch
from ncl_jax.experiment import build
from ncl_jax.losses.inputs import stores
from ncl_jax.models import clip
from ncl_jax.training.step import init_state
from ncl_jax.types import Batch, Towers


class Chip(NamedTuple):
    """Published rates. `link` is what a device sends in a ring over all of them, all links used."""

    flops: float  # per second, bfloat16
    read: float  # bytes per second from its memory
    link: float  # bytes per second
    memory: float  # bytes a program may use
    axes: int  # of the torus; 0: a switched network


GIB = 1 << 30
HOP = 1e-6  # seconds from a TPU chip to the next
SWITCHED = 5e-6  # seconds per doubling of the devices in a switched network: assumed
CHIPS = {
    "v4": Chip(275e12, 1.2e12, 6 * 4.5e10, 30.75 * GIB, 3),
    "v5e": Chip(197e12, 0.81e12, 4 * 4.5e10, 15.75 * GIB, 2),
    "v5p": Chip(459e12, 2.8e12, 6 * 9e10, 95 * GIB, 3),
    # Between hosts, one adapter of 200 or 400 Gb/s per GPU, which is slower than NVLink.
    "a100": Chip(312e12, 2.04e12, 2.5e10, 79 * GIB, 0),
    "h100": Chip(989e12, 3.35e12, 5e10, 79 * GIB, 0),
}


class Model(NamedTuple):
    """What a config's model needs; bytes and FLOPs, of one pair where it says so."""

    weights: int
    moments: int
    forward: float  # FLOPs of both towers for a pair
    kept: int  # activations of a pair for the backward pass, as traced: an upper bound
    example: int  # frames, tokens and masks of a pair
    dim: int
    embedding: int  # bytes of an entry of an embedding


class Plan(NamedTuple):
    """One device and one step. Bytes, FLOPs and seconds."""

    memory: dict[str, float]
    sent: dict[str, float]
    flops: float  # of the towers
    seconds: dict[str, float]
    ncl_share: float  # of the step, what NCL costs more than InfoNCE


def count(config: ml_collections.ConfigDict, vocabulary: int = VOCABULARY) -> Model:
    """Traces the towers of a config for one and two pairs; no weight is drawn."""
    config = config.copy_and_resolve_references()
    towers, params = clip.abstract(build.build_sizes(config, vocabulary))
    optimizer = build.build_optimizer(config)
    state = jax.eval_shape(lambda p: init_state(p, optimizer, 0), params)

    def embed(params: Any, batch: Batch, towers: Towers) -> Any:
        return (
            towers.encode_text(params, batch.tokens, batch.token_mask),
            towers.encode_video(params, batch.video, batch.frame_mask),
        )

    def kept(pairs: int, towers: Towers = towers) -> int:
        """Bytes of what differentiation by the weights keeps of the forward pass."""
        config.train.batch_size = pairs
        return _bytes(
            jax.eval_shape(
                lambda params, batch: jax.vjp(lambda p: embed(p, batch, towers), params)[1],
                params, abstract_batch(config),
            )
        )  # fmt: skip

    activations = kept(2) - kept(1)
    if config.model.remat:  # the block that is being recomputed is there as a whole
        config.model.remat = False
        whole, _ = clip.abstract(build.build_sizes(config, vocabulary))
        activations += (kept(2, whole) - kept(1, whole)) // config.model.vision.layers
    config.train.batch_size = 1
    batch = abstract_batch(config)
    run = functools.partial(embed, towers=towers)
    _, video = jax.eval_shape(run, params, batch)
    return Model(
        weights=_bytes(params),
        moments=_bytes(state.opt_state),
        forward=jax.jit(run).lower(params, batch).cost_analysis()["flops"],
        kept=activations,
        example=_bytes(batch),
        dim=video.shape[-1],
        embedding=video.dtype.itemsize,
    )


def plan(
    model: Model, config: ml_collections.ConfigDict, chip: Chip, devices: int, use: float
) -> Plan:
    """The step at `config.train.batch_size` pairs over `devices`.

    Args:
      model: from `count`.
      config: its loss, micro-batches, recomputation, placement and batch size.
      chip: of `CHIPS`.
      devices: how many.
      use: share of the peak rate that the towers reach, in (0, 1].
    """
    pairs, rounds = config.train.batch_size, config.loss.iterations
    each, dim = pairs // devices, model.dim
    micro = min(config.batch.micro_batch_size or each, each)
    stored = stores(each, pairs, dim, jnp.float32, config.loss.materialize)
    split = devices if config.sharding == "fsdp" else 1
    memory = {
        "weights and moments": (model.weights + model.moments) / split,
        "gradient": float(model.weights),
        "gathered weights": 0.0 if split == 1 else float(model.weights),
        "batch": float(each * model.example),
        "activations": float(micro * model.kept),
        # Rows of the scores, videos and their gradients in float32.
        "loss": 4.0 * (each * pairs * stored + 2 * pairs * dim + 2 * each * dim),
    }
    ncl = config.loss.name == "ncl"
    # A gradient is summed by two rounds of a ring; with fsdp one of them gathers weights instead.
    gathered = pairs * dim * model.embedding
    sent = {
        "gradient": 2.0 * model.weights,
        "embeddings": gathered + 4.0 * pairs * dim,  # videos there, their float32 gradients back
        "Sinkhorn": 8.0 * rounds * pairs if ncl else 0.0,  # a sum over texts per iteration
    }
    # Forward, twice that backward, and once more for whatever is not kept.
    passes = 3 + (micro < each) + bool(config.model.remat)
    flops = passes * each * model.forward
    entries = each * pairs
    # InfoNCE: three products, or four where scores are recomputed, and six reads of stored scores.
    contrast = (3 if stored else 4) * 2 * entries * dim / chip.flops
    contrast += 6 * 4 * entries / chip.read if stored else 0
    extra = ncl_extra(chip, devices, pairs, dim, rounds, stored)
    seconds = {
        "towers": flops / (use * chip.flops),
        "loss": contrast + (extra if ncl else 0),
        "sending": (sent["gradient"] + sent["embeddings"]) / chip.link,
    }
    without = sum(seconds.values()) - (extra if ncl else 0)
    return Plan(memory, sent, flops, seconds, max(extra, 0) / (without + extra))


def ncl_extra(
    chip: Chip, devices: int, pairs: int, dim: int, iterations: int, stored: bool
) -> float:
    """Seconds that NCL costs a device beyond InfoNCE.

    An iteration reads the stored scores once, or is one product, and ends in a sum over devices
    of a float per pair. InfoNCE reads three times more at its end of its own.
    """
    entries = pairs * pairs / devices
    if stored:
        work = (iterations - 3) * 4 * entries / chip.read
    else:
        work = (iterations - 1) * 2 * entries * dim / chip.flops
    return work + iterations * (8 * pairs / chip.link + latency(chip, devices))


def latency(chip: Chip, devices: int) -> float:
    """Seconds of a sum over devices, however little is summed."""
    if not chip.axes:
        return SWITCHED * math.log2(devices)
    return HOP * chip.axes * devices ** (1 / chip.axes)


def largest_clips(
    model: Model, config: ml_collections.ConfigDict, chip: Chip, devices: int
) -> int:
    """Most pairs per device, a multiple of 8, whose memory fits; 0 for none."""
    config = config.copy_and_resolve_references()
    chosen = config.loss.materialize

    def fits(each: int, materialize: str) -> bool:
        config.train.batch_size, config.loss.materialize = each * devices, materialize
        return sum(plan(model, config, chip, devices, 1.0).memory.values()) <= chip.memory

    def most(materialize: str) -> int:
        return next((n - 8 for n in range(8, 1 << 20, 8) if not fits(n, materialize)), 0)

    # "auto" needs less again from the size on at which it no longer stores the scores.
    largest = most("never") if chosen == "auto" else 0
    return largest if largest and fits(largest, chosen) else most(chosen)


def one_percent(
    model: Model, config: ml_collections.ConfigDict, chip: Chip, devices: int, use: float
) -> int:
    """Global batch, doubling from one pair per device, from which on NCL adds over 1 %; 0: none.

    (With a handful of pairs per device the wait for a sum over many devices may show, too.)
    """
    config = config.copy_and_resolve_references()
    found = 0
    for power in reversed(range(24)):
        config.train.batch_size = devices << power
        if plan(model, config, chip, devices, use).ncl_share <= 0.01:
            break
        found = devices << power
    return found


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)
               if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))  # fmt: skip


def define_flags() -> None:
    """Not at import: others define --config too."""
    config_flags.DEFINE_config_file("config", "configs/msvd.py", "Config file")
    flags.DEFINE_integer("devices", 256, "Devices", lower_bound=1)
    flags.DEFINE_enum("kind", "v5e", sorted(CHIPS), "Of device")
    flags.DEFINE_integer("clips", 128, "Pairs per device", lower_bound=1)
    flags.DEFINE_float("use", 0.4, "Share of the peak rate the towers reach", 0.001, 1.0)


def main(argv: list[str]) -> None:
    del argv
    given = flags.FLAGS
    config, chip, devices, use = given.config, CHIPS[given.kind], given.devices, given.use
    config.train.batch_size = devices * given.clips
    model = count(config)
    made = plan(model, config, chip, devices, use)
    rows = [("pairs in a batch", f"{config.train.batch_size:,}")]
    rows += [(f"memory: {name}, GB", f"{size / 1e9:.2f}") for name, size in made.memory.items()]
    rows += [
        ("memory of a device, GB, of", f"{sum(made.memory.values()) / 1e9:.2f}"
         f" of {chip.memory / 1e9:.2f}"),
        ("most pairs per device", str(largest_clips(model, config, chip, devices))),
    ]  # fmt: skip
    rows += [(f"sent by a device: {name}, MB", f"{n / 1e6:.1f}") for name, n in made.sent.items()]
    rows += [("towers, TFLOP", f"{made.flops / 1e12:.1f}")]
    rows += [(f"step: {name}, ms", f"{1e3 * spent:.2f}") for name, spent in made.seconds.items()]
    smallest = one_percent(model, config, chip, devices, use)
    rows += [
        ("step, ms", f"{1e3 * sum(made.seconds.values()):.1f}"),
        ("NCL more than InfoNCE, share of the step", f"{100 * made.ncl_share:.3f} %"),
        ("NCL adds over 1 % from pairs", f"{smallest:,}" if smallest else "none"),
    ]
    print(f"| {devices} x {given.kind}, {config.name}, {config.loss.name} | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
