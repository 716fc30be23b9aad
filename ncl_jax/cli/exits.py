"""How every command ends: exit code, and one sentence instead of a traceback for bad input."""

import sys
from collections.abc import Callable

from ncl_jax.cli import versions
from ncl_jax.errors import InputError


def run_cli(command: Callable[[], None]) -> int:
    """Runs the command; 0, 2 after one sentence about bad input, or 130 after an interrupt.

    Any other error is a fault of the program: it is raised, so that Python prints the traceback
    and exits with code 1.
    """
    try:
        versions.check()
        command()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
