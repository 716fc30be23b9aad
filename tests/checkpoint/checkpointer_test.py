"""Checkpoints: exact round trip, only sound and complete ones, clear refusals."""

import contextlib
import errno
import gc
import json
import math
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from ncl_jax.checkpoint import checkpointer as checkpointing
from ncl_jax.checkpoint import checksums, read_errors
from ncl_jax.distributed import sharding
from ncl_jax.training.step import init_state
from tests import tiny

# Orbax leaves unawaited coroutines behind when a file is damaged or cannot be written.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning",
                                        "ignore:coroutine:RuntimeWarning")
DATA = {"samples": 48, "seed": 3, "skipped": 0}
METADATA = {"config": {"a": {"b": 1}}, "tokenizer": "{}"}


@pytest.fixture(autouse=True)
def leave_nothing_to_other_tests():
    """Coroutines are complained of when they are collected: here, not in a later test."""
    yield
    gc.collect()


def make_state(devices=2, width=None, placement="replicated", step=3):
    params = tiny.towers()[1]
    if width is not None:
        params = {"w": np.random.default_rng(0).normal(size=(width, 200)).astype(np.float32)}
    state = init_state(params, optax.adam(1e-3), seed=5)
    state = state._replace(step=state.step + step)
    mesh = sharding.data_mesh(jax.devices()[:devices])
    return sharding.place_state(state, sharding.state_sharding(state, mesh, placement))


def bits(state):
    """Every leaf of a state as bytes, with its path (random keys by their data)."""
    plain = state._replace(rng=jax.random.key_data(state.rng))
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_flatten_with_path(plain)[0]
    }


def save(folder, *states, keep=2, scores=None):
    checkpointer = checkpointing.Checkpointer(folder, keep)
    for number, state in enumerate(states):
        checkpointer.save(state, DATA, METADATA, scores and scores[number])
    checkpointer.close()


def restore(folder, like):
    checkpointer = checkpointing.Checkpointer(folder)
    try:
        return checkpointer.restore(like)
    finally:
        checkpointer.close()


@pytest.fixture
def saved(tmp_path):
    state = make_state(placement="fsdp")
    save(tmp_path / "ckpt", state)
    return tmp_path / "ckpt", state


@pytest.mark.parametrize(
    ("devices", "placement"),
    [
        pytest.param(1, "replicated", marks=pytest.mark.slow),
        (2, "replicated"),
        pytest.param(4, "fsdp", marks=pytest.mark.slow),
    ],
)
def test_round_trip_is_exact_on_any_number_of_devices(saved, devices, placement, monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED", 64)
    folder, state = saved
    restored = restore(folder, make_state(devices, placement=placement, step=0))
    assert bits(restored.state) == bits(state)
    assert type(restored.state.opt_state) is type(state.opt_state)
    assert restored.data == DATA | {"score": None}
    assert restored.metadata == METADATA
    checkpointer = checkpointing.Checkpointer(folder)
    assert checkpointer.metadata() == METADATA
    checkpointer.close()


def test_unfinished_save_is_not_a_checkpoint(saved):
    folder, _ = saved
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    checkpointer = checkpointing.Checkpointer(folder)
    assert checkpointer.latest_step() == 3
    checkpointer.close()


def test_a_reader_leaves_the_folder_of_a_run_that_saves_as_it_is(saved):
    folder, state = saved
    save(folder, make_state(placement="fsdp", step=6))
    (folder / "6" / "contents" / "metadata").write_text("{}")
    (folder / "7.orbax-checkpoint-tmp").mkdir()  # being written
    before = sorted(folder.parent.rglob("*"))
    checkpointer = checkpointing.Checkpointer(folder, read_only=True)
    assert checkpointer.latest_step() == 6
    assert bits(checkpointer.restore(make_state(step=0)).state) == bits(state)
    checkpointer.close()
    assert sorted(folder.parent.rglob("*")) == before


def test_parameters_are_read_alone(tmp_path, monkeypatch):
    """An optimizer's moments are twice as large; a search needs none of them."""
    folder, state = tmp_path / "ckpt", make_state(width=4, step=3)
    save(folder, state)
    read, whole = [], checkpointing.ocp.CheckpointManager.restore

    def noted(self, step, args):
        found = whole(self, step, args=args)
        read.extend(found.get("arrays") or ())
        return found

    monkeypatch.setattr(checkpointing.ocp.CheckpointManager, "restore", noted)
    reader = checkpointing.Checkpointer(folder, read_only=True)
    params, step = reader.restore_params(make_state(width=4, step=0).params)
    reader.close()
    assert step == 3
    assert read
    assert all(name.startswith("params.") for name in read)
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(one, other)
    reader = checkpointing.Checkpointer(folder, read_only=True)
    with pytest.raises(ValueError, match=r"does not fit the model.*First difference: params"):
        reader.restore_params(make_state(width=5, step=0).params)
    reader.close()


def test_another_model_is_refused_by_the_first_difference(saved):
    folder, _ = saved
    with pytest.raises(ValueError, match=r"does not fit the model.*First difference: opt_state"):
        restore(folder, make_state(width=4))
    smaller = make_state()
    smaller.params["logit_scale"] = jnp.ones((2,))
    with pytest.raises(ValueError, match=r"params.logit_scale is \[\[\], 'float32'\] in the"):
        restore(folder, smaller)
    assert not (folder.parent / "damaged").exists()


def test_one_of_an_older_version_is_refused_and_left_alone(saved):
    folder, state = saved
    (folder / "3" / "arrays").rename(folder / "3" / "state")
    with pytest.raises(ValueError, match=r"3 is of an older version of ncl_jax.*--workdir"):
        restore(folder, state)
    assert (folder / "3").is_dir()


def large_files(folder):
    """The files that hold the arrays' numbers, largest first."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_size, reverse=True)


@pytest.mark.parametrize("damage", ["flip", "remove", "cut"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage, capsys):
    """The numbers of arrays carry no checksum in Orbax: a flipped bit there is silent."""
    folder = tmp_path / "ckpt"
    save(folder, make_state(width=300, step=3), make_state(width=300, step=6))
    victim = large_files(folder / "6")[0]
    content = bytearray(victim.read_bytes())
    assert len(content) > 100_000
    if damage == "flip":
        content[len(content) // 2] ^= 0x10
        victim.write_bytes(content)
    elif damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(content[: len(content) // 2])
    restored = restore(folder, make_state(width=300, step=0))
    assert bits(restored.state) == bits(make_state(width=300, step=3))
    assert "6 is damaged" in capsys.readouterr().out
    assert (tmp_path / "damaged" / "6-0").is_dir()
    save(folder, make_state(width=300, step=6))  # its place is free again
    assert bits(restore(folder, make_state(width=300)).state) == bits(
        make_state(width=300, step=6)
    )


@pytest.mark.slow
def test_no_flipped_byte_or_lost_file_changes_what_is_restored(tmp_path):
    """Every file, one byte at a time in three places: the same numbers, or a refusal."""
    state = make_state(width=300)
    save(tmp_path / "ckpt", state, scores=[12.5])
    expected = DATA | {"score": 12.5}
    copy = tmp_path / "copy"
    refused = 0
    for path in [p for p in (tmp_path / "ckpt").rglob("*") if p.is_file()]:
        content = path.read_bytes()
        places = {0, len(content) // 2, len(content) - 1} if content else set()
        for place in [None, *sorted(places)]:
            _copy_tree(tmp_path / "ckpt", copy)
            victim = copy / path.relative_to(tmp_path / "ckpt")
            if place is None:
                victim.unlink()
            else:
                changed = bytearray(content)
                changed[place] ^= 0x04
                victim.write_bytes(changed)
            try:
                restored = restore(copy, state)
            except ValueError:
                refused += 1
            else:
                assert bits(restored.state) == bits(state), (path, place)
                assert (restored.data, restored.metadata) == (expected, METADATA), (path, place)
    assert refused > 10


def _copy_tree(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(target.parent / "damaged", ignore_errors=True)
    shutil.copytree(source, target)


def test_without_a_sound_checkpoint_the_damage_is_told(saved):
    folder, _ = saved
    (folder / "3" / "contents" / "metadata").write_text("{}")
    with pytest.raises(ValueError, match=r"3 is damaged.*no checkpoint is left"):
        restore(folder, make_state())
    checkpointer = checkpointing.Checkpointer(folder)
    assert checkpointer.latest_step() is None
    assert not checkpointer.is_new()  # nobody begins anew over what may yet be saved
    checkpointer.close()


def test_what_cannot_be_read_for_a_moment_is_left_alone(saved, monkeypatch):
    folder, state = saved

    def away(*_, **__):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(checkpointing.ocp.CheckpointManager, "restore", away)
    with pytest.raises(OSError, match=r"3 cannot be read now .*Stale file handle"):
        restore(folder, state)
    assert (folder / "3").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("orbax_works", [True, False])
def test_an_orbax_that_does_not_read_its_own_checkpoints_damages_none(
    saved, monkeypatch, tmp_path, orbax_works
):
    """Damage may raise whatever a bug raises, so Orbax is tried on a checkpoint just written."""
    folder, state = saved

    def changed(*_, **__):
        raise TypeError("restore() got an unexpected keyword argument 'args'")

    if not orbax_works:
        (tmp_path / "newer" / "orbax").mkdir(parents=True)
        (tmp_path / "newer" / "orbax" / "__init__.py").write_text("raise ImportError('planted')")
        monkeypatch.syspath_prepend(tmp_path / "newer")
    monkeypatch.setattr(checkpointing.ocp.CheckpointManager, "restore", changed)
    read_errors._orbax_works.cache_clear()
    kind, said = (ValueError, "3 is damaged") if orbax_works else (RuntimeError, "was not changed")
    with pytest.raises(kind, match=said):
        restore(folder, state)
    read_errors._orbax_works.cache_clear()
    assert (folder / "3").is_dir() != orbax_works


def test_a_save_that_fails_by_a_bug_does_not_ask_for_free_space(tmp_path, monkeypatch):
    def changed(*_, **__):
        raise TypeError("save() got an unexpected keyword argument 'args'")

    checkpointer = checkpointing.Checkpointer(tmp_path / "ckpt")
    monkeypatch.setattr(checkpointing.ocp.CheckpointManager, "save", changed)
    with pytest.raises(TypeError, match="unexpected keyword"):
        checkpointer.save(make_state(), {}, {})
    checkpointer.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.ESTALE])
def test_an_error_of_the_system_is_no_damage_wherever_it_is_told(tmp_path, number):
    """As TensorStore puts it, far behind the first words."""
    error = ValueError(f"UNKNOWN: Error opening: {'x' * 300}: {os.strerror(number)} [spec]")
    assert isinstance(read_errors.translate_read_error(error, epath.Path(tmp_path)), OSError)
    gone = ValueError(f"NOT_FOUND: {'x' * 300}: {os.strerror(errno.ENOENT)} [spec]")
    found = read_errors.translate_read_error(gone, epath.Path(tmp_path))
    assert isinstance(found, read_errors.Damaged)


def test_what_orbax_wraps_is_what_counts(tmp_path):
    wrapped = Exception("Encountered error while reading array index: (slice(0, 3, 1),)")
    wrapped.__cause__ = ValueError("DATA_LOSS: Error reading: Input/output error")
    told = read_errors.translate_read_error(wrapped, epath.Path(tmp_path))
    assert isinstance(told, OSError)
    assert "cannot be read now (DATA_LOSS: Error reading: Input/output error)" in str(told)
    wrapped.__cause__ = ValueError("OUT_OF_RANGE: value of size 1000")
    told = read_errors.translate_read_error(wrapped, epath.Path(tmp_path))
    assert str(told) == "damaged (OUT_OF_RANGE: value of size 1000)"


@pytest.mark.parametrize("keep", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_reader_follows_a_run_that_goes_on(tmp_path, monkeypatch, keep):
    """What it was about to read is replaced by newer checkpoints, before and in mid-reading."""
    save(tmp_path, make_state(step=3), keep=keep)
    reader = checkpointing.Checkpointer(tmp_path, read_only=True)
    read, later = reader._read_plain, iter([4, 6])

    def slow(step):
        before = (number := next(later, None)) == 4
        found = None if before else read(step)
        if number is not None:
            save(tmp_path, *(make_state(step=number + i) for i in range(keep)), keep=keep)
        return found or read(step)

    monkeypatch.setattr(reader, "_read_plain", slow)
    last = 6 + keep - 1
    assert bits(reader.restore(make_state(step=0)).state) == bits(make_state(step=last))
    reader.close()


def test_the_latest_and_the_best_are_kept(tmp_path):
    states = [make_state(width=4, step=step) for step in (1, 2, 3, 4, 5)]
    save(tmp_path, *states, scores=[10.0, 30.0, 20.0, None, None])
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 4, 5]
    checkpointer = checkpointing.Checkpointer(tmp_path)
    assert checkpointer.best_step() == 2
    assert checkpointer.latest_step() == 5
    checkpointer.close()


def test_a_score_that_is_no_number_lets_the_best_stay(tmp_path):
    """Also where it was written before such scores were left out."""
    states = [make_state(width=4, step=step) for step in (1, 2, 3, 4)]
    save(tmp_path, *states[:3], keep=1, scores=[0.3, math.nan, 0.2])
    assert steps_in(tmp_path) == [1, 3]
    data = DATA | {"score": math.nan}
    (tmp_path / "3" / "data" / "metadata").write_text(json.dumps(data))
    held = json.loads((tmp_path / "3" / "contents" / "metadata").read_text())
    held["data"] = checksums.digest(data)
    held["digest"] = checksums.digest({k: v for k, v in held.items() if k != "digest"})
    (tmp_path / "3" / "contents" / "metadata").write_text(json.dumps(held))
    (tmp_path / "3" / "metrics" / "metrics").write_text('{"score": NaN}')
    save(tmp_path, states[3], keep=1, scores=[math.inf])
    assert steps_in(tmp_path) == [1, 4]


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_a_reader_knows_the_best(tmp_path):
    states = [make_state(width=4, step=step) for step in (1, 2, 3)]
    save(tmp_path, *states, keep=3, scores=[10.0, 30.0, 20.0])
    (tmp_path / "3" / "metrics" / "metrics").write_text('{"score": 99.0}')
    with contextlib.closing(checkpointing.Checkpointer(tmp_path, read_only=True)) as reader:
        assert reader.best_step() == 2
    save(tmp_path / "unmeasured", states[0])
    with contextlib.closing(
        checkpointing.Checkpointer(tmp_path / "unmeasured", read_only=True)
    ) as reader:
        assert reader.best_step() is None


@pytest.mark.parametrize("damage_to", ["lost", "garbled", "no such key", "another number"])
def test_a_damaged_score_is_the_one_that_was_measured_again(tmp_path, damage_to):
    save(tmp_path, *[make_state(width=4, step=step) for step in (1, 2, 3)],
         scores=[10.0, 30.25, 20.0])  # fmt: skip
    copy = tmp_path / "2" / "metrics" / "metrics"
    assert json.loads(copy.read_text()) == {"score": 30.25}
    if damage_to == "lost":
        copy.unlink()
    else:
        copy.write_text({"garbled": '{"sco', "no such key": '{"scorf": 30.25}',
                         "another number": '{"score": 10.25}'}[damage_to])  # fmt: skip
    save(tmp_path, make_state(width=4, step=4), make_state(width=4, step=5), scores=[None, None])
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 4, 5]
    checkpointer = checkpointing.Checkpointer(tmp_path)
    assert checkpointer.best_step() == 2
    checkpointer.close()


def test_what_a_host_lacks_is_no_damage(tmp_path):
    for error in (MemoryError(), RuntimeError("can't start new thread")):
        assert isinstance(read_errors.translate_read_error(error, epath.Path(tmp_path)), OSError)
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    assert read_errors.translate_read_error(full, epath.Path(tmp_path)) is full


def test_a_save_that_cannot_be_written_leaves_the_others(tmp_path):
    """A limit on the size of files stands for a full disk."""
    checkpointer = checkpointing.Checkpointer(tmp_path)
    checkpointer.save(make_state(width=300, step=3), DATA, METADATA)
    checkpointer.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write():
        checkpointer.save(make_state(width=300, step=6), DATA, METADATA)
        checkpointer.wait()

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written to .* it resumes from step 3"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    restored = restore(tmp_path, make_state(width=300, step=0))
    assert bits(restored.state) == bits(make_state(width=300, step=3))
