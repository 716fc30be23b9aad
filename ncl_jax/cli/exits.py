"""How every command ends: exit code, and at most one sentence instead of a traceback."""

import sys
from collections.abc import Callable


def code_of(command: Callable[[], None]) -> int:
    """Runs the command; 0, 2 after one sentence about bad input, or 130 after an interrupt."""
    try:
        command()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
