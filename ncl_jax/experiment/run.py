"""From a config to a finished run; `run_experiment` is the story, read it from top to bottom."""

import contextlib
from typing import Any

import jax
import ml_collections
from etils import epath

import tfds_builders
from ncl_jax import __version__
from ncl_jax.checkpoint import checksums
from ncl_jax.checkpoint.checkpointer import Checkpointer
from ncl_jax.data.prefetch import watched
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.distributed import runtime, sharding, sync
from ncl_jax.experiment import build, results
from ncl_jax.experiment.evaluator import EMBEDDINGS, INDEX, Evaluator
from ncl_jax.experiment.renamed import updated
from ncl_jax.experiment.run_clock import RunClock
from ncl_jax.progress import announced
from ncl_jax.training.input_profiler import InputProfile
from ncl_jax.training.loop import Hooks, Schedule, fit
from ncl_jax.training.metric_log import open_log
from ncl_jax.training.preemption import PreemptionGuard
from ncl_jax.training.run_state import CHECKPOINTS, Progress, flat
from ncl_jax.training.step import init_state
from ncl_jax.types import TrainState

# What a resumed run may change: nothing that moves a weight or an example.
MAY_CHANGE = (
    "version", "config.name", "config.parallel_backend", "config.sharding", "config.eval",
    "config.batch.micro_batch_size", "config.data.manual_dir", "config.data.data_dir",
    "config.data.threads", "config.data.cache_clips", "config.data.eval_frames",
    "config.data.eval_frame_order", "config.profile_input",
    "config.data.validation_split", "config.data.test_split", "config.tokenizer.path",
    "config.train.log_every", "config.train.validate_every", "config.train.checkpoint_every",
    "config.train.keep_checkpoints", "config.train.on_nonfinite", "config.train.input_timeout",
    "config.train.peer_timeout",
)  # fmt: skip

PLACES = ("config.data.data_dir", "config.data.manual_dir", "config.tokenizer.path")
"""What hosts may have each at a place of its own; its contents are compared."""


def run_experiment(config: ml_collections.ConfigDict, workdir: epath.Path) -> dict[str, Any] | None:
    """Prepare the data, train (or go on training), evaluate, and write results and index.

    Running it again on the same workdir resumes from the last checkpoint. In a job of several
    processes all of them run this; what is done once per job, process 0 does.

    Returns:
      What `results.json` holds; None where a notice to stop (SIGTERM, Ctrl-C) came before the end.
    """
    build.validate_config(config)
    clock = RunClock(workdir)
    mesh = sharding.data_mesh()
    sharding.check_batch_size(config.train.batch_size, mesh, config.batch.micro_batch_size)
    kept = kept_tokenizer(workdir)
    if kept is None:
        sync.run_on_primary("files", lambda: build.require_data(config))
        build.check_files(config)
    with clock.phase("data"):
        # The others find it prepared, or, on a disk of their own, prepare it there.
        directory = sync.run_on_primary("data", lambda: build.prepare_data(config))
        directory = directory or build.prepare_data(config)
    with clock.phase("model"), announced("building tokenizer and model"):
        parts = build.build(config, directory, kept)
        sync.check_same("parts", _facts(parts))
        evaluator = Evaluator(config, parts, mesh)
    profile = InputProfile() if config.profile_input else None
    with clock.phase("training"):
        state = train_or_resume(config, parts, evaluator, mesh, workdir, clock, profile)
    if state is None:
        return None
    with clock.phase("evaluation"):
        measured = evaluator.measure(state, workdir)
    clock.save()
    summary = {
        "run": {"name": config.name, "seed": config.seed, "step": int(state.step),
                "seconds": clock.seconds(), **(profile.report() if profile else {})},
        "config": config.to_dict(),
        "environment": results.environment(),
        "data": _data_account(directory, parts),
        "metrics": measured,
        "files": {
            "checkpoints": str(workdir / CHECKPOINTS),
            "metrics": str(workdir / "metrics.jsonl"),
            "events": str(workdir / "tensorboard"),
            "tokenizer": str(workdir / build.TOKENIZER),
            "index": str(workdir / INDEX) if evaluator.makes_index else None,
            "embeddings": str(workdir / EMBEDDINGS) if evaluator.makes_index else None,
        },
    }
    if runtime.is_first():
        results.write(workdir, summary)
    return summary


def kept_tokenizer(workdir: epath.Path) -> Tokenizer | None:
    """The tokenizer of the run that goes on in `workdir`, None where one begins."""
    folder = workdir / CHECKPOINTS
    if not sync.any_process(folder.exists()):
        return None
    with contextlib.closing(Checkpointer(folder, read_only=True)) as checkpointer:
        if checkpointer.is_new():
            return None
        return Tokenizer.from_json(checkpointer.metadata()["tokenizer"])


def check_same_config(config: ml_collections.ConfigDict) -> None:
    """Make sure that all processes of a job have the same settings and version.

    Raises:
      ValueError: on every process, with the first difference.
    """
    settings = flat({"config": config.to_dict(), "version": __version__})
    facts = {name: str(value) for name, value in settings.items() if name not in PLACES}
    sync.check_same("config", facts)


def _facts(parts: build.Parts) -> dict[str, str]:
    """What must not differ between hosts, which may prepare data and fetch weights of their own."""
    facts = {"tokenizer (digest)": checksums.digest(parts.tokenizer.to_json())}
    if not runtime.alone():
        facts["initial weights (digest)"] = checksums.digest_of_arrays(parts.params)
    for name, split in parts.splits.items():
        facts[f"{name} split (digest)"] = checksums.digest([split.video_ids, split.captions])
    if given := parts.bank_texts:
        rows = {} if given.rows is None else {"rows": given.rows}
        facts["bank (digest)"] = checksums.digest([given.texts, checksums.digest_of_arrays(rows)])
    return facts


def train_or_resume(
    config: ml_collections.ConfigDict,
    parts: build.Parts,
    evaluator: Evaluator,
    mesh: jax.sharding.Mesh,
    workdir: epath.Path,
    clock: RunClock,
    profile: InputProfile | None = None,
) -> TrainState | None:
    """The state after `train.steps` steps, None where a notice to stop came.

    `clock` is saved with every checkpoint; `profile` learns how long the steps waited for input.
    """
    steps = config.train.steps
    with announced("placing the weights on the devices"):
        state = init_state(parts.params, parts.optimizer, config.seed)
        shardings = sharding.state_sharding(state, mesh, config.sharding)
        progress = _open_progress(config, parts, workdir)
        state = progress.restore(sharding.place_state(state, shardings), MAY_CHANGE, updated)
    if runtime.is_first():  # only now: a run that is refused changes nothing
        build.keep_tokenizer(parts.tokenizer, workdir)
    clock.save()
    done = int(state.step)
    if done < steps:
        sync.run_on_primary("space", lambda: progress.check_space(state))
    if done:
        runtime.log(f"resuming {workdir} at step {done} of {steps}")
    step = build.build_step(config, parts.towers, parts.optimizer)
    mapped = sharding.map_step(step, mesh, config.parallel_backend, shardings)
    batches = build.train_batches(config, parts, progress.samples)

    def checkpoint(state: TrainState, measured: dict[str, Any]) -> None:
        progress.save(state, measured)
        clock.save()

    if profile:
        mapped = profile.wrap(mapped, batches)
    with (
        # First, so that a notice is heard until the last save is complete.
        PreemptionGuard() as preempted,
        contextlib.closing(progress),
        contextlib.closing(batches),
        open_log(workdir, steps=steps, done=done, batch_size=config.train.batch_size) as log,
    ):
        hooks = Hooks(evaluator.validate, checkpoint, preempted, progress.skipped, log)
        given = watched(batches, config.train.input_timeout, "training input")
        state = fit(state, mapped, given, _schedule(config), hooks)
        if not steps:
            checkpoint(state, {})  # evaluated as it started; its index needs the model
    return None if preempted() else state


def _open_progress(
    config: ml_collections.ConfigDict, parts: build.Parts, workdir: epath.Path
) -> Progress:
    split = parts.splits[config.data.train_split]
    metadata = {
        "config": config.to_dict(),
        "tokenizer": parts.tokenizer.to_json(),
        "captions": len(split.captions),
        "texts": checksums.digest([split.video_ids, split.captions]),
        "version": __version__,
    }
    return Progress(
        workdir,
        metadata,
        batch_size=config.train.batch_size,
        seed=config.seed,
        keep=config.train.keep_checkpoints,
        on_nonfinite=config.train.on_nonfinite,
        clips=split.video_ids,
    )


def _schedule(config: ml_collections.ConfigDict) -> Schedule:
    train = config.train
    return Schedule(train.steps, train.validate_every, train.checkpoint_every, train.log_every)


def _data_account(directory: str, parts: build.Parts) -> dict[str, Any]:
    account = tfds_builders.read_metadata(directory)["accounting"]
    found = {"directory": directory, "splits": {name: account[name] for name in parts.splits}}
    if held := parts.holdout:
        counts = {"clips": len(held.video_ids), "captions": len(held.captions)}
        found["held_out_of_training"] = counts
    return found
