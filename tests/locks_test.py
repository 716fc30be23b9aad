"""A lock keeps others out from reading to writing, has a time limit, and dies with its process."""

import subprocess
import sys
import threading
import time

import pytest

from ncl_jax import locks
from ncl_jax.errors import InputError
from ncl_jax.locks import locked

HOLD = """
import sys, time
from ncl_jax.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a file until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "a.txt"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_process_is_waited_for_only_so_long(holder, tmp_path, capsys):
    start = time.monotonic()
    with pytest.raises(InputError) as refused, locked(tmp_path / "a.txt", 0.3):
        pass
    assert 0.3 <= time.monotonic() - start < 5
    assert str(refused.value) == (
        f"{tmp_path}/a.txt: another process is still at work on it after 0.3 seconds; run this "
        "command again when that one has ended"
    )
    assert "at work on it; waiting, 0.3 seconds at most" in capsys.readouterr().err


def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "a.txt", 0.3):
        pass


def test_one_file_by_two_names_has_one_lock(holder, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    with pytest.raises(InputError, match="still at work"), locked(tmp_path / "link", 0):
        pass


def test_a_thread_may_take_it_again_and_others_wait(tmp_path):
    path, order = tmp_path / "a.txt", []

    def other():
        with locked(path):
            order.append("other")

    thread = threading.Thread(target=other)
    with locked(path):
        with locked(path):
            thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "other"]
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_locked_is_not(tmp_path):
    for place in (tmp_path / "nowhere" / "a.txt", "gs://bucket/a.txt"):
        with locked(place, 0):
            pass
    assert not list(tmp_path.iterdir())


def test_the_usual_limit_is_a_minute():
    assert locks.SECONDS == 60
