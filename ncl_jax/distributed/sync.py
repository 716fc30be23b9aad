"""Joint decisions of the processes of a job, so that all follow the same control flow.

If processes took different branches, one would wait forever in a collective that the others never
enter. In a job of one process each function here just calls its work or returns its argument.
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
    """Call `work` on process 0 while the others wait; the others return None.

    The wait ends early only when a process dies, so the work may take hours. If it fails, every
    process raises: process 0 the error itself, the others the matching one of the kinds that
    commands distinguish: `TimeoutError`, `InputError`, or `RuntimeError` for a bug.
    """
    if runtime.alone():
        return work()
    result, failure = None, None
    if runtime.is_first():
        try:
            result = work()
        except Exception as error:
            failure = error
    failed = gather_texts(name, "" if failure is None else _encode_failure(failure))[0]
    if failure is not None:
        raise failure
    if failed:
        kind, _, message = failed.partition(":")
        raise {"late": TimeoutError, "input": InputError}.get(kind, RuntimeError)(message)
    return result


def _encode_failure(error: Exception) -> str:
    """`<kind>:<message>` of an error of process 0."""
    if isinstance(error, TimeoutError):
        return f"late:{error}"
    if isinstance(error, InputError | OSError):
        return f"input:{error}"
    return f"fault:process 0 failed with {error!r}"


def run_on_all(name: str, work: Callable[[], Result], *kinds: type[Exception]) -> Result:
    """Call `work` on every process; if it fails on one, all of them raise.

    Args:
      name: of the barrier.
      work: must not wait for other processes itself.
      kinds: exception types that are passed on to the other processes. All raise the kind and
        message of the first process that failed, whether their own call succeeded or not.
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
    """Check that the facts are the same on every process.

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
    """Whether the flag is true on at least one process."""
    if runtime.alone():
        return flag
    return bool(np.max(multihost_utils.process_allgather(np.int32(flag))))


def gather_texts(name: str, text: str) -> list[str]:
    """The text of each process, on every process."""
    if runtime.alone():
        return [text]
    # Collectives time out when a process is late; this barrier waits up to a day.
    ocp.multihost.get_barrier_sync_fn()(key=f"ncl_jax_{name}", timeout_ms=DAY_MS)
    raw = np.frombuffer(text.encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(raw))))
    if not sizes.max():
        return [""] * len(sizes)
    padded = np.pad(raw, (0, sizes.max() - len(raw)))
    rows = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]
