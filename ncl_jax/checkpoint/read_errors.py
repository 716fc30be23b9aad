"""Why a checkpoint could not be read: corrupt file or storage failure?"""

import errno
import functools
import os
import subprocess
import sys

from etils import epath

from ncl_jax.distributed import runtime
from ncl_jax.errors import BUGS, InputError

_TRANSIENT = (
    "PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED",
)  # fmt: skip
"""Status codes of TensorStore that indicate failed storage, not damage."""
_SYSTEM = (
    "EIO", "EACCES", "EPERM", "ESTALE", "ETIMEDOUT", "ENODEV", "ENXIO", "ENOMEM", "EMFILE",
    "ENFILE", "ENOTCONN", "ESHUTDOWN", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN",
    "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "EREMOTEIO",
)  # fmt: skip
"""Errors of a failing disk or network; TensorStore's messages contain their system texts."""


class Damaged(Exception):
    """A checkpoint whose contents differ from what was saved."""


READING = (Damaged, OSError, InputError)
"""Exceptions that reading a checkpoint may raise."""


def translate_read_error(error: Exception, folder: epath.Path) -> Exception:
    """The exception to raise for one of Orbax or TensorStore from reading `folder`."""
    if lost := runtime.lost_peer(error):
        return lost
    if runtime.out_of_memory(error):
        return error
    if isinstance(error, BUGS) and not _orbax_works():
        return RuntimeError(
            "the Orbax of this environment cannot read its own checkpoints, so "
            f"{folder} was not changed; install the versions that requirements.txt names"
        )
    while type(error) is Exception and isinstance(error.__cause__, Exception):
        error = error.__cause__  # Orbax wraps TensorStore's error about an array
    line = first_line(error)
    here = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    here |= isinstance(error, MemoryError) or "can't start new thread" in str(error)
    why = next((text for text in _transient_texts() if text in str(error)), "")
    if here or why:
        why = why if why and why not in line else ""
        return OSError(
            f"the checkpoint {folder} cannot be read now ({': '.join(filter(None, (why, line)))}); "
            "it was not changed: check its disk or network, then start the same command again"
        )
    return Damaged(f"damaged ({line})")


@functools.cache
def _orbax_works() -> bool:
    """Whether a checkpoint can be saved and restored, tried in a process outside of any job."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "ncl_jax.checkpoint.checkpointer"],
        env=environment, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode == 0


def _transient_texts() -> list[str]:
    numbers = [getattr(errno, name) for name in _SYSTEM if hasattr(errno, name)]
    return [*_TRANSIENT, *map(os.strerror, numbers)]


def first_line(error: Exception) -> str:
    """The first line of an error's text, at most 200 characters of it."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), repr(error))[:200]
