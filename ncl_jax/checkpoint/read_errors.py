"""Why a checkpoint could not be read: corrupt file or storage failure?"""

import errno
import functools
import os
import subprocess
import sys

from etils import epath

from ncl_jax.distributed import runtime
from ncl_jax.errors import BUGS, InputError

PASSING = ("PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED")
"""TensorStore's words for what is no damage."""
_SYSTEM = (
    "EIO", "EACCES", "EPERM", "ESTALE", "ETIMEDOUT", "ENODEV", "ENXIO", "ENOMEM", "EMFILE",
    "ENFILE", "ENOTCONN", "ESHUTDOWN", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN",
    "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "EREMOTEIO",
)  # fmt: skip
"""What the system says of a disk or network that fails; TensorStore keeps its words."""


class Damaged(Exception):
    """A checkpoint that cannot be read as it was written."""


READING = (Damaged, OSError, InputError)
"""What goes wrong with reading."""


def translate_read_error(error: Exception, folder: epath.Path) -> Exception:
    """What to raise instead of what Orbax and TensorStore raised while they read `folder`."""
    if lost := runtime.lost_peer(error):
        return lost
    if runtime.out_of_memory(error):
        return error
    if isinstance(error, BUGS) and not _orbax_works():
        return RuntimeError(
            f"the Orbax of this environment does not read what it writes, so {folder} was left as "
            "it is; install the versions that requirements.txt names"
        )
    while type(error) is Exception and isinstance(error.__cause__, Exception):
        error = error.__cause__  # Orbax wraps what TensorStore says of an array
    line = first_line(error)
    here = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    here |= isinstance(error, MemoryError) or "can't start new thread" in str(error)
    why = next((word for word in _passing() if word in str(error)), "")
    if here or why:
        why = why if why and why not in line else ""
        return OSError(
            f"the checkpoint {folder} cannot be read now ({': '.join(filter(None, (why, line)))}); "
            "it was left as it is: look at its disk or network, then start the same command again"
        )
    return Damaged(f"damaged ({line})")


@functools.cache
def _orbax_works() -> bool:
    """Whether `checkpoint` reads what it writes, tried in a process that knows of no other."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "ncl_jax.checkpoint.checkpointer"],
        env=environment, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode == 0


def _passing() -> list[str]:
    numbers = [getattr(errno, name) for name in _SYSTEM if hasattr(errno, name)]
    return [*PASSING, *map(os.strerror, numbers)]


def first_line(error: Exception) -> str:
    """The first words of an error, in at most 200 characters."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), repr(error))[:200]
