"""Memory of a process. Imports nothing that needs memory itself."""

import pathlib
import re


def peak_resident() -> float:
    """Most GB that this program has held; `getrusage` would count its parent's at the fork too."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1e6
