"""What the processes of a job decide together, so that none goes another way than the rest.

Where the processes took different ways, one would wait in a collective for others that never come.
A process alone needs none of it: every function here is then the plain thing it stands for.
"""

import json
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ncl_jax.distributed import runtime
from ncl_jax.errors import InputError

Result = TypeVar("Result")
DAY_MS = 24 * 3600 * 1000


def run_on_primary(name: str, work: Callable[[], Result]) -> Result | None:
    """Do something on process 0 while the others wait; they get None.

    The wait has no limit but a dead peer, so the work may take hours. Where it fails, every
    process raises: process 0 the error itself, the others one of the same kind of those that
    commands tell apart: `TimeoutError`, `InputError`, or `RuntimeError` for a fault of the program.
    """
    if runtime.alone():
        return work()
    result, failure = None, None
    if runtime.is_first():
        try:
            result = work()
        except Exception as error:
            failure = error
    failed = gather_texts(name, "" if failure is None else _described(failure))[0]
    if failure is not None:
        raise failure
    if failed:
        kind, _, message = failed.partition(":")
        raise {"late": TimeoutError, "input": InputError}.get(kind, RuntimeError)(message)
    return result


def _described(error: Exception) -> str:
    """`<kind>:<message>` of an error of process 0."""
    if isinstance(error, TimeoutError):
        return f"late:{error}"
    if isinstance(error, InputError | OSError):
        return f"input:{error}"
    return f"fault:process 0 has failed with {error!r}"


def run_on_all(name: str, work: Callable[[], Result], *kinds: type[Exception]) -> Result:
    """Do something on every process; where it fails on one, it fails on all.

    Args:
      name: of the meeting.
      work: must not itself wait for other processes.
      kinds: of errors that are passed on to the others; all processes raise the first one's kind
        and message, whatever happened to themselves.
    """
    if runtime.alone():
        return work()
    result, failure, message = None, None, ""
    try:
        result = work()
    except kinds as error:
        kind = next(i for i, kind in enumerate(kinds) if isinstance(error, kind))
        failure, message = error, f"{kind}:{error}"
    first = next(filter(None, gather_texts(name, message)), "")
    if first:
        number, _, message = first.partition(":")
        raise kinds[int(number)](message) from failure
    return result  # type: ignore[return-value]  # `work` returned it


def check_same(name: str, facts: dict[str, str]) -> None:
    """Make sure that something is the same on every process.

    Raises:
      ValueError: on every process, with the first difference from process 0.
    """
    first, *others = (json.loads(text) for text in gather_texts(name, json.dumps(facts)))
    for number, other in enumerate(others, start=1):
        for key in sorted({**first, **other}):
            if first.get(key) != other.get(key):
                raise InputError(
                    f"process {number} has {key} {other.get(key)}, process 0 has {first.get(key)}; "
                    "start all processes with the same command, code and data"
                )


def any_process(flag: bool) -> bool:
    """Whether it is so on at least one process."""
    if runtime.alone():
        return flag
    return bool(np.max(multihost_utils.process_allgather(np.int32(flag))))


def gather_texts(name: str, text: str) -> list[str]:
    """The text of each process, on every process."""
    if runtime.alone():
        return [text]
    # Collectives give up on a process that is late; this wait does not.
    ocp.multihost.get_barrier_sync_fn()(key=f"ncl_jax_{name}", timeout_ms=DAY_MS)
    raw = np.frombuffer(text.encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(raw))))
    if not sizes.max():
        return [""] * len(sizes)
    padded = np.pad(raw, (0, sizes.max() - len(raw)))
    rows = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]
