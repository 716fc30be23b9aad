"""Several processes as one job: joining it, logging once, and ending together.

JAX's own distributed runtime does the work; `sync` makes the processes decide together.
"""

import errno
import glob
import importlib.util
import os
import re
import socket
import sys
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import jax

from ncl_jax.data.prefetch import Ahead
from ncl_jax.errors import InputError

_LOST = re.compile(r"Gloo \w+ failed|Connection closed by peer|heartbeat timeout")
_LOST_IN_JAX = re.compile(
    rf"{_LOST.pattern}|another task|coordination service|NCCL|remote process|halted|socket"
    "|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED"
)
"""Texts about a lost process in JAX's errors, from its service and from collectives."""
_NOT_FOUND = (
    "the processes of this job did not find each other ({}); start all of them with the same "
    "coordinator, which must be process 0 on a free port that all processes can reach"
)
RETRY = 75
"""Exit code (`EX_TEMPFAIL`) of a run that may succeed if the same command is started again."""


class NotFoundError(Exception):
    """The processes of a job did not find each other."""


class Job(NamedTuple):
    """The description of a job before joining it; JAX determines what is None."""

    coordinator: str | None = None  # host:port of process 0
    num_processes: int | None = None
    process_id: int | None = None


def find_job(flags: Job, environ: Mapping[str, str]) -> Job | None:
    """The job this process belongs to, or None if it runs alone.

    Explicit flags come first, then what JAX detects: JAX_COORDINATOR_ADDRESS with
    JAX_NUM_PROCESSES and JAX_PROCESS_ID, SLURM, Open MPI, and Cloud TPU hosts.

    Raises:
      ValueError: only some of the flags are given, or they contradict each other.
    """
    given = [name for name, value in flags._asdict().items() if value is not None]
    if given and len(given) < len(flags):
        missing = ", --".join(name for name in Job._fields if name not in given)
        raise InputError(f"--{given[0]} is given without --{missing}; give all three or none")
    if given:
        return None if flags.num_processes == 1 else _validated(flags)
    if "JAX_COORDINATOR_ADDRESS" in environ:
        count, index = (environ.get(f"JAX_{name}") for name in ("NUM_PROCESSES", "PROCESS_ID"))
        if count is None or index is None:
            raise InputError(
                "JAX_COORDINATOR_ADDRESS is set without JAX_NUM_PROCESSES and JAX_PROCESS_ID; "
                "set all three or none"
            )
        return _validated(Job(environ["JAX_COORDINATOR_ADDRESS"], int(count), int(index)))
    slurm = "SLURM_STEP_NODELIST" in environ and int(environ.get("SLURM_NTASKS", "1")) > 1
    mpi = int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    return Job() if slurm or mpi or _on_tpu_host(environ) else None


def join(job: Job | None, peer_timeout: int) -> None:
    """Start JAX's distributed runtime; must be called before any other use of JAX.

    Args:
      job: from `find_job`.
      peer_timeout: seconds without a heartbeat after which a process counts as dead.

    Raises:
      ValueError: the launcher does not describe the job.
      NotFoundError: the processes did not find each other.
    """
    if job is None:
        return
    # JAX's preemption service counts steps from 0 even in a resumed run, so its notice would never
    # arrive; `training.preemption.PreemptionGuard` handles preemption instead.
    jax.config.update("jax_enable_preemption_service", False)
    if job.process_id == 0:
        _check_port_is_free(job.coordinator)
    patience = 5 * peer_timeout
    # At its own deadline JAX would abort the process, and a wait inside JAX cannot be interrupted:
    # another thread waits, under an earlier deadline.
    joining = Ahead(
        jax.distributed.initialize(
            job.coordinator,
            job.num_processes,
            job.process_id,
            initialization_timeout=2 * patience,
            heartbeat_timeout_seconds=peer_timeout,
            shutdown_timeout_seconds=peer_timeout,
        )
        for _ in range(1)
    )
    try:
        joining.take(patience)
    except ValueError as error:
        raise InputError(
            f"this process belongs to a job, but JAX cannot determine which one ({error}); give "
            "--coordinator (host:port of process 0), --num_processes and --process_id"
        ) from error
    except (RuntimeError, TimeoutError) as error:
        cause = str(error).strip().splitlines()[0][:200]
        if isinstance(error, TimeoutError):
            cause = f"not all joined within {patience} s"
        raise NotFoundError(_NOT_FOUND.format(cause)) from error


def alone() -> bool:
    """Whether this process is the whole job."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is process 0, which does the work done once per job: logs, results, data."""
    return jax.process_index() == 0


def log(text: str) -> None:
    """Print a line of the job's log, on process 0 only."""
    if is_first():
        print(text, flush=True)


def lost_peer(error: BaseException | None) -> Exception | None:
    """JAX's error about a lost process if `error` was caused by one, else None."""
    if not jax.distributed.is_initialized():
        return None
    while error is not None and not out_of_memory(error):
        in_jax = isinstance(error, jax.errors.JaxRuntimeError)
        if (_LOST_IN_JAX if in_jax else _LOST).search(str(error)):  # on CPUs it is a ValueError
            return jax.errors.JaxRuntimeError(str(error))
        error = error.__cause__ or error.__context__
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory, which a restart would not change."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def leave() -> None:
    """Wait for the other processes at the end of the job and disconnect."""
    if not alone():
        jax.distributed.shutdown()


def abandon(code: int) -> NoReturn:
    """Exit at once, without the final barrier, which a lost or waiting process would block."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _check_port_is_free(coordinator: str | None) -> None:
    """Raise if the port of process 0 is already in use, because JAX may crash then."""
    port = int(str(coordinator).rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:  # other errors need not stop JAX
            raise NotFoundError(_NOT_FOUND.format(f"port {port} is in use")) from error


def _validated(job: Job) -> Job:
    port = re.fullmatch(r".+:(\d{1,5})", job.coordinator or "")
    if not port or not 0 < int(port[1]) < 1 << 16:
        raise InputError(f"expected the coordinator as host:port, got {job.coordinator!r}")
    if job.num_processes is None or not 0 <= (job.process_id or 0) < job.num_processes:
        raise InputError(
            "expected a process id of at least 0 and below the number of processes, got "
            f"{job.process_id} of {job.num_processes}"
        )
    return job


def _on_tpu_host(environ: Mapping[str, str]) -> bool:
    """Whether this is a host of a Cloud TPU slice; JAX determines whether it has other hosts."""
    if environ.get("JAX_PLATFORMS", "tpu") not in ("", "tpu") or "TPU_SKIP_MDS_QUERY" in environ:
        return False
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None
