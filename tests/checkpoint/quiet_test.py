"""What a script and its user see of saves under way at its end, and of damage: one sentence."""

import gc
import logging
import subprocess
import sys

import numpy as np
import optax
import pytest

from ncl_jax.checkpoint import quiet
from ncl_jax.training.step import init_state
from tests.checkpoint.checkpointer_test import bits, restore, save, steps_in

# Orbax leaves unawaited coroutines behind when a file is damaged or cannot be written.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning",
                                        "ignore:coroutine:RuntimeWarning")

LEAVE = """
import resource, signal, sys
import jax, jax.numpy as jnp
from ncl_jax.checkpoint.checkpointer import Checkpointer
from ncl_jax.types import TrainState

def train():
    params = {"w": jax.random.normal(jax.random.key(1), (1000, 1000))}
    state = TrainState(jnp.int32(7), params, (), jax.random.key(0))
    checkpointer = Checkpointer(sys.argv[1])
    if sys.argv[2] == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    checkpointer.save(state, {"samples": 1}, {"config": {}})
    if sys.argv[2] == "fails":
        raise RuntimeError("own")

train()
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [("ends", 0), *(pytest.param(how, 1, marks=pytest.mark.slow) for how in ("fails", "full"))],
)
def test_a_script_may_leave_right_after_a_save(tmp_path, how, code):
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, tmp_path, how],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stderr.splitlines()
    if sys.version_info[:2] == (3, 12) and done.returncode == 1 and how != "full":
        assert said[-1].endswith("call `close()` of its Checkpointer before the script ends")
        return  # this Python starts no threads at its end: it is lost, and that is said
    assert done.returncode == code, done.stderr
    assert steps_in(tmp_path) == ([] if how == "full" else [7])
    if how == "fails":
        assert said[-1] == "RuntimeError: own"
    else:
        assert len(said) == (how == "full"), done.stderr
    if how == "full":
        assert said[0].startswith("at the end of the program: a checkpoint could not be written")


@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(how, marks=pytest.mark.slow) for how in ("remove", "zero"))]
)
def test_of_a_damaged_checkpoint_only_the_sentence_is_printed(tmp_path, damage, capfd, caplog):
    """Orbax reads arrays in parallel: each used to print its traceback, some after the read."""
    params = {f"w{i}": np.arange(20_000, dtype=np.float32) + i for i in range(30)}
    state = init_state(params, optax.sgd(1e-3), seed=5)
    save(tmp_path / "ckpt", state, state._replace(step=state.step + 1))
    for victim in (tmp_path / "ckpt" / "1" / "arrays").rglob("*"):
        if victim.is_file() and victim.stat().st_size > 10_000:
            content = victim.read_bytes()
            victim.unlink()
            if damage != "remove":
                cut = content[: len(content) // 2]
                victim.write_bytes(cut if damage == "cut" else bytes(len(content)))
    (tmp_path / "ckpt" / "1" / "_CHECKPOINT_METADATA").write_text("{")
    capfd.readouterr()
    caplog.clear()
    assert bits(restore(tmp_path / "ckpt", state).state) == bits(state)
    gc.collect()
    out, err = capfd.readouterr()
    assert err == ""
    assert caplog.records == []
    assert out.count("\n") == 1
    assert "ckpt/1 is damaged (" in out
    assert "See full TensorStore details" not in out  # but what it says


def test_only_their_own_complaints_are_kept_back(monkeypatch, caplog):
    monkeypatch.setattr(quiet, "_work", 0)  # of failures of other tests
    hook = sys.unraisablehook
    seen = []
    try:
        sys.unraisablehook = lambda unraisable: seen.append(str(unraisable.exc_value))
        ours = sys.unraisablehook
        quiet.begin()
        logging.getLogger("absl").error("of ours")
        try:
            exec(compile("raise ValueError", "packages/orbax/checkpoint/reading.py", "exec"))
        except ValueError:
            # as of a gathered future that nobody awaits, and as of a caller who reports a failure
            logging.getLogger("asyncio").exception("of theirs")
            logging.getLogger("absl").exception("of ours too")
        for error in ValueError("DATA_LOSS: Error reading"), ValueError("of ours"):
            logging.getLogger("asyncio").error(str(error), exc_info=error)
        sys.unraisablehook(Unraisable("of ours"))
        sys.unraisablehook(Unraisable("Event loop is closed"))
        quiet.end()
        assert sys.unraisablehook is ours
    finally:
        sys.unraisablehook = hook
    assert seen == ["of ours"]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["of ours", "of ours too", "of ours"]


class Unraisable:
    """As Python hands to the hook."""

    def __init__(self, says):
        self.exc_value, self.exc_traceback, self.object = RuntimeError(says), None, None
