"""A notice to stop, after which a run ends in good order."""

import os
import signal
import threading
from typing import Any

from ncl_jax.distributed import sync

STOPPING = (signal.SIGTERM, signal.SIGINT)
STOPS = b"\ninterrupted: stops after this step and its checkpoint (once more: at once)\n"


class PreemptionGuard:
    """Whether to stop: a SIGTERM has come, the usual notice of preemption, or Ctrl-C.

    A notice to one process of a job stops all of them at the same step. A second Ctrl-C interrupts
    at once, as either signal does outside of the context.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "PreemptionGuard":
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in STOPPING if signal.getsignal(n) != signal.SIG_IGN]  # as `&` sets it
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """To be asked once per step, by all processes alike."""
        return sync.any_process(self._came)

    def _note(self, number: int, _: Any) -> None:
        self._came = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            os.write(2, STOPS)  # a print may be what was interrupted






