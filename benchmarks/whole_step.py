"""B10: the demo's training step, NCL over InfoNCE, on random batches of its shapes."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.common import Row, at_most, interleave, note, ratio
from configs import demo
from ncl_jax.distributed import sharding
from ncl_jax.distributed.sharding import MappedStep
from ncl_jax.experiment import build
from ncl_jax.training.step import init_state
from ncl_jax.types import Batch, TrainState


def run(quick: bool) -> Iterator[Row]:
    seconds = interleave({name: _step(name) for name in ("infonce", "ncl")}, 5 if quick else 25)
    for name, values in seconds.items():
        yield note("B10", f"demo step with {name}, ms", 1e3 * np.median(values))
    yield at_most("B10", "demo step, NCL over InfoNCE", ratio(seconds, "ncl", "infonce"), 1.02)


def prepared(config: Any, devices: int = 1) -> tuple[MappedStep, TrainState, Batch]:
    """The training step of a config, random weights and a random batch, placed on devices."""
    towers, params = build.build_towers(config, config.tokenizer.vocab_size)
    optimizer = build.build_optimizer(config)
    mesh = sharding.data_mesh(jax.devices()[:devices])
    state = init_state(params, optimizer, 0)
    shardings = sharding.state_sharding(state, mesh, "replicated")
    step = build.build_step(config, towers, optimizer)
    mapped = sharding.map_step(step, mesh, "shard_map", shardings)
    return mapped, sharding.place_state(state, shardings), mapped.place(_batch(config))


def _step(loss: str) -> Callable[[], None]:
    """One training step per call, the state carried along."""
    mapped, state, batch = prepared(demo.get_config(f"loss={loss}"))
    holder = [state]

    def call() -> None:
        holder[0], metrics = mapped.run(holder[0], batch)
        jax.block_until_ready(metrics)

    return call


def _batch(config) -> Batch:
    rng, data, size = np.random.default_rng(0), config.data, config.train.batch_size
    side, frames, tokens = data.image_size, data.max_frames, data.max_tokens
    return Batch(
        rng.integers(0, 256, (size, frames, side, side, 3), dtype=np.uint8),
        np.ones((size, frames), bool),
        rng.integers(1, config.tokenizer.vocab_size, (size, tokens), dtype=np.int32),
        np.ones((size, tokens), bool),
        np.arange(size, dtype=np.int32),
        np.ones(size, bool),
    )
