"""Steps that went wrong: counted, kept in bounds, and an end to them; and which run is another."""

import contextlib
import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from ncl_jax.errors import InputError
from ncl_jax.training import run_state
from ncl_jax.training.step import init_state
from tests import tiny

METRICS = {"loss": np.float32(np.nan), "grad_norm": np.float32(np.inf)}


@pytest.fixture
def batch():
    return tiny.batch(0, 4)


def opened(tmp_path, on_nonfinite):
    return run_state.Progress(
        epath.Path(tmp_path), {"config": {}, "tokenizer": "{}"}, batch_size=4, seed=0, keep=2,
        on_nonfinite=on_nonfinite, clips=[f"clip{i}" for i in range(100)],
    )  # fmt: skip


def state_after(step):
    state = init_state({"w": jnp.ones(2)}, optax.sgd(1.0), 0)
    return state._replace(step=state.step + step)


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "nonfinite").glob("batch-*"))


def test_skipped_steps_are_counted_and_a_few_batches_kept(tmp_path, batch, capsys):
    run = opened(tmp_path, "skip")
    for step in range(1, 40, 2):
        run.skipped(state_after(step), batch, METRICS)
    run.close()
    assert kept(tmp_path) == [f"batch-step-{step}-process-0.npz" for step in (1, 3, 5)]
    said = capsys.readouterr().out
    assert "at step 39 the loss is nan and the gradient norm inf (clips clip" in said
    assert "the step is skipped, 20 so far" in said


def test_a_batch_that_cannot_be_kept_hides_no_nan(tmp_path, batch, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_state.nonfinite, "keep_batch", full)
    run = opened(tmp_path, "stop")
    with pytest.raises(FloatingPointError, match=r"at step 1 the loss is nan .*could not be saved"):
        run.skipped(state_after(1), batch, METRICS)
    run.close()


def test_ten_skipped_steps_in_a_row_end_the_run(tmp_path, batch):
    run = opened(tmp_path, "skip")
    for step in range(1, 10):
        run.skipped(state_after(step), batch, METRICS)
    with pytest.raises(FloatingPointError, match="at step 10"):
        run.skipped(state_after(10), batch, METRICS)
    run.close()
    assert "batch-step-10-process-0.npz" in kept(tmp_path)
    assert (tmp_path / "nonfinite" / "checkpoints" / "9").is_dir()


def test_a_run_on_corrected_captions_is_another(tmp_path):
    def progress(**texts):
        return run_state.Progress(
            epath.Path(tmp_path), {"config": {"a": 1}, "captions": 3, **texts}, batch_size=4,
            seed=0, keep=2, on_nonfinite="stop", clips=["a"],
        )  # fmt: skip

    state = state_after(3)
    with contextlib.closing(progress(texts="one")) as run:
        run.save(state, {})
    with contextlib.closing(progress(texts="one")) as run:
        assert int(run.restore(state, ()).step) == 3
    with (
        contextlib.closing(progress(texts="two")) as run,
        pytest.raises(InputError, match="holds another run: texts was one, now it is two"),
    ):
        run.restore(state, ())
    shutil.rmtree(tmp_path / "checkpoints")
    with contextlib.closing(progress()) as run:  # of an earlier version
        run.save(state, {})
    with contextlib.closing(progress(texts="two")) as run:
        assert int(run.restore(state, ()).step) == 3
