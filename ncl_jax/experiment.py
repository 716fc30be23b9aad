"""From a config to a finished run; the only reader of the ConfigDict.

`run` is the story; every other function turns one section of the config into the part it names.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax
from etils import epath
from flax import nnx

import tfds_builders
from ncl_jax import __version__, checkpoint, evaluate, losses, optim, parallel, results, train
from ncl_jax.data import pipeline
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.models import clip
from ncl_jax.run_log import RunLog
from ncl_jax.types import Towers, TrainState

CHECKPOINTS, TOKENIZER = "checkpoints", "tokenizer.json"
LOSSES = ("ncl", "infonce")


class Parts(NamedTuple):
    """What a config describes, built."""

    directory: str  # of the prepared dataset
    splits: dict[str, pipeline.Split]
    tokenizer: Tokenizer
    towers: Towers
    params: Any  # initial
    optimizer: optax.GradientTransformation


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Prepare the data, train (or go on training), evaluate, and write `results.json`.

    Running it again on the same workdir resumes from the last checkpoint.

    Returns:
      What `results.json` holds.
    """
    seconds: dict[str, float] = {}
    mesh = parallel.data_mesh()
    parallel.check_batch_size(config.train.batch_size, mesh)
    with _phase("data", seconds):
        directory = prepare_data(config)
    with _phase("model", seconds):
        parts = build(config, directory, workdir)
    with _phase("training", seconds):
        state = train_or_resume(config, parts, mesh, workdir)
    with _phase("evaluation", seconds):
        measured = measure(config, parts, state)
    summary = {
        "run": {"name": config.name, "seed": config.seed, "step": int(state.step),
                "seconds": seconds},
        "config": config.to_dict(),
        "environment": results.environment(),
        "data": _data_account(directory, parts.splits),
        "metrics": measured,
        "files": {
            "checkpoints": str(workdir / CHECKPOINTS),
            "metrics": str(workdir / "metrics.jsonl"),
            "events": str(workdir / "tensorboard"),
            "tokenizer": str(workdir / TOKENIZER),
        },
    }
    results.write(workdir, summary)
    return summary


def prepare_data(config: ml_collections.ConfigDict) -> str:
    """Directory of the prepared dataset, built first where it is missing."""
    data = config.data
    return tfds_builders.prepare(
        data.builder, data.manual_dir, data.data_dir, **data.settings.to_dict()
    )


def build(config: ml_collections.ConfigDict, directory: str, workdir: epath.Path) -> Parts:
    """Everything but the data directory, from the config."""
    data = config.data
    names = filter(None, (data.train_split, data.validation_split, data.test_split))
    splits = {name: pipeline.load_split(directory, name) for name in names}
    tokenizer = build_tokenizer(config, splits[data.train_split], workdir)
    towers, params = build_towers(config, tokenizer.vocab_size)
    return Parts(directory, splits, tokenizer, towers, params, build_optimizer(config))


def build_tokenizer(
    config: ml_collections.ConfigDict, split: pipeline.Split, workdir: epath.Path
) -> Tokenizer:
    """From a file, or learned from the training captions; kept in the workdir either way."""
    kept = workdir / TOKENIZER
    if config.tokenizer.path:
        tokenizer = Tokenizer.load(config.tokenizer.path)
    elif kept.exists():
        return Tokenizer.load(kept)
    else:
        tokenizer = Tokenizer.train(split.captions, config.tokenizer.vocab_size)
    kept.write_text(tokenizer.to_json())
    return tokenizer


def build_towers(config: ml_collections.ConfigDict, vocab_size: int) -> tuple[Towers, Any]:
    """The towers as pure functions, and their initial parameters."""
    model, data = config.model, config.data
    sizes = clip.ClipConfig(
        image_size=data.image_size,
        patch_size=model.patch_size,
        vocab_size=vocab_size,
        context_length=data.max_tokens,
        max_frames=data.max_frames,
        embed_dim=model.embed_dim,
        vision=clip.TowerConfig(**model.vision),
        text=clip.TowerConfig(**model.text),
        temporal=model.temporal,
        temporal_layers=model.temporal_layers,
        temporal_heads=model.temporal_heads,
        init_scale=model.init_scale,
    )
    clip.check_scale(model.init_scale)
    return clip.functional(clip.VideoClip(sizes, rngs=nnx.Rngs(config.seed)))


def build_loss(config: ml_collections.ConfigDict) -> train.Loss:
    """The loss of local pairs under the mapped axis."""
    positives = config.loss.positives
    if config.loss.name == "infonce":
        def infonce(*pairs: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            return losses.infonce(*pairs, positives=positives, axis_name=parallel.AXIS), {}
        return infonce
    if config.loss.name == "ncl":
        def ncl(*pairs: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            values, report = losses.ncl(
                *pairs,
                iterations=config.loss.iterations,
                positives=positives,
                axis_name=parallel.AXIS,
            )
            return values, {"sinkhorn_error": report.error}
        return ncl
    raise ValueError(f"loss.name: expected one of {', '.join(LOSSES)}, got {config.loss.name!r}")


def build_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """AdamW with the config's schedule."""
    o = config.optim
    rate = optim.schedule(o.learning_rate, config.train.steps, o.warmup)
    return optim.adamw(
        rate, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay, clip_norm=o.clip_norm
    )


def train_or_resume(
    config: ml_collections.ConfigDict, parts: Parts, mesh: jax.sharding.Mesh, workdir: epath.Path
) -> TrainState:
    """The state after `train.steps` steps."""
    schedule = config.train
    state = parallel.replicate(
        train.init_state(parts.params, parts.optimizer, config.seed), mesh
    )
    checkpointer = checkpoint.Checkpointer(workdir / CHECKPOINTS, schedule.keep_checkpoints)
    seen = 0
    if checkpointer.latest_step() is not None:
        restored = checkpointer.restore(state)
        state, seen = restored.state, restored.data["samples"]
        print(f"resuming {workdir} at step {int(state.step)} of {schedule.steps}")
    metadata = {
        "config": config.to_dict(), "tokenizer": parts.tokenizer.to_json(), "version": __version__
    }

    def save(state: TrainState) -> None:
        samples = int(state.step) * schedule.batch_size
        checkpointer.save(state, {"samples": samples, "seed": config.seed}, metadata)

    step = parallel.map_step(
        train.make_step(parts.towers, build_loss(config), parts.optimizer), mesh, config.mapper
    )
    with RunLog(
        workdir, steps=schedule.steps, done=int(state.step), batch_size=schedule.batch_size
    ) as log:
        state = train.fit(
            state,
            step,
            train_batches(config, parts, seen),
            steps=schedule.steps,
            validate=build_validation(config, parts),
            validate_every=schedule.validate_every,
            checkpoint=save,
            checkpoint_every=schedule.checkpoint_every,
            log=log,
            log_every=schedule.log_every,
        )
    checkpointer.close()
    return state


def train_batches(
    config: ml_collections.ConfigDict, parts: Parts, seen: int
) -> Iterator[Any]:
    """This process's training batches from the position `seen` on."""
    return pipeline.train_batches(
        parts.splits[config.data.train_split],
        parts.tokenizer,
        build_shapes(config),
        batch_size=config.train.batch_size,
        seed=config.seed,
        start=seen,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
        cache_clips=config.data.cache_clips,
    )


def build_shapes(config: ml_collections.ConfigDict) -> pipeline.Shapes:
    """Frames, pixels and tokens of one example."""
    data = config.data
    return pipeline.Shapes(data.max_frames, data.image_size, data.max_tokens)


def build_validation(
    config: ml_collections.ConfigDict, parts: Parts
) -> Callable[[TrainState], dict[str, float]]:
    """Plain R@1 on the validation split; nothing where the config names none."""
    name = config.data.validation_split
    embed = build_embed(config, parts)
    return lambda state: evaluate.plain_recall(embed(state.params, name)) if name else {}


def build_embed(
    config: ml_collections.ConfigDict, parts: Parts
) -> Callable[[Any, str], evaluate.Embedded]:
    """(params, split name) -> its embeddings; compiled once per side."""
    encode_text, encode_video = jax.jit(parts.towers.encode_text), jax.jit(parts.towers.encode_video)
    shapes, size = build_shapes(config), config.eval.batch_size

    def embed(params: Any, name: str, shuffle_frames: int | None = None) -> evaluate.Embedded:
        split = parts.splits[name]

        def texts(captions: list[str]) -> np.ndarray:
            batches = pipeline.text_batches(captions, parts.tokenizer, shapes.max_tokens, size)
            return evaluate.embed(functools.partial(encode_text, params), batches, len(captions))

        clips = pipeline.video_batches(split, shapes, size, shuffle_frames=shuffle_frames)
        return evaluate.Embedded(
            text=evaluate.embed_captions(split.captions, texts),
            video=evaluate.embed(
                functools.partial(encode_video, params), clips, len(split.video_ids)
            ),
            video_of_text=split.video_of_text,
        )

    return embed


def measure(
    config: ml_collections.ConfigDict, parts: Parts, state: TrainState
) -> dict[str, Any]:
    """All metrics of the test split, with the train split as bank."""
    embed = build_embed(config, parts)
    test, bank = (embed(state.params, n) for n in (config.data.test_split, config.data.train_split))
    scale = float(parts.towers.scale(state.params))
    measured = evaluate.evaluate(test, bank, scale, config.eval.iterations)
    error = evaluate.in_batch_error(
        bank, scale, config.train.batch_size, config.loss.iterations, config.seed
    )
    trained_on = "normalised" if config.loss.name == "ncl" else "plain"
    measured["in_batch_norm_error"] = error | {"trained_on": error[trained_on]}
    pairs = _test_pairs(config, parts)
    if pairs:
        shuffled = embed(state.params, config.data.test_split, shuffle_frames=config.seed)
        control = evaluate.order_accuracy(test, pairs, shuffled.video)
        measured["order_pairs"] = evaluate.order_accuracy(test, pairs, test.video) | {
            "accuracy_shuffled_frames": control["accuracy"]
        }
    return measured


def _test_pairs(config: ml_collections.ConfigDict, parts: Parts) -> list[tuple[int, int]]:
    """Twins of the test split, as positions of clips."""
    place = {v: i for i, v in enumerate(parts.splits[config.data.test_split].video_ids)}
    pairs = tfds_builders.read_metadata(parts.directory)["order_pairs"]
    return [(place[a], place[b]) for a, b in pairs if a in place and b in place]


def _data_account(directory: str, splits: dict[str, pipeline.Split]) -> dict[str, Any]:
    account = tfds_builders.read_metadata(directory)["accounting"]
    return {"directory": directory, "splits": {name: account[name] for name in splits}}


@contextmanager
def _phase(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
    print(f"{name}: {seconds[name]:.0f} s", flush=True)
