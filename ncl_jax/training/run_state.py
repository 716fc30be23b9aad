"""Where a run stands: its checkpoints, its place in the data, and the steps that went wrong."""

import shutil
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import numpy as np
from etils import epath

from ncl_jax.checkpoint import checksums
from ncl_jax.checkpoint.checkpointer import Checkpointer
from ncl_jax.distributed import runtime
from ncl_jax.errors import InputError, check_choice
from ncl_jax.training import nonfinite
from ncl_jax.types import Batch, TrainState

CHECKPOINTS, NONFINITE = "checkpoints", "nonfinite"
IN_A_ROW = 10
"""Skipped steps after which going on makes no sense."""
KEPT = 3
"""Batches of skipped steps that a process writes; frames are large, and a run may skip for days."""
NAMED = 8
"""Clips named in a message; the saved batch has the ids of all."""
NEWER = ("texts",)
"""What checkpoints of earlier versions do not say; a run that began before resumes without it."""
SCORE = ("text_to_video_R@1", "video_to_text_R@1")
"""The best checkpoint has the highest mean of these validation metrics."""
OnNonfinite = Literal["stop", "skip"]


class Progress:
    """Restores and saves a run.

    Args:
      workdir: of the run.
      metadata: of every checkpoint, see `checkpoint`.
      batch_size: pairs per step over all processes.
      seed: of the data order.
      keep: number of latest checkpoints to retain.
      on_nonfinite: "stop" the run at a loss or gradient that is not finite, or "skip" the step.
      clips: their names, to tell which were in a batch.
    """

    def __init__(
        self,
        workdir: epath.Path,
        metadata: dict[str, Any],
        *,
        batch_size: int,
        seed: int,
        keep: int,
        on_nonfinite: OnNonfinite,
        clips: list[str],
    ):
        check_choice("train.on_nonfinite", on_nonfinite, get_args(OnNonfinite))
        self.samples = 0  # seen by all processes together at the restored state
        self._first = 0
        self._skipped, self._in_a_row, self._last_skipped = 0, 0, -1
        self._workdir, self._metadata, self._clips = workdir, metadata, clips
        self._batch_size, self._seed, self._keep = batch_size, seed, keep
        self._stop = on_nonfinite == "stop"
        self._checkpointer = Checkpointer(workdir / CHECKPOINTS, keep)

    def restore(
        self,
        state: TrainState,
        may_change: tuple[str, ...],
        updated: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> TrainState:
        """The state of the last sound checkpoint, or the given one where there is none.

        Args:
          state: the form of what is read.
          may_change: beginnings of the keys of metadata that may differ from the checkpoint's.
          updated: brings the config of a checkpoint of any age into the present words.

        Raises:
          ValueError: the checkpoints are of another run.
        """
        if self._checkpointer.is_new():
            return state
        saved = self._checkpointer.metadata()
        same = {name: self._metadata[name] for name in NEWER if name in self._metadata}
        saved = same | saved | {"config": updated(saved["config"])}
        check_same_run(self._metadata, saved, self._workdir, may_change)
        restored = self._checkpointer.restore(state)
        self.samples, self._first = restored.data["samples"], int(restored.state.step)
        self._skipped = restored.data["skipped"]
        return restored.state

    def save(self, state: TrainState, measured: dict[str, Any]) -> None:
        """Checkpoint a state, with what was measured of it."""
        step = int(state.step)
        position = {
            "samples": self.samples + (step - self._first) * self._batch_size,
            "seed": self._seed,
            "skipped": self._skipped,
        }
        found = [float(measured[name]) for name in SCORE if name in measured]
        score = float(np.mean(found)) if found else None
        self._checkpointer.save(state, position, self._metadata, score)

    def skipped(self, state: TrainState, batch: Batch, metrics: dict[str, Any]) -> None:
        """Account for a step whose loss or gradient was not finite.

        `state` comes after the step, which left its weights alone. The first batches, and on a
        stop the last one and the state before the step, go to `nonfinite/` for inspection.

        Raises:
          FloatingPointError: the run is to stop there, or too many steps failed in a row.
        """
        step = int(state.step)
        self._in_a_row = self._in_a_row + 1 if step == self._last_skipped + 1 else 1
        self._skipped, self._last_skipped = self._skipped + 1, step
        go_on = not self._stop and self._in_a_row < IN_A_ROW
        names = [self._clips[number] for number in nonfinite.clips_of(batch)]
        message = (
            f"at step {step} the loss is {float(metrics['loss'])} and the gradient norm "
            f"{float(metrics['grad_norm'])} (clips {_listed(list(dict.fromkeys(names)))})"
        )
        if go_on:
            runtime.log(f"{message}; the step is skipped, {self._skipped} so far")
        where = self._kept(state, batch, step, go_on)
        if not go_on:
            raise FloatingPointError(
                f"{message}; {where}; the last checkpoint is unchanged. Inspect these clips, skip "
                "such steps with --config.train.on_nonfinite=skip, or start over in another "
                "--workdir with a lower optim.learning_rate"
            )

    def _kept(self, state: TrainState, batch: Batch, step: int, go_on: bool) -> str:
        """Saves the batch and the state, and says where, or why they could not be saved."""
        folder = self._workdir / NONFINITE
        try:
            if self._skipped <= KEPT or not go_on:
                nonfinite.keep_batch(batch, folder, step)
            if not go_on:
                snapshot = Checkpointer(folder / "checkpoints")
                snapshot.save(
                    state._replace(step=state.step - 1),
                    {"samples": 0, "seed": self._seed, "skipped": self._skipped},
                    self._metadata,
                )
                snapshot.close()
        except OSError as error:
            return f"batch and state could not be saved ({error})"
        return f"batch and state are saved in {folder}"

    def close(self) -> None:
        """Wait for the last checkpoint."""
        self._checkpointer.close()

    def check_space(self, state: TrainState) -> None:
        """Make sure that the checkpoints to come have room.

        Raises:
          OSError: they have not.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state)))
        # The latest, the best, and the one being written before an old one goes.
        more = max(1, self._keep + 2 - self._checkpointer.count())
        needed, free = size * more, shutil.disk_usage(self._workdir).free
        if free < needed:
            raise OSError(
                f"{self._workdir}: expected {needed / 1e9:.2g} GB free for checkpoints of "
                f"{size / 1e9:.2g} GB, got {free / 1e9:.2g} GB; free space or give another "
                "--workdir"
            )


def check_same_run(
    now: dict[str, Any],
    saved: dict[str, Any],
    workdir: epath.Path,
    may_change: tuple[str, ...],
) -> None:
    """Refuse to go on with a run whose numbers the present config would not explain.

    Raises:
      ValueError: naming the first difference that is not below one of `may_change`.
    """
    old, new = flat(saved), flat(now)
    # The config first: what follows from it, the number of captions say, explains less.
    for name in sorted({**old, **new}, key=lambda name: (not name.startswith("config."), name)):
        if not name.startswith(may_change) and old.get(name) != new.get(name):
            was, now_is = (_shown(str(flat.get(name))) for flat in (old, new))
            raise InputError(
                f"{workdir} holds another run: {name} was {was}, now it is {now_is}; use the "
                "settings and data it was started with, or give another --workdir"
            )


def _shown(text: str) -> str:
    """Long texts may differ where nobody would look; their digests differ at once."""
    return text if len(text) <= 60 else f"{text[:40]}... (digest {checksums.digest(text)[:8]})"


def _listed(names: list[str]) -> str:
    """
    Example:
      >>> _listed(list("abcdefghijklmnopqrstuvwxyz"))
      'a, b, c, d, e, f, g, h and 18 more'
    """
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, dict)
        leaves |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return leaves
