"""Options of Orbax: which checkpoints it keeps, in which format, how processes synchronize."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from ncl_jax.checkpoint import checksums

PLAIN = ("data", "metadata", "contents")  # the items that are JSON


def reading() -> ocp.CheckpointManagerOptions:
    """Options to read without any change; Orbax's own `read_only` would log a warning each time."""
    return ocp.CheckpointManagerOptions(create=False, cleanup_tmp_directories=False)


def saving(keep: int) -> ocp.CheckpointManagerOptions:
    """Options to keep the latest `keep` and the best, and to remove what killed saves left."""
    best = policies.BestN(
        get_metric_fn=_score,
        n=1,
        keep_checkpoints_without_metrics=False,
    )
    return ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        best_fn=_score,  # without it, scores would not be written
        async_options=ocp.AsyncOptions(barrier_sync_fn=_barrier),
        create=True,
        cleanup_tmp_directories=True,
    )


def handlers() -> dict[str, ocp.CheckpointHandler]:
    """{item: its Orbax handler}."""
    # No file of shardings, because the caller of `restore` gives them, and no compression, because
    # weights hardly shrink: both would take much of the CPU time while training continues.
    array = ocp.type_handlers.ArrayHandler(enable_write_sharding_file=False)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, array))
    plain = {name: ocp.JsonCheckpointHandler() for name in PLAIN}
    arrays = ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
    return plain | {"arrays": arrays}


@contextlib.contextmanager
def frequent_thread_switches() -> Iterator[None]:
    """Makes Python switch between threads ten times as often.

    Orbax's threads start to write before `save` returns to the training thread. At the usual switch
    interval, waiting for each of them delayed that return by more than the copy of the state takes.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def repair_metric_files(directory: epath.Path) -> None:
    """Makes Orbax's own copies of the scores equal to those in `data`, which has a digest.

    Orbax reads its copies unchecked when it opens a folder: with a damaged copy it fails to open
    the folder, and with a missing or changed one it would delete the best checkpoint.
    """
    for folder in directory.glob("[0-9]*"):
        if not folder.name.isdigit():  # an unfinished save
            continue
        copy, score = folder / "metrics" / "metrics", score_of(folder)
        wanted = None if score is None else json.dumps({"score": score})
        found = copy.read_bytes() if copy.exists() else None
        if wanted is None and found is not None:
            copy.unlink()
        elif wanted is not None and found != wanted.encode():
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(wanted)


def score_of(folder: epath.Path) -> float | None:
    """The validation score of a checkpoint; None if there is none or the checkpoint is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # `restore` reports damage
        data, contents = (json.loads((folder / name / "metadata").read_text())
                      for name in ("data", "contents"))  # fmt: skip
        if "score" not in data:  # saved by a version that wrote scores to `metrics` only
            data = json.loads((folder / "metrics" / "metrics").read_text())
        elif checksums.digest(data) != contents["data"]:
            return None
        return finite_or_none(data["score"])
    return None


def finite_or_none(score: float | None) -> float | None:
    """The score, or None if it is not finite and so cannot be compared with others."""
    return score if score is not None and math.isfinite(score) else None


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Orbax's barrier of all processes during a save.

    After a failure, Orbax still enters its last barrier while the other processes wait at another
    one, so the failure would never be reported. This function raises the failure instead.
    """
    if error := sys.exception():
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]
