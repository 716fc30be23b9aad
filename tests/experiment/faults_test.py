"""What goes wrong, in real processes: each fault has its stated end, and nothing is lost."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.distributed import runtime
from ncl_jax.experiment.workdir import owned
from tests import jobs, soak

FLAGS = ["--config.train.steps=24", "--config.train.checkpoint_every=5",
         "--config.train.validate_every=100"]
needs_ports = pytest.mark.skipif(
    jobs.free_port() is None, reason="no local port can be opened, so no second process can join"
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return [*FLAGS, *jobs.data_in(tmp_path_factory.mktemp("data"))]


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reference") / "run"
    jobs.run(workdir, data)
    return workdir


@needs_ports
def test_killed_in_a_step_and_in_a_save_a_job_ends_with_the_same_bits(data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    flags = [*data, "--config.train.peer_timeout=10"]
    jobs.run(whole, data, processes=2)
    for victim, fault in ((1, "kill:8"), (0, "before:10"), (1, "before:15"), (0, "save:15"),
                          (1, "save:20")):  # fmt: skip
        with jobs.Job(broken, flags, processes=2, faults={victim: fault}) as job:
            codes = job.wait(240)
            assert codes[victim] == -9, job.said()
            assert codes[1 - victim] in (runtime.RETRY, -6), job.said()
            told = "connection to another process of this job is lost", "another task died"
            assert any(line in job.said(1 - victim) for line in told), job.said()
    said = jobs.run(broken, data, processes=2)
    assert "at step 1" in said[0] or "at step 2" in said[0]
    assert jobs.arrays(broken, 24) == jobs.arrays(whole, 24)
    assert jobs.losses(broken) == jobs.losses(whole)


@needs_ports
@pytest.mark.parametrize("fault", ["unread", "lost"])
def test_a_failure_to_read_is_not_the_checkpoints_fault(data, reference, tmp_path, fault):
    """On one process: the other does not go on alone, and nothing is put aside."""
    workdir = shutil.copytree(reference, tmp_path / "run")
    flags = [*data, "--config.train.peer_timeout=10"]
    with jobs.Job(workdir, flags, processes=2, faults={1: fault}) as job:
        codes = job.wait(120)
    if fault == "unread":
        assert codes == [2, 2], job.said()
        assert all("cannot be read now" in job.said(index) for index in (0, 1))
    else:
        assert codes[0] in (runtime.RETRY, -6), job.said()
    assert jobs.steps(workdir) == jobs.steps(reference)
    assert not (workdir / "damaged").exists()


@needs_ports
def test_results_may_take_longer_than_a_peer_may_be_silent(data, reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    (workdir / "results.json").unlink()
    flags = [*data, "--config.train.peer_timeout=10"]
    jobs.run(workdir, flags, processes=2, faults={0: "late"})
    assert (workdir / "results.json").exists()


@needs_ports
@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("--workdir={}/elsewhere", "expected one folder that all processes share"),
        ("--config.train.steps=25", "process 1 has config.train.steps 25, process 0 has 24"),
        ("--config.seeds=2", "process 1 has config.seeds 2, process 0 has 1"),
    ],
)
def test_processes_that_do_not_fit_refuse_together(data, tmp_path, own, told):
    own = {1: [own.format(tmp_path)]}
    said = jobs.run(tmp_path / "run", data, codes=2, processes=2, own_flags=own)
    assert all(told in line for line in said)


@needs_ports
def test_a_full_disk_of_one_process_ends_the_job(data, tmp_path):
    flags = [*data, "--config.train.peer_timeout=10"]
    with jobs.Job(tmp_path / "run", flags, processes=2, faults={1: "full:3"}) as job:
        codes = job.wait(120)
    assert codes[1] == 2, job.said()
    assert codes[0] in (runtime.RETRY, -6), job.said()
    assert "could not be written" in job.said(1)


@needs_ports
def test_a_device_with_too_little_memory_is_told_of_and_not_tried_again(data, tmp_path):
    flags = [*data, "--config.train.peer_timeout=10"]
    with jobs.Job(tmp_path / "run", flags, processes=2, faults={1: "memory:3"}) as job:
        codes = job.wait(120)
    assert codes[1] == 2, job.said()
    assert codes[0] in (runtime.RETRY, -6), job.said()
    assert "batch.micro_batch_size" in job.said(1)
    assert "Traceback" not in job.said(1)


def test_a_fault_of_the_program_is_not_told_as_bad_input(data, tmp_path):
    (said,) = jobs.run(tmp_path / "run", data, codes=1, faults={0: "bug:3"})
    assert "Traceback" in said
    assert "ValueError: planted: shapes differ" in said
    last = "this is a fault of the program; retrying will not help; please report it"
    assert said.strip().endswith(last)


@needs_ports
def test_a_frozen_peer_ends_the_job(data, tmp_path):
    flags = [*data, "--config.train.peer_timeout=10"]
    with jobs.Job(tmp_path / "run", flags, processes=2, faults={1: "freeze:7"}) as job:
        assert job.processes[0].wait(150) != 0
    assert "another task died" in job.said(0) or "connection to another process" in job.said(0)


@needs_ports
def test_damage_that_one_process_sees_is_passed_over_by_all(data, reference, tmp_path):
    shutil.copytree(reference, tmp_path / "run")
    flags = [*data, "--config.train.peer_timeout=10"]
    with jobs.Job(tmp_path / "run", flags, processes=2, faults={1: "sums"}) as job:
        codes = job.wait(180)  # there are two checkpoints, and process 1 sees both changed
    assert codes == [2, 2], job.said()
    assert "no checkpoint is left to resume from" in job.said(0)


def test_sigterm_while_the_last_checkpoint_is_written_waits_for_it(data, tmp_path):
    workdir = tmp_path / "run"
    said = jobs.run(workdir, data, faults={0: "slow"})[0]
    assert "stopped on request" in said
    assert jobs.steps(workdir)[-1] == 24
    assert not (workdir / "results.json").exists()
    jobs.run(workdir, data)
    assert (workdir / "results.json").exists()


def test_a_refused_command_changes_nothing_and_no_vocabulary_outlives_its_config(data, tmp_path):
    workdir = tmp_path / "run"
    jobs.run(workdir, data, codes=-9, faults={0: "kill:2"})
    learned = ["--config.tokenizer.vocab_size=520"]
    jobs.run(workdir, [*data, *learned], codes=-9, faults={0: "kill:12"})
    kept = (workdir / "tokenizer.json").read_bytes()
    assert len(json.loads(kept)["model"]["vocab"]) <= 520
    other = tmp_path / "other.json"
    other.write_text(Tokenizer.train(["a red ball"], 514).to_json())
    said = jobs.run(workdir, [*data, *learned, f"--config.tokenizer.path={other}"], codes=2)[0]
    assert "holds another run: tokenizer was" in said
    assert (workdir / "tokenizer.json").read_bytes() == kept
    jobs.run(workdir, [*data, *learned])


def test_sigterm_leaves_a_complete_checkpoint_and_code_0(data, reference, tmp_path):
    workdir = tmp_path / "run"
    said = jobs.run(workdir, data, faults={0: "term:7"})[0]
    assert "stopped on request" in said
    assert jobs.steps(workdir)[-1] == 8
    assert not (workdir / "results.json").exists()
    jobs.run(workdir, data)
    assert jobs.arrays(workdir, 24) == jobs.arrays(reference, 24)
    assert jobs.losses(workdir) == jobs.losses(reference)


def test_sigterm_in_evaluation_ends_the_run_at_once_and_loses_nothing(data, reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    expected = json.loads((workdir / "results.json").read_text())["metrics"]
    (workdir / "results.json").unlink()
    jobs.run(workdir, data, codes=-signal.SIGTERM, faults={0: "notice"})
    assert not (workdir / "results.json").exists()
    jobs.run(workdir, data)
    assert json.loads((workdir / "results.json").read_text())["metrics"] == expected


@needs_ports
def test_sigterm_to_one_of_two_stops_both_at_one_step(data, tmp_path):
    workdir = tmp_path / "run"
    for step in (7, 13):  # in a run that goes on, too
        said = jobs.run(workdir, data, processes=2, faults={1: f"term:{step}"})
        assert "stopped on request" in said[0]
        assert jobs.steps(workdir)[-1] == step + 1


def test_a_second_job_on_a_workdir_is_refused(data, tmp_path):
    """Also while the first one hangs; its lock dies with it."""
    workdir = tmp_path / "run"
    with jobs.Job(workdir, data, faults={0: "freeze:6"}) as first:
        first.wait_until_frozen(0)
        with jobs.Job(tmp_path / "second", [*data, f"--workdir={workdir}"]) as second:
            assert second.wait(120) == [2]
        assert f"another run (process {first.processes[0].pid} on" in second.said()
    with owned(workdir):
        pass


def test_a_stalled_input_ends_the_run(data, tmp_path):
    flags = [*data, "--config.train.input_timeout=5"]
    said = jobs.run(tmp_path / "run", flags, codes=runtime.RETRY, faults={0: "stall:6"})[0]
    assert "training input: no input for 5 seconds" in said
    assert "Traceback" not in said
    assert jobs.steps(tmp_path / "run") == [5]


@pytest.mark.parametrize(
    ("fault", "told"), [("mute:9", "split 'train' of"), ("blind", "evaluation input")]
)
def test_a_read_that_never_ends_is_told_of_before_and_after_training(data, tmp_path, fault, told):
    flags = [*data, "--config.train.input_timeout=5", "--config.train.steps=2",
             "--config.optim.warmup=0"]
    said = jobs.run(tmp_path / "run", flags, codes=runtime.RETRY, faults={0: fault})[0]
    assert told in said
    assert "no input for 5 seconds" in said
    assert "Traceback" not in said


def test_nan_in_a_clip_stops_with_its_name_or_is_skipped(data, tmp_path):
    workdir = tmp_path / "run"
    said = jobs.run(workdir, data, codes=2, faults={0: "nan:6"})[0]
    assert "at step 7 the loss is nan" in said
    assert "Traceback" not in said
    kept = np.load(workdir / "nonfinite" / "batch-step-7-process-0.npz")
    assert np.isnan(kept["video"][0]).all()
    assert np.isfinite(kept["video"][1:]).all()
    assert jobs.steps(workdir / "nonfinite") == [6]
    assert jobs.steps(workdir) == [5]
    said = jobs.run(workdir, [*data, "--config.train.on_nonfinite=skip"], faults={0: "nan:1"})[0]
    assert "at step 7 the loss is nan" in said
    assert "the step is skipped, 1 so far" in said
    position = json.loads((workdir / "checkpoints" / "24" / "data" / "metadata").read_text())
    assert position["skipped"] == 1


def test_a_full_disk_leaves_the_last_checkpoint(data, reference, tmp_path):
    workdir = tmp_path / "run"
    said = jobs.run(workdir, data, codes=2, faults={0: "full:12"})[0]
    assert "could not be written" in said
    assert "Traceback" not in said
    last = jobs.steps(workdir)[-1]  # the save of step 10 may still have been under way
    assert last in (5, 10)
    assert f"it resumes from step {last}" in said
    jobs.run(workdir, data)
    assert jobs.arrays(workdir, 24) == jobs.arrays(reference, 24)


def test_a_corrupted_record_is_told(data, reference, tmp_path):
    source = json.loads((reference / "results.json").read_text())["data"]["directory"]
    root = next(f for f in data if "data_dir" in f).split("=")[1]
    shutil.copytree(root, tmp_path / "tfds")
    folder = tmp_path / "tfds" / os.path.relpath(source, root)
    victim = next(path for path in folder.iterdir() if "-train.array_record" in path.name)
    content = bytearray(victim.read_bytes())
    for place in range(len(content) // 4, len(content) // 2, 97):
        content[place] ^= 0xFF
    victim.write_bytes(content)
    flags = [*data, f"--config.data.data_dir={tmp_path}/tfds"]
    said = jobs.run(tmp_path / "run", flags, codes=2)[0]
    assert "Traceback" not in said
    assert str(folder) in said or "clip" in said


@needs_ports
def test_a_process_without_its_data_says_so_and_ends_the_job(data, reference, tmp_path):
    (tmp_path / "file").write_text("")
    own = {1: [f"--config.data.data_dir={tmp_path}/file/tfds"]}
    flags = [*data, "--config.train.peer_timeout=10"]
    with jobs.Job(tmp_path / "run", flags, processes=2, own_flags=own) as job:
        codes = job.wait(120)
    assert codes[1] == 2, job.said()
    assert codes[0] in (runtime.RETRY, -6), job.said()
    assert "file" in job.said(1)
    assert "Traceback" not in job.said()


@needs_ports
def test_a_short_soak_ends_with_the_same_bits_and_leaves_nothing(tmp_path):
    """Of two processes; a killed run of one is `train_test.py`'s, a long soak `tests/soak.py`'s."""
    found = soak.soak(tmp_path, steps=100, kills=2, processes=2)
    assert found.same_weights
    assert found.kills == 2
    assert found.leaked_processes == 0
    assert not found.leaked_files
    assert soak.growth(found.megabytes) < 1.1
