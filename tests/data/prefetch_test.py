"""Batches made ahead: order, errors, time limits, ends; and the share of time they cost."""

import contextlib
import itertools
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from ncl_jax.data.prefetch import Ahead
from ncl_jax.distributed.sharding import MappedStep
from ncl_jax.training.input_profiler import InputProfile


def test_everything_in_order_and_then_the_end_for_good():
    batches = Ahead(range(5), count=2)
    assert list(batches) == [0, 1, 2, 3, 4]
    assert list(batches) == []


def test_an_error_comes_at_its_place_and_stays():
    def items():
        yield 1
        raise ValueError("record 2 is damaged")

    batches = Ahead(items())
    assert next(batches) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="record 2 is damaged"):
            next(batches)


def test_a_stalled_input_is_given_up_on_and_may_come_back():
    gate = threading.Event()

    def items():
        yield 1
        gate.wait()
        yield 2

    batches = Ahead(items())
    assert batches.take(timeout=5) == 1
    with pytest.raises(TimeoutError, match=r"no input for 0\.01 seconds"):
        batches.take(timeout=0.01)
    gate.set()
    assert batches.take(timeout=5) == 2
    assert batches.waited >= 0.01


def test_close_stops_and_closes_the_source():
    closed = threading.Event()

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    with contextlib.closing(Ahead(items())) as batches:
        assert next(batches) == 0
    assert closed.wait(5)
    assert list(batches) == []
    forgotten = Ahead(items())
    closed.clear()
    next(forgotten)
    del forgotten
    assert closed.wait(5)


@pytest.mark.slow
def test_a_process_ends_while_its_input_hangs():
    """Also in grain's threads, at the end of the program and with an error on the way."""
    code = (
        "import time, grain\n"
        "from ncl_jax.data import pipeline\n"
        "from ncl_jax.data.prefetch import Ahead\n"
        "d = grain.MapDataset.range(99).map(lambda i: time.sleep(999 if i == 9 else 0) or i)\n"
        "batches = Ahead(pipeline._batches(d, 4, 2))\n"
        "print(batches.take(60), batches.take(60)); batches.take(0.5)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False,
        cwd=pathlib.Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "[0 1 2 3] [4 5 6 7]\n"
    assert done.stderr.strip().endswith("TimeoutError: no input for 0.5 seconds")
    assert done.returncode == 1


def test_profile_tells_waiting_from_computing():
    def train(input_seconds, step_seconds):
        def items():
            for n in range(12):
                time.sleep(input_seconds)
                yield n

        def run(state, batch):
            time.sleep(0.2 if not batch else step_seconds)  # the first one compiles
            return state + 1, {"loss": 0.0}

        profile, batches = InputProfile(), Ahead(items())
        step = profile.wrap(MappedStep(place=lambda batch: batch, run=run), batches)
        for batch in batches:
            _, metrics = step.run(0, step.place(batch))
        assert metrics == {"loss": 0.0, "input_wait_share": profile.share}
        return profile.share

    assert train(0.0, 0.1) < 0.1  # steps long beside what a busy machine may add to a wait
    assert train(0.04, 0.01) > 0.5
