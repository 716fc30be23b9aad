"""What is said while a command works: a line in a file, a running clock in a terminal."""

import io
import os
import pty
import threading
import time

import pytest

from ncl_jax import progress


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
                deadline, said = time.monotonic() + 20, b""
                while said.count(b"compiling ... 0 s") < 3 and time.monotonic() < deadline:
                    said += os.read(ours, 1000)
                if fails:
                    raise ValueError("planted")
        except ValueError:
            assert fails
        assert threading.active_count() == before
        said += os.read(ours, 1000)
    os.close(ours)
    assert said.count(b"compiling ... 0 s") >= 3
    assert said.rstrip(b"\r\n").endswith(b"compiling ... 0 s")
    assert said.endswith(b"\n")
    assert said.count(b"\n") == 1


def test_it_goes_where_print_goes(capsys):
    with progress.announced("reading"):
        pass
    assert capsys.readouterr().out == "reading ...\n"
