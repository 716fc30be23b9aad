"""Checkpoints through Orbax: everything a run needs to go on, and nothing else.

A checkpoint holds four items:
  arrays    every leaf of the `TrainState` (step, params, opt_state, rng) by its path
  data      {"samples": pairs seen by all processes together, "seed": seed of their order,
            "skipped": steps whose loss or gradient was not finite, "score": of validation or None}
  metadata  {"config", "tokenizer" (text of tokenizer.json), "captions" (number of training
            captions), "texts" (digest of training clips and captions), "version" (of ncl_jax)}
  contents  what the others must be: shape, type and sum of every leaf, digests of the rest.
            Orbax and TensorStore notice some damage; a flipped bit in an array is not among it
and, where it was measured, `metrics` with the validation score, for Orbax to keep the best.
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
    """Asynchronous checkpoints in one directory; the latest `keep` stay, and the best one.

    A save that did not finish (a killed process) leaves no step behind: only complete
    checkpoints are ever listed or restored. A program that ends before `wait` or `close` ends when
    its last save is complete; where that fails it says so, and its exit code is 1. Python 3.12
    starts no threads at its end, and there it does fail: call `close`.
    """

    def __init__(self, directory: epath.PathLike, keep: int = 2, read_only: bool = False):
        """Open the directory; `read_only` changes nothing there, not even what a save left.

        Opened otherwise, the directory must belong to this job: a save under way from another one
        would be taken for the remains of a killed run and removed.
        """
        self._read_only, self._writing = read_only, False
        path = epath.Path(directory).absolute()
        if not read_only:
            sync.run_on_primary("scores", lambda: orbax_options.mend_scores(path))
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
        """Whether nothing was ever written here, not even what is damaged now.

        Raises:
          ValueError: not all processes see the same checkpoints.
        """
        step = self.latest_step()
        sync.check_same("latest", {f"in {self._manager.directory} as latest": str(step)})
        return step is None and not self._aside().exists()

    def count(self) -> int:
        """How many complete checkpoints there are."""
        return len(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest validation score, the last of equals; or None."""
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
        """Start writing; returns as soon as the state has been copied.

        Args:
          state: its leaves are arrays of any type, random keys among them.
          data: what JSON can hold.
          metadata: likewise.
          score: of validation; the checkpoint with the highest one is kept. One that is not finite
            is no score.

        Raises:
          InputError: a leaf of the state is no array.
          OSError: this save or the one before it could not be written. Complete checkpoints are
            not touched.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        score = orbax_options.usable(score)
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
            with orbax_options.short_turns():
                self._manager.save(step, args=args, metrics=metrics, force=True)
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, like: TrainState) -> Restored:
        """Read the latest sound checkpoint into the shapes and shardings of `like`.

        Damaged ones are reported on stdout, skipped and, unless `read_only`, moved to `damaged/`
        beside the steps.

        Raises:
          ValueError: the latest sound checkpoint is of another model or of an older version, or
            none is sound.
          OSError: one cannot be read now, which says nothing about what it holds.
        """
        arrays, plain = self._read_latest(checksums.flatten_state(like), whole=True)
        state = checksums.unflatten_state(arrays, like)
        return Restored(state, plain["data"], plain["metadata"])

    def restore_params(self, like: Any) -> tuple[Any, int]:
        """The parameters of the latest sound checkpoint and its step, in the form of `like`.

        Nothing else of it is read: an optimizer's moments are twice as large.

        Raises:
          ValueError, OSError: as `restore`.
        """
        arrays, plain = self._read_latest(checksums.flatten_params(like), whole=False)
        return checksums.unflatten_params(arrays, like), plain["step"]

    def _read_latest(
        self, like: dict[str, jax.Array], whole: bool
    ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
        """Arrays by name, in the form of `like`, and what is no array; `whole`: all there are."""
        messages, steps = [], self._newest_first()
        for step in steps:
            try:
                return self._read(step, like, whole)
            except (read_errors.Damaged, InputError) as error:
                if self._moved_on(steps):
                    break
                if isinstance(error, InputError):
                    raise
                messages.append(f"the checkpoint {self._manager.directory / str(step)} is {error}")
                runtime.log(f"{messages[-1]}; trying the one before it")
                if not self._read_only:
                    self._put_aside(step)
        else:
            raise InputError(f"{'; '.join(messages)}; {self._none_left()}")
        return self._read_latest(like, whole)

    def metadata(self) -> dict[str, Any]:
        """The metadata of the latest checkpoint with sound metadata, without reading any array.

        Raises:
          ValueError: there is none, or it is of an older version.
        """
        steps = self._newest_first()
        for step in steps:
            try:
                return self._read_plain(step)["metadata"]
            except (read_errors.Damaged, InputError) as error:
                if self._moved_on(steps):
                    break
                if isinstance(error, InputError):
                    raise
        else:
            raise InputError(
                f"{self._manager.directory}: expected a checkpoint; none of {steps} has readable "
                f"contents; {self._none_left()}"
            )
        return self.metadata()

    def wait(self) -> None:
        """Until the last save is complete.

        Raises:
          OSError: it could not be written.
        """
        unfinished.discard(self)
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error
        if self._writing:
            self._writing = False
            quiet.end()

    def close(self) -> None:
        """Wait for the last save and stop."""
        self.wait()
        self._manager.close()

    def _begin(self) -> None:
        if not self._writing:
            self._writing = True
            quiet.begin()
        unfinished.add(self)

    def _read_plain(self, step: int) -> dict[str, Any]:
        """All but the arrays, checked against their digests."""
        folder = self._manager.directory / str(step)
        if (folder / "state").exists():
            raise InputError(
                f"the checkpoint {folder} is of an older version of ncl_jax (it has `state`, not "
                "`arrays`); go on with that version, or give another --workdir"
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
            raise read_errors.Damaged(f"damaged (its {changed} differ from what was written)")
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
            except Exception as error:  # Orbax and TensorStore raise whatever damage leads to
                folder = self._manager.directory / str(step)
                raise read_errors.translate_read_error(error, folder) from error

        arrays = sync.run_on_all("arrays", read, *read_errors.READING)
        found = checksums.describe_arrays(arrays)

        def compare() -> None:
            for name, leaf in found.items():
                if leaf != plain["leaves"][name]:
                    raise read_errors.Damaged(
                        f"damaged (the numbers of {name} are not those that were written)"
                    )

        sync.run_on_all("sums", compare, read_errors.Damaged)  # each process has read for itself
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
                    f"{name} is {found or 'absent'} there and {wanted.get(name) or 'absent'} here"
                )

    def _newest_first(self) -> list[int]:
        return sorted(self._manager.all_steps(), reverse=True)

    def _moved_on(self, steps: list[int]) -> bool:
        """Whether a run that is training has replaced what a reader was reading."""
        if not self._read_only:
            return False
        self._manager.reload()
        return self._newest_first() != steps

    def _put_aside(self, step: int) -> None:
        def move() -> None:
            aside = self._aside()
            aside.mkdir(exist_ok=True)
            (self._manager.directory / str(step)).rename(aside / f"{step}-{_next(aside, step)}")

        sync.run_on_primary("aside", move)
        self._manager.reload()

    def _aside(self) -> epath.Path:
        return self._manager.directory.parent / "damaged"

    def _none_left(self) -> str:
        return (
            "none is left to go on from: give another --workdir, or remove "
            f"{self._aside()} to begin anew"
        )

    def _failed(self, error: Exception) -> Exception:
        """What to raise: another process may be lost, or this one could not write."""
        if isinstance(error, BUGS):
            return error
        return runtime.lost_peer(error) or self._unwritten(error)

    def _unwritten(self, error: Exception) -> OSError:
        self._manager.reload()
        kept = self._manager.all_steps()
        return OSError(
            f"a checkpoint could not be written to {self._manager.directory} "
            f"({read_errors.first_line(error)}); free space there and start the same command "
            f"again: it goes on from step {max(kept, default=0)}"
        )


def _next(folder: epath.Path, step: int) -> int:
    return sum(path.name.startswith(f"{step}-") for path in folder.iterdir())


def _check() -> None:
    """Writes and reads a small checkpoint; `python -m ncl_jax.checkpoint.checkpointer` runs it.

    `read_errors` asks before it calls a checkpoint damaged for an error that a bug raises too: a
    checkpoint that an Orbax of another version cannot read must be left alone.
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
