"""Notices to stop: heard at the next step, and what a second one does."""

import os
import signal

import pytest

from ncl_jax.training.preemption import PreemptionGuard


@pytest.fixture(autouse=True)
def as_in_a_shell():
    """Jobs that a script starts with `&` begin with Ctrl-C ignored; this may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number):
    os.kill(os.getpid(), number)


def test_ctrl_c_asks_to_stop_and_a_second_one_interrupts(capfd):
    with PreemptionGuard() as notice:
        assert not notice()
        send(signal.SIGINT)
        assert notice()
        assert "stops after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_sigterm_may_come_again():
    before = signal.getsignal(signal.SIGTERM)
    with PreemptionGuard() as notice:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert notice()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_job_in_the_background_still_ignores_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with PreemptionGuard() as notice:
        send(signal.SIGINT)
        assert not notice()
