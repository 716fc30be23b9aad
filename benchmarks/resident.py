"""Memory of a process. Imports nothing that needs memory itself."""

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

_SMALL = """
import json, os, sys, time
start = time.perf_counter()
out = os.open(os.devnull, os.O_WRONLY)
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
                       file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])
_, status, used = os.wait4(child, 0)
print(json.dumps([status, time.perf_counter() - start, used.ru_maxrss / 1e6]))
"""


def peak_resident() -> float:
    """Most GB that this program has held; `getrusage` would count its parent's at the fork too."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1e6


def of_command(command: Sequence[str]) -> tuple[float, float]:
    """(seconds, most GB) of a program, without what it prints.

    A small process starts it: the memory of whoever starts a program counts as the program's.

    Raises:
      RuntimeError: it fails.
    """
    line = [sys.executable, "-S", "-c", _SMALL, *command]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True)
    status, seconds, peak = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed")
    return seconds, peak
