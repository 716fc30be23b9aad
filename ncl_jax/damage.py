"""Why a checkpoint could not be read: its own fault, or that of the way to it."""

from etils import epath

from ncl_jax import processes

PASSING = ("PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED")
"""TensorStore's words for what is no damage."""


class Damaged(Exception):
    """A checkpoint that cannot be read as it was written."""


READING = (Damaged, OSError, ValueError)
"""What goes wrong with reading."""


def told(error: Exception, folder: epath.Path) -> Exception:
    """What to raise instead of what Orbax and TensorStore raised while they read `folder`."""
    if lost := processes.lost_peer(error):
        return lost
    line = first_line(error)
    here = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    if here or any(word in line for word in PASSING):
        return OSError(
            f"the checkpoint {folder} cannot be read now ({line}); it was left as it is: look at "
            "its disk or network, then start the same command again"
        )
    return Damaged(f"damaged ({line})")


def first_line(error: Exception) -> str:
    """The first words of an error, in at most 200 characters."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), repr(error))[:200]
