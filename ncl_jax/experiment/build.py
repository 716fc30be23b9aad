"""From the sections of a config to the parts they describe.

With `experiment.py`, the only reader of the ConfigDict.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import ml_collections
import numpy as np
import optax
from etils import epath
from flax import nnx

import tfds_builders
from ncl_jax import losses
from ncl_jax.data import pipeline
from ncl_jax.data.clips import Shapes, View
from ncl_jax.data.prefetch import Ahead
from ncl_jax.data.records import Split, hold_out, load_split
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.distributed import sharding
from ncl_jax.distributed.sharding import Step
from ncl_jax.errors import InputError, check_choice
from ncl_jax.experiment import banks
from ncl_jax.experiment.renamed import refuse_former
from ncl_jax.files import write_text
from ncl_jax.models import clip, convert, weights
from ncl_jax.readers.texts import GivenTexts
from ncl_jax.training import optimizer as optimizers
from ncl_jax.training.step import Loss, make_step
from ncl_jax.types import Batch, Towers

TOKENIZER = "tokenizer.json"


class Parts(NamedTuple):
    """What a config describes, built."""

    directory: str  # of the prepared dataset
    splits: dict[str, Split]  # by name; of the train split what is trained on
    holdout: Split | None  # the train clips of `data.bank_holdout`
    bank_texts: GivenTexts | None  # of the file that is the bank
    tokenizer: Tokenizer
    towers: Towers
    params: Any  # initial
    optimizer: optax.GradientTransformation


def validate_config(config: ml_collections.ConfigDict) -> None:
    """Refuses counts and names that no part accepts, before any data is built.

    Raises:
      ValueError: the first of them.
    """
    refuse_former(config)
    data, model, training = config.data, config.model, config.train
    for section, names in (
        (data, ("image_size", "max_frames")),
        (model, ("patch_size", "embed_dim", "temporal_heads")),
        (model.vision, ("width", "heads")),
        (model.text, ("width", "heads")),
        (training, ("batch_size", "log_every", "validate_every", "checkpoint_every",
                    "keep_checkpoints")),
        (config.eval, ("batch_size",)),
    ):
        for name in names:
            if section[name] < 1:
                raise InputError(f"{name}: expected at least 1, got {section[name]}")
    if data.threads < 0:
        raise InputError(f"data.threads: expected at least 0, got {data.threads}")
    for use in ("train", "eval"):
        build_view(config, use)
    if (size := config.batch.micro_batch_size) < 0:
        raise InputError(f"batch.micro_batch_size: expected at least 0, got {size}")
    if training.steps < 0:
        raise InputError(f"steps: expected at least 0 (evaluation only), got {training.steps}")
    for name in ("bank_clips", "bank_captions"):
        if config.eval[name] < 0:
            raise InputError(f"eval.{name}: expected at least 0 (all), got {config.eval[name]}")
    banks.check(config)
    # Wrong names are told before any data is built.
    build_loss(config)
    build_optimizer(config)
    if not 0 <= config.optim.warmup <= 1:
        raise InputError(f"optim.warmup: expected a share in [0, 1], got {config.optim.warmup}")


def prepare_data(config: ml_collections.ConfigDict) -> str:
    """Directory of the prepared dataset, built first where it is missing."""
    data = config.data
    return tfds_builders.prepare(
        data.builder, data.manual_dir, data.data_dir, **data.settings.to_dict()
    )


def require_data(config: ml_collections.ConfigDict) -> None:
    """Refuses missing files of a dataset before anything is downloaded or decoded."""
    data = config.data
    tfds_builders.require_files(
        data.builder, data.manual_dir, data.data_dir, **data.settings.to_dict()
    )


def check_files(config: ml_collections.ConfigDict) -> None:
    """Refuses weights and a vocabulary that do not serve, before any data is built.

    Raises:
      FileNotFoundError, ValueError: as `build` would, hours later.
    """
    published = weights.read(config.init.checkpoint) if config.init.checkpoint else None
    if published is not None or config.tokenizer.path:
        tokenizer = build_tokenizer(config, None, published)
        build_sizes(config, tokenizer.vocab_size)
        if published is not None:
            build_towers(config, tokenizer.vocab_size, published)


def build(
    config: ml_collections.ConfigDict, directory: str, kept: Tokenizer | None = None
) -> Parts:
    """Everything but the data directory, from the config.

    `kept` is the tokenizer of a run that goes on. Its weights are in its checkpoint: nothing is
    drawn, and published weights, which may be out of reach by now, are not asked for.
    """
    data = config.data
    names = filter(None, (data.train_split, data.validation_split, data.test_split))
    timeout = config.train.input_timeout
    splits = {name: load_split(directory, name, timeout) for name in names}
    _check_apart(config, splits)
    holdout = None
    if data.bank_holdout:
        whole = splits[data.train_split]
        splits[data.train_split], holdout = hold_out(whole, data.bank_holdout, config.seed)
    if kept is None:
        published = weights.read(config.init.checkpoint) if config.init.checkpoint else None
        tokenizer = build_tokenizer(config, splits[data.train_split], published)
        towers, params = build_towers(config, tokenizer.vocab_size, published)
    else:
        asked = config.init.checkpoint and not config.tokenizer.path
        tokenizer = kept if asked else build_tokenizer(config, splits[data.train_split])
        towers, params = build_blank_towers(config, tokenizer.vocab_size)
    given, optimizer = banks.read(config), build_optimizer(config)
    return Parts(directory, splits, holdout, given, tokenizer, towers, params, optimizer)


def _check_apart(config: ml_collections.ConfigDict, splits: dict[str, Split]) -> None:
    """A bank of test clips would be no bank: it would show the queries that it is tested with."""
    asked, data = config.eval.bank, config.data
    if asked not in (banks.VALIDATION, banks.AUTO) or not data.validation_split:
        return
    shared = set(splits[data.validation_split].video_ids) & set(splits[data.test_split].video_ids)
    if shared:
        raise InputError(
            f"eval.bank={asked}: expected no clip of data.test_split in data.validation_split, got "
            f"{len(shared)} ({min(shared)}); take another bank"
        )


def build_tokenizer(
    config: ml_collections.ConfigDict,
    split: Split | None,
    published: weights.Published | None = None,
) -> Tokenizer:
    """From a file, the published weights, or learned from the training captions.

    The same captions give the same tokenizer, in every process and every time. `split` may be None
    where they are not needed.
    """
    if config.tokenizer.path:
        return Tokenizer.load(config.tokenizer.path)
    if published is None:
        assert split is not None
        return Tokenizer.train(split.captions, config.tokenizer.vocab_size)
    if published.tokenizer is None:
        raise InputError(
            f"{published.source}: there is no {TOKENIZER}, vocab.json or OpenAI's vocabulary "
            "beside these weights; give the one they were trained with by --config.tokenizer.path"
        )
    return Tokenizer.load(published.tokenizer)


def keep_tokenizer(tokenizer: Tokenizer, workdir: epath.Path) -> None:
    """Write it into the workdir, for whoever uses the run."""
    write_text(workdir / TOKENIZER, tokenizer.to_json())


def build_sizes(config: ml_collections.ConfigDict, vocab_size: int) -> clip.ClipConfig:
    """What the model is, from the sections `model` and `data`."""
    model, data = config.model, config.data
    if data.max_tokens > model.context_length:
        raise InputError(
            f"data.max_tokens: expected at most model.context_length = {model.context_length}, "
            f"got {data.max_tokens}"
        )
    named = model.to_dict() | {
        "vision": clip.TowerConfig(**model.vision), "text": clip.TowerConfig(**model.text)
    }  # fmt: skip
    return clip.ClipConfig(
        image_size=data.image_size, max_frames=data.max_frames, vocab_size=vocab_size, **named
    )


def build_towers(
    config: ml_collections.ConfigDict, vocab_size: int, published: weights.Published | None = None
) -> tuple[Towers, Any]:
    """The towers as pure functions, and their initial parameters: published or drawn."""
    sizes, init = build_sizes(config, vocab_size), config.init
    if published is not None:
        params = convert.to_params(
            published, sizes, positions=init.positions, head=init.head, seed=config.seed
        )
        return clip.abstract(sizes)[0], params
    return clip.functional(clip.VideoClip(sizes, rngs=nnx.Rngs(config.seed)))


def build_blank_towers(
    config: ml_collections.ConfigDict, vocab_size: int
) -> tuple[Towers, Any]:
    """The towers, and zeros in the shapes of their parameters, for those of a checkpoint."""
    towers, params = clip.abstract(build_sizes(config, vocab_size))
    return towers, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)


def build_loss(config: ml_collections.ConfigDict) -> Loss:
    """The loss of local pairs under the mapped axis."""
    shared = {
        "positives": config.loss.positives,
        "materialize": config.loss.materialize,
        "axis_name": sharding.AXIS,
    }
    solver: dict[str, Any] = {
        "iterations": config.loss.iterations,
        "tolerance": config.loss.tolerance or None,
        "overrelaxation": config.loss.overrelaxation,
        "gradient": config.loss.gradient,
    }

    def infonce(*pairs: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return losses.infonce(*pairs, **shared), {}

    def ncl(*pairs: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        values, report = losses.ncl(*pairs, **(solver | shared))
        return values, {"sinkhorn_error": report.error, "sinkhorn_converged": report.converged}

    choices = {"ncl": ncl, "infonce": infonce}
    check_choice("loss.name", config.loss.name, choices)
    return choices[config.loss.name]


def build_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """The section `optim`, with a schedule over the steps of the run."""
    return optimizers.build(steps=config.train.steps, **config.optim)


def build_step(
    config: ml_collections.ConfigDict, towers: Towers, optimizer: optax.GradientTransformation
) -> Step:
    """The per-device training step."""
    towers = optimizers.freeze_towers(towers, config.optim.freeze)
    return make_step(towers, build_loss(config), optimizer, config.batch.micro_batch_size)


def train_batches(
    config: ml_collections.ConfigDict, parts: Parts, seen: int
) -> Ahead[Batch]:
    """Batches of the train split for this process, from the position `seen` on."""
    return pipeline.train_batches(
        parts.splits[config.data.train_split],
        parts.tokenizer,
        build_shapes(config),
        build_view(config, "train"),
        batch_size=config.train.batch_size,
        seed=config.seed,
        start=seen,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        distinct_clips=config.data.distinct_clips,
        threads=config.data.threads,
        cache_clips=config.data.cache_clips,
    )


def build_shapes(config: ml_collections.ConfigDict) -> Shapes:
    """Frames, pixels and tokens of one example."""
    data = config.data
    return Shapes(data.max_frames, data.image_size, data.max_tokens)


def build_view(config: ml_collections.ConfigDict, use: Literal["train", "eval"]) -> View:
    """How clips are looked at in training or evaluation; crops and flips are for training."""
    data = config.data
    try:
        view = View(
            choice=data[f"{use}_frames"],
            order=data[f"{use}_frame_order"],
            crop=data.crop,
            least_area=data.crop_least_area,
            flip=data.flip,
        )
    except InputError as error:
        raise InputError(f"config.data, {use}: {error}") from error
    return view if use == "train" else dataclasses.replace(view, crop="centre", flip=False)
