"""How long the phases of a run took, over all commands that worked on it."""

import contextlib
import json
import time
from collections.abc import Iterator

from etils import epath

from ncl_jax.distributed import runtime
from ncl_jax.files import write_text

FILE = "seconds.json"


class RunClock:
    """Adds up the seconds of each phase; what earlier commands took is read from the workdir.

    Nothing is written before `save`, so that a command that is refused changes nothing. Only
    process 0 of a job writes.

    Args:
      workdir: of the run.

    Example:
      >>> clock = RunClock(epath.Path("runs/no_such_run"))
      >>> with clock.phase("data"):
      ...     pass
      data: 0 s
      >>> list(clock.seconds())
      ['data']
    """

    def __init__(self, workdir: epath.Path):
        self._file = workdir / FILE
        self._before = _read(self._file) or _read(workdir / "results.json", "run", "seconds")
        self._now: dict[str, float] = {}
        self._running: tuple[str, float] | None = None

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times what is inside, and says how long this command took for it."""
        self._running = name, time.perf_counter()
        yield
        self._now, self._running = self._measured(), None
        runtime.log(f"{name}: {self._now[name]:.0f} s")

    def seconds(self) -> dict[str, float]:
        """By phase, so far, of this and all earlier commands."""
        now = self._measured()
        names = dict.fromkeys([*self._before, *now])
        return {n: round(self._before.get(n, 0.0) + now.get(n, 0.0), 2) for n in names}

    def save(self) -> None:
        """Keep them for the commands to come, should this one be killed."""
        if runtime.is_first():
            write_text(self._file, json.dumps(self.seconds()) + "\n")

    def _measured(self) -> dict[str, float]:
        if self._running is None:
            return self._now
        name, start = self._running
        return self._now | {name: time.perf_counter() - start}


def _read(file: epath.Path, *keys: str) -> dict[str, float]:
    """Nothing where there is no file, or one that a full disk cut short."""
    try:
        found = json.loads(file.read_text())
        for key in keys:
            found = found[key]
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return {}
