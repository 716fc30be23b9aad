"""What is said while a command works: a line in a file, a running clock in a terminal."""

import io
import os
import pty
import re
import threading

import numpy as np
import pytest

from ncl_jax import progress

CLOCK = re.compile(rb"compiling \.\.\. \d+ s")


def test_in_a_file_it_is_one_line_before_the_work():
    stream = io.StringIO()
    with progress.announced("compiling", stream):
        assert stream.getvalue() == "compiling ...\n"
    assert stream.getvalue() == "compiling ...\n"


@pytest.mark.parametrize("fails", [False, True])
def test_in_a_terminal_a_clock_runs_until_the_end(monkeypatch, fails):
    monkeypatch.setattr(progress, "SECOND", 0.01)
    ours, theirs = pty.openpty()
    before = threading.active_count()
    with os.fdopen(theirs, "w") as stream:
        try:
            with progress.announced("compiling", stream):
                said = b""
                while len(CLOCK.findall(said)) < 3:
                    said += os.read(ours, 1000)
                if fails:
                    raise ValueError("planted")
        except ValueError:
            assert fails
        assert threading.active_count() == before
        while b"\n" not in said:
            said += os.read(ours, 1000)
    os.close(ours)
    assert len(CLOCK.findall(said)) >= 4
    assert re.search(rb"compiling \.\.\. \d+ s\r\n$", said)
    assert said.count(b"\n") == 1


def test_it_goes_where_print_goes(capsys):
    with progress.announced("reading"):
        pass
    assert capsys.readouterr().out == "reading ...\n"


def test_estimate_is_exact_where_names_take_as_long_each_time():
    planned = ["a", "b", "c"] * 3
    took = {"a": 1.0, "b": 20.0, "c": 4.0}
    estimate = progress.Estimate({"a": 1.0, "b": 5.0, "c": 2.0}, planned)
    assert estimate.left() is None
    for done, name in enumerate(planned, 1):
        estimate.done(name, took[name])
        if done >= 3:
            assert estimate.left() == pytest.approx(sum(took[n] for n in planned[done:]))
    assert estimate.spent == 75


def test_estimate_of_names_not_seen_yet_goes_by_their_weights():
    estimate = progress.Estimate({"a": 1.0, "b": 5.0}, ["a", "a", "b"])
    estimate.done("a", 3.0)
    assert estimate.left() == 3 + 15


def test_work_side_by_side_takes_its_share_of_the_time():
    estimate = progress.Estimate({"a": 1.0}, ["a"] * 6, at_a_time=2)
    estimate.done("a", 10.0)
    assert estimate.left() == 25
    for _ in range(4):
        estimate.done("a", 10.0)
    assert estimate.left() == 10  # the last one has nobody beside it


def test_steps_in_a_file_are_lines_now_and_then(monkeypatch):
    seconds = iter(np.arange(0, 100, 3.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    stream = io.StringIO()
    steps = progress.Steps(progress.Estimate({"a": 1.0}, ["a"] * 5), stream)
    for number in range(5):
        with steps.step(f"step {number}", "a"):
            pass
    assert stream.getvalue() == "step 0\nstep 2; about 9 s left\nstep 4; about 3 s left\n"


def test_steps_in_a_terminal_are_one_line_that_changes():
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        steps = progress.Steps(progress.Estimate({"a": 1.0}, ["a"] * 2), stream)
        for number in range(2):
            with steps.step(f"step {number}", "a"):
                pass
        said = os.read(ours, 1000).decode()
        while "step 1;" not in said:  # a terminal gives what it has got so far
            said += os.read(ours, 1000).decode()
    os.close(ours)
    assert re.search(r"step 0 \(\d+ s\)", said)
    assert re.search(r"step 1; about \d+ s left \(\d+ s\)", said)
    assert "\n" not in said


def test_the_time_left_does_not_jump_while_two_work_side_by_side():
    """Eight that take a minute each, two at a time: it falls as the clock goes on."""
    estimate = progress.Estimate({"a": 1.0, "b": 1.0}, ["a", "b"] * 4, at_a_time=2)
    estimate.done("a", 60.0)
    assert estimate.left([("b", 60.0)]) == 180
    estimate.done("b", 61.0)
    assert estimate.left([("a", 1.0)]) == pytest.approx(181)
    estimate.done("a", None)  # another sweep did it meanwhile
    assert estimate.left() == pytest.approx((60 * 2 + 61 * 3) / 2)
