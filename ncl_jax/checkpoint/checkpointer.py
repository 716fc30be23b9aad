"""Checkpoints through Orbax: exactly what a run needs to resume.

A checkpoint holds four items:
  arrays    every leaf of the `TrainState` (step, params, opt_state, rng) by its path
  data      {"samples": pairs seen by all processes together, "seed": seed of their order,
            "skipped": steps whose loss or gradient was not finite, "score": of validation or None}
  metadata  {"config", "tokenizer" (text of tokenizer.json), "captions" (number of training
            captions), "texts" (digest of training clips and captions), "version" (of ncl_jax)}
  contents  a description of the others: shape, type and checksum of every leaf, digests of the
            rest. Orbax and TensorStore detect some damage, but not a flipped bit in an array
and, if a validation score was measured, `metrics` with it, by which Orbax keeps the best.
"""

import tempfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from ncl_jax.checkpoint import checksums, orbax_options, quiet, read_errors, unfinished
from ncl_jax.distributed import runtime, sync
from ncl_jax.errors import BUGS, InputError
from ncl_jax.types import TrainState


class Restored(NamedTuple):
    """A checkpoint read back."""

    state: TrainState
    data: dict[str, Any]
    metadata: dict[str, Any]


class Checkpointer:
    """Asynchronous checkpoints in one directory: the latest `keep` and the best one are kept.

    A save that did not finish (a killed process) leaves no step behind: only complete
    checkpoints are listed or restored. If the program ends before `wait` or `close` is called, its
    exit waits for the last save; if that save fails, the program says so and exits with code 1.
    Python 3.12 starts no threads during its exit, so the save fails there: call `close`.
    """

    def __init__(self, directory: epath.PathLike, keep: int = 2, read_only: bool = False):
        """Open the directory; `read_only` changes nothing in it and leaves unfinished saves alone.

        Otherwise the directory must belong to this job alone: an unfinished save of another job
        would be treated as left by a killed run and removed.
        """
        self._read_only, self._writing = read_only, False
        path = epath.Path(directory).absolute()
        if not read_only:
            sync.run_on_primary("scores", lambda: orbax_options.repair_metric_files(path))
        with quiet.quietly():
            self._manager = ocp.CheckpointManager(
                path,
                options=orbax_options.reading() if read_only else orbax_options.saving(keep),
                item_handlers=orbax_options.handlers(),
            )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def is_new(self) -> bool:
        """Whether the directory has never held a checkpoint, not even one that is damaged now.

        Raises:
          ValueError: not all processes see the same checkpoints.
        """
        step = self.latest_step()
        sync.check_same("latest", {f"in {self._manager.directory} as latest": str(step)})
        return step is None and not self._damaged_folder().exists()

    def count(self) -> int:
        """Number of complete checkpoints."""
        return len(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Step with the highest validation score (the latest of equal ones), or None."""
        found = {
            step: orbax_options.score_of(self._manager.directory / str(step))
            for step in self._manager.all_steps()
        }
        scores = [(score, step) for step, score in found.items() if score is not None]
        return max(scores)[1] if scores else None

    def save(
        self,
        state: TrainState,
        data: dict[str, Any],
        metadata: dict[str, Any],
        score: float | None = None,
    ) -> None:
        """Start a save; returns as soon as the state has been copied.

        Args:
          state: its leaves are arrays of any type, including random keys.
          data: values that JSON can hold.
          metadata: values that JSON can hold.
          score: of validation; the checkpoint with the highest one is kept. A score that is not
            finite counts as None.

        Raises:
          InputError: a leaf of the state is not an array.
          OSError: this save or the one before it could not be written. Complete checkpoints are
            not touched.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        score = orbax_options.finite_or_none(score)
        data, arrays = data | {"score": score}, checksums.flatten_state(state)
        args = ocp.args.Composite(
            arrays=ocp.args.PyTreeSave(arrays),
            data=ocp.args.JsonSave(data),
            metadata=ocp.args.JsonSave(metadata),
            contents=ocp.args.JsonSave(checksums.describe(arrays, data, metadata)),
        )
        metrics = None if score is None else {"score": score}
        self._begin()
        try:
            with orbax_options.frequent_thread_switches():
                self._manager.save(step, args=args, metrics=metrics, force=True)
        except Exception as error:
            raise self._save_error(error) from error

    def restore(self, like: TrainState) -> Restored:
        """Read the latest undamaged checkpoint into the shapes and shardings of `like`.

        Damaged checkpoints are reported on stdout, skipped and, unless `read_only`, moved to
        `damaged/` beside the folder of steps.

        Raises:
          ValueError: the latest undamaged checkpoint is of another model or of an older version,
            or all are damaged.
          OSError: the storage failed while a checkpoint was read; the checkpoint may be undamaged.
        """
        arrays, plain = self._read_latest(checksums.flatten_state(like), whole=True)
        state = checksums.unflatten_state(arrays, like)
        return Restored(state, plain["data"], plain["metadata"])

    def restore_params(self, like: Any) -> tuple[Any, int]:
        """The parameters of the latest undamaged checkpoint, in the form of `like`, and its step.

        The optimizer's moments, which are twice as large as the parameters, are not read.

        Raises:
          ValueError, OSError: as `restore`.
        """
        arrays, plain = self._read_latest(checksums.flatten_params(like), whole=False)
        return checksums.unflatten_params(arrays, like), plain["step"]

    def _read_latest(
        self, like: dict[str, jax.Array], whole: bool
    ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
        """Arrays by name in the form of `like`, and the JSON items.

        With `whole` the checkpoint must hold the arrays of `like` and no others.
        """
        messages, steps = [], self._newest_first()
        for step in steps:
            try:
                return self._read(step, like, whole)
            except (read_errors.Damaged, InputError) as error:
                if self._replaced_since(steps):
                    break
                if isinstance(error, InputError):
                    raise
                messages.append(f"the checkpoint {self._manager.directory / str(step)} is {error}")
                runtime.log(f"{messages[-1]}; trying the one before it")
                if not self._read_only:
                    self._move_to_damaged(step)
        else:
            raise InputError(f"{'; '.join(messages)}; {self._advice_if_none_left()}")
        return self._read_latest(like, whole)

    def metadata(self) -> dict[str, Any]:
        """The metadata of the latest checkpoint whose metadata is undamaged; reads no array.

        Raises:
          ValueError: there is no such checkpoint, or it is of an older version.
        """
        steps = self._newest_first()
        for step in steps:
            try:
                return self._read_plain(step)["metadata"]
            except (read_errors.Damaged, InputError) as error:
                if self._replaced_since(steps):
                    break
                if isinstance(error, InputError):
                    raise
        else:
            raise InputError(
                f"{self._manager.directory}: expected a checkpoint, got {steps} without readable "
                f"contents; {self._advice_if_none_left()}"
            )
        return self.metadata()

    def wait(self) -> None:
        """Wait until the last save is complete.

        Raises:
          OSError: the checkpoint could not be written.
        """
        unfinished.discard(self)
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._save_error(error) from error
        if self._writing:
            self._writing = False
            quiet.end()

    def close(self) -> None:
        """Wait for the last save and release the directory."""
        self.wait()
        self._manager.close()

    def _begin(self) -> None:
        if not self._writing:
            self._writing = True
            quiet.begin()
        unfinished.add(self)

    def _read_plain(self, step: int) -> dict[str, Any]:
        """The JSON items, checked against their digests, and the descriptions of the arrays."""
        folder = self._manager.directory / str(step)
        if (folder / "state").exists():
            raise InputError(
                f"the checkpoint {folder} is of an older version of ncl_jax (it has `state`, not "
                "`arrays`); resume it with that version, or choose another --workdir"
            )
        return sync.run_on_all("plain", lambda: self._plain(folder, step), *read_errors.READING)

    def _plain(self, folder: epath.Path, step: int) -> dict[str, Any]:
        items = {name: ocp.args.JsonRestore() for name in orbax_options.PLAIN}
        try:
            with quiet.quietly():
                read = self._manager.restore(step, args=ocp.args.Composite(**items))
            changed = checksums.changed(read["contents"], read["data"], read["metadata"])
        except Exception as error:
            raise read_errors.translate_read_error(error, folder) from error
        if changed:
            raise read_errors.Damaged(f"damaged (its item {changed} differs from what was saved)")
        return {
            "data": read["data"],
            "metadata": read["metadata"],
            "leaves": read["contents"]["leaves"],
        }

    def _read(
        self, step: int, like: dict[str, jax.Array], whole: bool
    ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
        plain = self._read_plain(step)
        saved = {name: leaf for name, leaf in plain["leaves"].items() if whole or name in like}
        self._check_same_tree(saved, like, step)
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        where = ocp.checkpoint_utils.construct_restore_args(wanted)
        restore = ocp.args.PyTreeRestore(wanted, restore_args=where, partial_restore=not whole)
        args = ocp.args.Composite(arrays=restore)

        def read() -> dict[str, Any]:
            try:
                with quiet.quietly():
                    return dict(self._manager.restore(step, args=args)["arrays"])
            except Exception as error:  # damage makes Orbax and TensorStore raise many kinds
                folder = self._manager.directory / str(step)
                raise read_errors.translate_read_error(error, folder) from error

        arrays = sync.run_on_all("arrays", read, *read_errors.READING)
        found = checksums.describe_arrays(arrays)

        def compare() -> None:
            for name, leaf in found.items():
                if leaf != plain["leaves"][name]:
                    raise read_errors.Damaged(
                        f"damaged (the values of {name} differ from those that were saved)"
                    )

        sync.run_on_all("sums", compare, read_errors.Damaged)  # each process has read its own copy
        return arrays, plain | {"step": step}

    def _check_same_tree(
        self, saved: dict[str, Any], like: dict[str, jax.Array], step: int
    ) -> None:
        wanted = {name: checksums.form(array) for name, array in like.items()}
        for name in sorted({**saved, **wanted}):
            found = saved[name][:2] if name in saved else None
            if found != wanted.get(name):
                raise InputError(
                    f"the checkpoint {self._manager.directory / str(step)} does not fit the model "
                    "of this config; use its own config or another --workdir. First difference: "
                    f"{name} is {found or 'absent'} in the checkpoint and "
                    f"{wanted.get(name) or 'absent'} in the model"
                )

    def _newest_first(self) -> list[int]:
        return sorted(self._manager.all_steps(), reverse=True)

    def _replaced_since(self, steps: list[int]) -> bool:
        """Whether a training run has replaced checkpoints since this reader listed `steps`."""
        if not self._read_only:
            return False
        self._manager.reload()
        return self._newest_first() != steps

    def _move_to_damaged(self, step: int) -> None:
        def move() -> None:
            folder = self._damaged_folder()
            folder.mkdir(exist_ok=True)
            number = sum(path.name.startswith(f"{step}-") for path in folder.iterdir())
            (self._manager.directory / str(step)).rename(folder / f"{step}-{number}")

        sync.run_on_primary("move", move)
        self._manager.reload()

    def _damaged_folder(self) -> epath.Path:
        return self._manager.directory.parent / "damaged"

    def _advice_if_none_left(self) -> str:
        return (
            "no checkpoint is left to resume from: choose another --workdir, or remove "
            f"{self._damaged_folder()} to start from the beginning"
        )

    def _save_error(self, error: Exception) -> Exception:
        """The exception to raise after a failed save: a lost process, a bug, or failed storage."""
        if isinstance(error, BUGS):
            return error
        return runtime.lost_peer(error) or self._storage_error(error)

    def _storage_error(self, error: Exception) -> OSError:
        self._manager.reload()
        steps = self._manager.all_steps()
        return OSError(
            f"a checkpoint could not be written to {self._manager.directory} "
            f"({read_errors.first_line(error)}); free space there and start the same command "
            f"again: it resumes from step {max(steps, default=0)}"
        )


def _check() -> None:
    """Saves and restores a small checkpoint; `python -m ncl_jax.checkpoint.checkpointer` runs it.

    Some errors come both from damage and from a bug. `read_errors` runs this check before it calls
    a checkpoint damaged for one: a checkpoint that this Orbax cannot read must not be moved.
    """
    state = TrainState(jnp.int32(1), {"a": jnp.arange(3.0)}, (), jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(folder)
        checkpointer.save(state, {"samples": 1}, {"config": {}}, 0.5)
        checkpointer.wait()
        read = checkpointer.restore(state)
        checkpointer.close()
    if read.state.params["a"].tolist() != [0, 1, 2] or read.data["samples"] != 1:
        raise RuntimeError(f"expected the state that was saved, got {read}")


if __name__ == "__main__":
    _check()
