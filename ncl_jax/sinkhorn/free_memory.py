"""How much memory a program may still take, on this machine and in its container."""

import os
import pathlib
import re

_MEMINFO = pathlib.Path("/proc/meminfo")
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_USUAL = 2e9


def free_memory() -> float:
    """Bytes that can be taken without swapping, or without reaching the limit of a container.

    Where the system does not say, a quarter of its memory, or 2 GB.

    Example:
      >>> free_memory() > 0
      True
    """
    free = [_of_machine(), *(_of_container(*files) for files in _CGROUPS)]
    return max(0.0, min(value for value in free if value is not None))


def _of_machine() -> float:
    try:
        return 1024 * float(re.findall(r"MemAvailable:\s+(\d+) kB", _MEMINFO.read_text())[0])
    except (OSError, IndexError):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 4
        except (AttributeError, ValueError, OSError):  # Windows
            return _USUAL


def _of_container(folder: str, limit: str, used: str) -> float | None:
    """None where there is no limit. Pages of files that the system would drop count as free."""
    group = pathlib.Path(folder)
    try:
        most, now = (float((group / name).read_text()) for name in (limit, used))
        stat = (group / "memory.stat").read_text()
    except (OSError, ValueError):  # no such group; "max"
        return None
    pages = re.findall(r"(?m)^(?:total_)?inactive_file (\d+)$", stat)
    return most - now + max(map(float, pages), default=0.0)
