"""Where a run's numbers go: `metrics.jsonl`, TensorBoard event files and a progress bar."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from ncl_jax.distributed import runtime
from ncl_jax.files import write_text
from ncl_jax.progress import ticking


class RunLog:
    """Writes metrics of one run; use as a context manager.

    Each line of `metrics.jsonl` is {"step", "time" (unix seconds), "prefix/name": number, ...}.
    What a killed run wrote after its last checkpoint, `done`, is dropped: those steps come again.
    """

    def __init__(self, workdir: epath.Path, *, steps: int, done: int, batch_size: int):
        self._workdir = workdir
        _drop_after(workdir / "metrics.jsonl", done)
        self._lines = (workdir / "metrics.jsonl").open("a")
        self._events = _open_events(workdir / "tensorboard", done + 1)
        # In a file every refresh is a line: one a minute is enough there.
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc="train" if done >= steps else "compiling the step",
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 60,
            smoothing=0.1,
        )
        self._batch_size = batch_size
        self._last = (done, time.perf_counter())
        self._clock = contextlib.ExitStack()
        if sys.stderr.isatty():  # the bar's own goes on while a step compiles and in validation
            self._clock.enter_context(ticking(self._bar.refresh))

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: Any) -> None:
        self._clock.close()
        for file in (self._bar, self._lines, self._events):
            with contextlib.suppress(OSError):  # what counts was written by `write`, or it has told
                file.close()

    def write(self, step: int, metrics: dict[str, Any], prefix: str) -> None:
        """Append one line and one event per number (nested dicts become `a/b`).

        Raises:
          OSError: they could not be written.
        """
        named = flatten_dict(metrics, sep="/").items()
        flat = {f"{prefix}/{name}": float(value) for name, value in named}
        with self._telling():
            self._lines.write(json.dumps({"step": step, "time": time.time()} | flat) + "\n")
            self._lines.flush()
            for name, value in flat.items():
                self._event(step, name, value)
            self._events.flush()

    def progress(self, step: int, metrics: dict[str, Any] | None) -> None:
        """Move the bar; with metrics, show the loss and the clips per second since the last."""
        self._bar.set_description_str("train", refresh=False)
        self._bar.update(step - self._bar.n)
        if metrics is None:
            return
        now, (last_step, last_time) = time.perf_counter(), self._last
        speed = (step - last_step) * self._batch_size / max(now - last_time, 1e-9)
        self._last = (step, now)
        self._bar.set_postfix_str(
            f"loss {metrics['loss']:.3f}, {speed:.0f} clips/s", refresh=False
        )
        with self._telling():
            self._event(step, "train/clips_per_second", speed)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"the log of the run could not be written to {self._workdir} ({error}); free "
                "space there and run the same command again to resume from the last checkpoint"
            ) from error

    def _event(self, step: int, name: str, value: float) -> None:
        event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
        self._events.write_event(event)


class Silent:
    """The log of a process that is not the first of its job."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: Any) -> None: ...
    def write(self, step: int, metrics: dict[str, Any], prefix: str) -> None: ...
    def progress(self, step: int, metrics: dict[str, Any] | None) -> None: ...


def open_log(workdir: epath.Path, **run: int) -> RunLog | Silent:
    """The log of this process: one process of a job writes."""
    return RunLog(workdir, **run) if runtime.is_first() else Silent()


def _open_events(folder: epath.Path, first_step: int) -> EventsWriter:
    """TensorBoard's file; what a killed run wrote from `first_step` on is not shown.

    Written by the thread that logs: tensorboardX's usual writer has one of its own, which a full
    disk ends, and for which the next events then wait for ever.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = EventsWriter(str(folder / "events"))
    events.write_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))
    return events


def _drop_after(path: epath.Path, step: int) -> None:
    """Keep the whole lines of steps up to `step`."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= step]
    if len(kept) < len(lines):
        write_text(path, "".join(kept))


def _step_of(line: str) -> float:
    """The step of a line; that of a damaged line lies beyond all others."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf
