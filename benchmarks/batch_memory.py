"""Temporary memory of the training step against batch size, with and without micro-batches.

    python -m benchmarks.batch_memory [--batches 16 64 256] [--micro 0 8]

ViT-B/32, 12 frames of 224 x 224, 32 tokens, float32, one device: the step of configs/msrvtt.py.
From `memory_analysis` of the compiled step: nothing is run, so the numbers are exact and the
machine's load does not matter. Temporaries come beside weights, optimizer state and the batch.
"""

import argparse

import jax
import jax.numpy as jnp

from configs import msrvtt
from ncl_jax.distributed import sharding
from ncl_jax.experiment import build
from ncl_jax.models import clip
from ncl_jax.training.step import init_state
from ncl_jax.types import Batch

VOCABULARY = 49_408  # CLIP's
# Code that never runs need not be fast: the buffers are the same, compiling is a quarter shorter.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def temporaries(batch_size: int, micro: int) -> int:
    """Bytes of temporaries of one training step on one device."""
    config = msrvtt.get_config()
    config.model.dtype = "float32"
    config.train.batch_size, config.batch.micro_batch_size = batch_size, micro
    towers, params = clip.abstract(build.build_sizes(config, VOCABULARY))
    optimizer = build.build_optimizer(config)
    step = build.build_step(config, towers, optimizer)
    state = jax.eval_shape(lambda p: init_state(p, optimizer, 0), params)
    mesh = sharding.data_mesh(jax.devices()[:1])
    shardings = sharding.state_sharding(state, mesh, "replicated")
    run = sharding.map_step(step, mesh, "shard_map", shardings).run
    compiled = run.lower(state, abstract_batch(config)).compile(compiler_options=QUICK)
    return int(compiled.memory_analysis().temp_size_in_bytes)


def abstract_batch(config) -> Batch:
    """Shapes and types of a batch of this config."""
    data, size = config.data, config.train.batch_size
    frames, side, tokens = data.max_frames, data.image_size, data.max_tokens
    return Batch(
        video=jax.ShapeDtypeStruct((size, frames, side, side, 3), jnp.uint8),
        frame_mask=jax.ShapeDtypeStruct((size, frames), bool),
        tokens=jax.ShapeDtypeStruct((size, tokens), jnp.int32),
        token_mask=jax.ShapeDtypeStruct((size, tokens), bool),
        video_id=jax.ShapeDtypeStruct((size,), jnp.int32),
        valid=jax.ShapeDtypeStruct((size,), bool),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--micro", type=int, nargs="+", default=[0, 8])
    options = parser.parse_args()
    print("| batch | " + " | ".join(f"micro {m or 'none'}, GB" for m in options.micro) + " |")
    print("|---|" + "---|" * len(options.micro), flush=True)
    for size in options.batches:
        cells = [f"{temporaries(size, micro) / 1e9:.2f}" for micro in options.micro]
        print(f"| {size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
