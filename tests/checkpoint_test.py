"""Checkpoints: exact round trip, only complete ones, clear refusals."""

import jax
import numpy as np
import optax
import pytest

from ncl_jax import checkpoint, parallel, train
from tests import tiny

DATA, METADATA = {"samples": 48, "seed": 3}, {"config": {"a": {"b": 1}}, "tokenizer": "{}"}


def make_state(devices=2, width=None, placement="replicated"):
    params = tiny.towers()[1] if width is None else {"w": np.ones((width, 2), np.float32)}
    state = train.init_state(params, optax.adam(1e-3), seed=5)
    state = state._replace(step=state.step + 3)
    mesh = parallel.data_mesh(jax.devices()[:devices])
    return parallel.place_state(state, parallel.state_sharding(state, mesh, placement))


def bits(state):
    """Every leaf of a state as bytes, with its path (random keys by their data)."""
    plain = state._replace(rng=jax.random.key_data(state.rng))
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_flatten_with_path(plain)[0]
    }


@pytest.fixture
def saved(tmp_path):
    state = make_state()
    checkpointer = checkpoint.Checkpointer(tmp_path / "ckpt")
    checkpointer.save(state, DATA, METADATA)
    checkpointer.close()
    return tmp_path / "ckpt", state


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_round_trip_is_exact_on_any_number_of_devices(saved, devices):
    folder, state = saved
    checkpointer = checkpoint.Checkpointer(folder)
    like = make_state(devices)
    restored = checkpointer.restore(like._replace(step=like.step * 0))
    assert bits(restored.state) == bits(state)
    assert type(restored.state.opt_state) is type(state.opt_state)
    assert restored.data == DATA
    assert restored.metadata == METADATA
    assert checkpointer.metadata() == METADATA
    checkpointer.close()


def test_unfinished_save_is_not_a_checkpoint(saved):
    folder, _ = saved
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    checkpointer = checkpoint.Checkpointer(folder)
    assert checkpointer.latest_step() == 3
    checkpointer.close()


def test_another_model_is_refused(saved):
    folder, _ = saved
    checkpointer = checkpoint.Checkpointer(folder)
    with pytest.raises(ValueError, match="does not fit the model of this config"):
        checkpointer.restore(make_state(width=4))
    checkpointer.close()


def test_a_damaged_checkpoint_is_said_to_be_damaged(saved, monkeypatch):
    """With the error that TensorStore gives for a flipped byte; the real one floods stderr."""
    folder, _ = saved
    checkpointer = checkpoint.Checkpointer(folder)

    def restore(*_, **__):
        raise Exception("DATA_LOSS: CRC-32C checksum verification failed\nmore")

    monkeypatch.setattr(checkpointer._manager, "restore", restore)
    with pytest.raises(ValueError, match=r"checkpoint .*/3 is damaged \(DATA_LOSS.*delete that"):
        checkpointer.restore(make_state())
    checkpointer.close()


def test_only_the_latest_are_kept(tmp_path):
    state = make_state(width=4)
    checkpointer = checkpoint.Checkpointer(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpointer.save(state._replace(step=state.step * 0 + step), DATA, METADATA)
    checkpointer.close()
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 3]
