"""How Orbax saves and opens checkpoints: what it keeps, in which form, how processes meet."""

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
    """Changes nothing in the folder; Orbax's own `read_only` would warn about itself each time."""
    return ocp.CheckpointManagerOptions(create=False, cleanup_tmp_directories=False)


def saving(keep: int) -> ocp.CheckpointManagerOptions:
    """The latest `keep` stay and the best; what a killed save left is removed."""
    best = policies.BestN(
        get_metric_fn=_score,
        n=1,
        keep_checkpoints_without_metrics=False,
    )
    return ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        best_fn=_score,  # without it, scores would not be written
        async_options=ocp.AsyncOptions(barrier_sync_fn=_meet),
        create=True,
        cleanup_tmp_directories=True,
    )


def handlers() -> dict[str, ocp.CheckpointHandler]:
    """{item: how it is written and read}."""
    # Neither a file of shardings, as who restores says where arrays go, nor compression, as weights
    # hardly shrink: both take much of the cores' time while training goes on.
    array = ocp.type_handlers.ArrayHandler(enable_write_sharding_file=False)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, array))
    plain = {name: ocp.JsonCheckpointHandler() for name in PLAIN}
    arrays = ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
    return plain | {"arrays": arrays}


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Threads of Python change over more often.

    Orbax's begin to write while the one that trains has yet to come back from the save, which took
    longer than the copy where it waited a whole turn for each of them.
    """
    turn = sys.getswitchinterval()
    sys.setswitchinterval(turn / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(turn)


def mend_scores(directory: epath.Path) -> None:
    """Makes Orbax's own copies of the scores those in `data`, which has a digest.

    Orbax reads its copies unchecked when it opens a folder: a damaged one would keep it from
    opening, a missing or changed one would let the best checkpoint go.
    """
    for folder in directory.glob("[0-9]*"):
        if not folder.name.isdigit():  # a save that was cut short
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
    """The validation score of a checkpoint; None where none was measured, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # told when it is read
        data, held = (json.loads((folder / name / "metadata").read_text())
                      for name in ("data", "contents"))  # fmt: skip
        if "score" not in data:  # written before scores were kept there
            data = json.loads((folder / "metrics" / "metrics").read_text())
        elif checksums.digest(data) != held["data"]:
            return None
        return usable(data["score"])
    return None


def usable(score: float | None) -> float | None:
    """A score that others can be compared with: one that is not finite is none."""
    return score if score is not None and math.isfinite(score) else None


def _meet(*, key: str, timeout_ms: int) -> None:
    """A meeting of all processes in the midst of a save.

    Orbax comes to its last one even after a failure, which would keep the failure from being told:
    the others wait elsewhere, for the part that failed.
    """
    if error := sys.exception():
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]
