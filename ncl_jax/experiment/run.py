"""From a config to a finished run. `run` is the story, read it from top to bottom."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from etils import epath

import tfds_builders
from ncl_jax import __version__
from ncl_jax.checkpoint import checksums
from ncl_jax.checkpoint.checkpointer import Checkpointer
from ncl_jax.data.prefetch import watched
from ncl_jax.data.records import Split
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.distributed import runtime, sharding, sync
from ncl_jax.evaluation import evaluate, scorers
from ncl_jax.experiment import build, results
from ncl_jax.index import RetrievalIndex
from ncl_jax.models import clip
from ncl_jax.normalizers import Ncl
from ncl_jax.training import health
from ncl_jax.training.input_profiler import InputProfile
from ncl_jax.training.metric_log import open_log
from ncl_jax.training.run_state import CHECKPOINTS, Progress, flat
from ncl_jax.training.train import fit, init_state
from ncl_jax.types import Towers, TrainState

INDEX, EMBEDDINGS = "index", "embeddings.npz"
# What a resumed run may change: nothing that moves a weight or an example.
MAY_CHANGE = (
    "version", "config.name", "config.mapper", "config.placement", "config.eval",
    "config.batch.micro", "config.data.manual_dir", "config.data.data_dir", "config.data.threads",
    "config.data.cache_clips", "config.data.eval_frames", "config.data.eval_frame_order",
    "config.profile_input",
    "config.data.validation_split", "config.data.test_split", "config.tokenizer.path",
    "config.train.log_every", "config.train.validate_every", "config.train.checkpoint_every",
    "config.train.keep_checkpoints", "config.train.on_nonfinite", "config.train.input_timeout",
    "config.train.peer_timeout",
)  # fmt: skip

PLACES = ("config.data.data_dir", "config.data.manual_dir", "config.tokenizer.path")
"""What hosts may have each at a place of its own; its contents are compared."""


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> dict[str, Any] | None:
    """Prepare the data, train (or go on training), evaluate, and write results and index.

    Running it again on the same workdir resumes from the last checkpoint. In a job of several
    processes all of them run this; what is done once per job, process 0 does.

    Returns:
      What `results.json` holds; None where a notice to stop (SIGTERM, Ctrl-C) came before the end.
    """
    build.check_counts(config)
    seconds: dict[str, float] = {}
    mesh = sharding.data_mesh()
    sharding.check_batch_size(config.train.batch_size, mesh, config.batch.micro)
    with _phase("data", seconds):
        # The others find it prepared, or, on a disk of their own, prepare it there.
        directory = sync.once("data", lambda: build.prepare_data(config))
        directory = directory or build.prepare_data(config)
    with _phase("model", seconds):
        parts = build.build(config, directory, kept_tokenizer(workdir))
        sync.check_same("parts", _facts(parts))
    profile = InputProfile() if config.profile_input else None
    with _phase("training", seconds):
        state = train_or_resume(config, parts, mesh, workdir, profile)
    if state is None:
        return None
    with _phase("evaluation", seconds):
        measured = measure(config, parts, state, workdir)
    summary = {
        "run": {"name": config.name, "seed": config.seed, "step": int(state.step),
                "seconds": seconds, **(profile.report() if profile else {})},
        "config": config.to_dict(),
        "environment": results.environment(),
        "data": _data_account(directory, parts.splits),
        "metrics": measured,
        "files": {
            "checkpoints": str(workdir / CHECKPOINTS),
            "metrics": str(workdir / "metrics.jsonl"),
            "events": str(workdir / "tensorboard"),
            "tokenizer": str(workdir / build.TOKENIZER),
            "index": str(workdir / INDEX) if parts.towers.score is None else None,
            "embeddings": str(workdir / EMBEDDINGS) if parts.towers.score is None else None,
        },
    }
    if runtime.is_first():
        results.write(workdir, summary)
    return summary


def kept_tokenizer(workdir: epath.Path) -> Tokenizer | None:
    """The tokenizer of the run that goes on in `workdir`, None where one begins."""
    folder = workdir / CHECKPOINTS
    if not sync.any_of(folder.exists()):
        return None
    with contextlib.closing(Checkpointer(folder, read_only=True)) as checkpointer:
        if checkpointer.is_new():
            return None
        return Tokenizer.from_json(checkpointer.metadata()["tokenizer"])


def check_config(config: ml_collections.ConfigDict) -> None:
    """Make sure that all processes of a job have the same settings and version.

    Raises:
      ValueError: on every process, with the first difference.
    """
    told = flat({"config": config.to_dict(), "version": __version__})
    facts = {name: str(value) for name, value in told.items() if name not in PLACES}
    sync.check_same("config", facts)


def _facts(parts: build.Parts) -> dict[str, str]:
    """What must not differ between hosts, which may prepare data and fetch weights of their own."""
    facts = {"tokenizer (digest)": checksums.digest(parts.tokenizer.to_json())}
    if not runtime.alone():
        facts["initial weights (digest)"] = checksums.digest_of_arrays(parts.params)
    for name, split in parts.splits.items():
        facts[f"{name} split (digest)"] = checksums.digest([split.video_ids, split.captions])
    return facts


def train_or_resume(
    config: ml_collections.ConfigDict,
    parts: build.Parts,
    mesh: jax.sharding.Mesh,
    workdir: epath.Path,
    profile: InputProfile | None = None,
) -> TrainState | None:
    """The state after `train.steps` steps, None where a notice to stop came.

    `profile` learns how long the steps waited for input.
    """
    schedule = config.train
    split = parts.splits[config.data.train_split]
    state = init_state(parts.params, parts.optimizer, config.seed)
    shardings = sharding.state_sharding(state, mesh, config.placement)
    state = sharding.place_state(state, shardings)
    metadata = {
        "config": config.to_dict(),
        "tokenizer": parts.tokenizer.to_json(),
        "captions": len(split.captions),
        "version": __version__,
    }
    progress = Progress(
        workdir,
        metadata,
        batch_size=schedule.batch_size,
        seed=config.seed,
        keep=schedule.keep_checkpoints,
        on_nonfinite=schedule.on_nonfinite,
        clips=split.video_ids,
    )
    state = progress.restore(state, MAY_CHANGE)
    if runtime.is_first():  # only now: a run that is refused changes nothing
        build.keep_tokenizer(parts.tokenizer, workdir)
    done = int(state.step)
    if done < schedule.steps:
        sync.once("space", lambda: progress.check_space(state))
    if done:
        runtime.say(f"resuming {workdir} at step {done} of {schedule.steps}")
    step = build.build_step(config, parts.towers)
    mapped = sharding.map_step(step, mesh, config.mapper, shardings)
    batches = build.train_batches(config, parts, progress.samples)
    if profile:
        mapped = profile.wrap(mapped, batches)
    with (
        health.Notice() as preempted,  # first, so that it is heard until the last save is complete
        contextlib.closing(progress),
        contextlib.closing(batches),
        open_log(
            workdir, steps=schedule.steps, done=done, batch_size=schedule.batch_size
        ) as log,
    ):
        state = fit(
            state,
            mapped,
            watched(batches, schedule.input_timeout, "training input"),
            steps=schedule.steps,
            validate=build_validation(config, parts),
            validate_every=schedule.validate_every,
            checkpoint=progress.save,
            checkpoint_every=schedule.checkpoint_every,
            preempted=preempted,
            skipped=progress.skipped,
            log=log,
            log_every=schedule.log_every,
        )
        if not schedule.steps:
            progress.save(state, {})  # evaluated as it started; its index needs the model
    return None if preempted() else state


def build_validation(
    config: ml_collections.ConfigDict, parts: build.Parts
) -> Callable[[TrainState], dict[str, float]]:
    """Plain R@1 on the validation split; nothing where the config names none."""
    name = config.data.validation_split
    embed = build.build_embed(config, parts)

    def validate(state: TrainState) -> dict[str, float]:
        if not name:
            return {}
        score = build.build_score(config, parts, state.params)
        split = embed(state.params, name)
        if score is not None:
            return scorers.plain_recall(split, score)
        return evaluate.plain_recall(split)

    return validate


def measure(
    config: ml_collections.ConfigDict,
    parts: build.Parts,
    state: TrainState,
    workdir: epath.Path,
) -> dict[str, Any]:
    """All metrics of the test split, with the train split as bank; leaves index and embeddings."""
    embed = build.build_embed(config, parts)
    test, bank = (embed(state.params, n) for n in (config.data.test_split, config.data.train_split))
    scale = float(parts.towers.scale(state.params))
    score = build.build_score(config, parts, state.params)
    batches = (config.train.batch_size, config.loss.iterations, config.seed)
    train_split, bank = bank, evaluate.sample(
        bank, config.eval.bank_clips, config.eval.bank_captions, config.eval.bank_seed
    )
    if score is not None:
        measured = scorers.evaluate(test, bank, score, config.eval.iterations)
        error = scorers.in_batch_error(train_split, score, *batches)
    else:
        if runtime.is_first():
            evaluate.save_embeddings(workdir / EMBEDDINGS, test, bank, scale)
        measured = evaluate.evaluate(test, bank, scale, config.eval.iterations)
        error = evaluate.in_batch_error(train_split, scale, *batches)
    trained_on = "normalised" if config.loss.name == "ncl" else "plain"
    measured["in_batch_norm_error"] = error | {"trained_on": error[trained_on]}
    pairs = _test_pairs(config, parts)
    if pairs:
        shuffled = embed(state.params, config.data.test_split, shuffle_frames=config.seed)
        found, control = (_order_accuracy(test, pairs, x, score)
                          for x in (test.video, shuffled.video))
        measured["order_pairs"] = found | {"accuracy_shuffled_frames": control["accuracy"]}
    if score is not None:
        return measured  # an index searches vectors; this head has none
    ids = parts.splits[config.data.test_split].video_ids
    biases, _ = Ncl(scale, config.eval.iterations).balance(bank.text, test.video)  # of any size
    index = RetrievalIndex.build(
        ids, test.video, bank.text, scale=scale, biases=biases,
        meta={"bank_captions": bank.captions},
    )  # fmt: skip
    if runtime.is_first():
        index.save(workdir / INDEX)
    return measured


class Run(NamedTuple):
    """The model of a run's last checkpoint, and what belongs to it."""

    config: ml_collections.ConfigDict
    sizes: clip.ClipConfig
    tokenizer: Tokenizer
    towers: Towers
    state: TrainState


def restore(workdir: epath.Path) -> Run:
    """The last checkpoint of a run, which may be training; nothing is drawn, fetched or changed.

    Raises:
      FileNotFoundError: there is no checkpoint in `workdir`.
    """
    folder = workdir / CHECKPOINTS
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: expected the checkpoints of a training run")
    with contextlib.closing(Checkpointer(folder, read_only=True)) as checkpointer:
        if checkpointer.latest_step() is None:
            raise FileNotFoundError(f"{folder}: holds no complete checkpoint")
        metadata = checkpointer.metadata()
        config = ml_collections.ConfigDict(metadata["config"])
        tokenizer = Tokenizer.from_json(metadata["tokenizer"])
        sizes = build.build_sizes(config, tokenizer.vocab_size)
        towers, params = build.build_blank_towers(config, tokenizer.vocab_size)
        like = init_state(params, build.build_optimizer(config), config.seed)
        shardings = sharding.state_sharding(like, sharding.data_mesh(), "replicated")
        state = checkpointer.restore(sharding.place_state(like, shardings)).state
    return Run(config, sizes, tokenizer, towers, state)


def _order_accuracy(
    test: evaluate.Embedded, pairs: list[tuple[int, int]], video: np.ndarray,
    score: scorers.Score | None,
) -> dict[str, float]:
    if score is not None:
        return scorers.order_accuracy(test, pairs, video, score)
    return evaluate.order_accuracy(test, pairs, video)


def _test_pairs(config: ml_collections.ConfigDict, parts: build.Parts) -> list[tuple[int, int]]:
    """Twins of the test split, as positions of clips."""
    place = {v: i for i, v in enumerate(parts.splits[config.data.test_split].video_ids)}
    pairs = tfds_builders.read_metadata(parts.directory)["order_pairs"]
    return [(place[a], place[b]) for a, b in pairs if a in place and b in place]


def _data_account(directory: str, splits: dict[str, Split]) -> dict[str, Any]:
    account = tfds_builders.read_metadata(directory)["accounting"]
    return {"directory": directory, "splits": {name: account[name] for name in splits}}


@contextlib.contextmanager
def _phase(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
    runtime.say(f"{name}: {seconds[name]:.0f} s")
