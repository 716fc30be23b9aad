"""Checkpoints through Orbax: everything a run needs to go on, and nothing else.

A checkpoint holds three items:
  state     the `TrainState` (step, params, opt_state, rng), one array per leaf
  data      {"samples": pairs seen by all processes together, "seed": seed of their order}
  metadata  {"config", "tokenizer" (text of tokenizer.json), "captions" (number of training
            captions), "version" (of ncl_jax)}
"""

from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from ncl_jax.types import TrainState


class Restored(NamedTuple):
    """A checkpoint read back."""

    state: TrainState
    data: dict[str, Any]
    metadata: dict[str, Any]


class Checkpointer:
    """Asynchronous checkpoints in one directory; the latest `keep` stay.

    A save that did not finish (a killed process) leaves no step behind: only complete
    checkpoints are ever listed or restored.
    """

    def __init__(self, directory: epath.PathLike, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            epath.Path(directory).absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Start writing; returns as soon as the state has been copied."""
        step = int(state.step)
        if step == self.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()),
                data=ocp.args.JsonSave(data),
                metadata=ocp.args.JsonSave(metadata),
            ),
        )

    def restore(self, like: TrainState, step: int | None = None) -> Restored:
        """Read a checkpoint (default: the latest) into the shapes and shardings of `like`.

        Raises:
          ValueError: the checkpoint's tree or shapes differ from `like`.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        step = self.latest_step() if step is None else step
        wanted = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract),
            data=ocp.args.JsonRestore(),
            metadata=ocp.args.JsonRestore(),
        )
        try:
            read = self._manager.restore(step, args=wanted)
        except Exception as error:  # Orbax and TensorStore raise whatever the damage leads to
            raise ValueError(_told(error, self._manager.directory / str(step))) from error
        return Restored(TrainState(**read["state"]), read["data"], read["metadata"])

    def metadata(self, step: int | None = None) -> dict[str, Any]:
        """The metadata alone, without reading any array."""
        read = self._manager.restore(
            self.latest_step() if step is None else step,
            args=ocp.args.Composite(metadata=ocp.args.JsonRestore()),
        )
        return read["metadata"]

    def close(self) -> None:
        """Wait for the last save and stop."""
        self._manager.wait_until_finished()
        self._manager.close()


def _told(error: Exception, directory: epath.Path) -> str:
    """Whether a checkpoint is another model's or damaged, and what to do."""
    cause = next((line.strip() for line in str(error).splitlines() if line.strip()), "unknown")
    if "mismatch" in str(error) or "not compatible" in str(error):
        return (
            f"the checkpoint {directory} does not fit the model of this config; use its own "
            f"config or another --workdir. First difference: {cause}"
        )
    return (
        f"the checkpoint {directory} is damaged ({cause[:200]}); delete that folder to go on from "
        "the one before it"
    )
