"""One job on 1 x 4, 2 x 2 and 4 x 1 processes x devices: the same run."""

import collections
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import types
import zlib

import numpy as np
import pytest

from configs import demo
from ncl_jax.data.records import load_split
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.distributed import runtime
from ncl_jax.distributed.runtime import Job
from ncl_jax.experiment import run
from tests import jobs

STEPS, EPOCH = 24, 22  # 176 captions in batches of 8
FLAGS = ["--config.train.steps=24", "--config.train.checkpoint_every=10",
         "--config.train.validate_every=24", "--config.train.keep_checkpoints=5"]
needs_ports = pytest.mark.skipif(
    jobs.free_port() is None, reason="no local port can be opened, so no second process can join"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return [*FLAGS, *jobs.data_in(tmp_path_factory.mktemp("data"))]


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """One process with four devices, uninterrupted."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    jobs.run(workdir, data, devices=4, faults={0: "pairs"})
    return workdir


def check_same_curve(workdir, reference):
    found, expected = jobs.losses(workdir), jobs.losses(reference)
    assert sorted(found) == sorted(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(
        [found[s] for s in sorted(found)], [expected[s] for s in sorted(found)], rtol=1e-5
    )


def check_whole_epoch(workdir, reference):
    """Every pair of the split exactly once in the first epoch, counted from the records."""
    results = json.loads((reference / "results.json").read_text())
    split = load_split(results["data"]["directory"], "train")
    tokenizer = Tokenizer.load(workdir / "tokenizer.json")
    tokens, _ = tokenizer(split.captions, results["config"]["data"]["max_tokens"])
    expected = collections.Counter(
        (int(video), zlib.crc32(text.tobytes()))
        for video, text in zip(split.video_of_text, tokens, strict=True)
    )
    seen = jobs.shown(workdir)
    assert collections.Counter(pair for s in range(EPOCH) for pair in seen[s]) == expected


@pytest.mark.slow
@needs_ports
@pytest.mark.parametrize(
    ("count", "devices", "setting"),
    [(2, 2, "sharding=fsdp"), (2, 2, "parallel_backend=pmap"), (4, 1, "sharding=replicated")],
)
def test_the_curve_is_that_of_one_process(count, devices, setting, data, reference, tmp_path):
    workdir = tmp_path / "run"
    said = jobs.run(workdir, [*data, f"--config.{setting}"], processes=count,
                    devices=devices, faults=dict.fromkeys(range(count), "pairs"))
    check_same_curve(workdir, reference)
    check_whole_epoch(workdir, reference)
    assert jobs.shown(workdir) == jobs.shown(reference)
    assert jobs.steps(workdir) == jobs.steps(reference)
    assert "text -> video" in said[0]
    assert not any("text -> video" in other or "training:" in other for other in said[1:])


@pytest.mark.slow
@needs_ports
@pytest.mark.parametrize("joined", [jobs.by_slurm, jobs.by_mpirun])
def test_processes_find_each_other_under_a_launcher(joined, data, reference, tmp_path):
    """The launcher is played by its environment variables; the processes are real."""
    flags = [*data, "--config.train.steps=2", "--config.optim.warmup=0"]
    jobs.run(tmp_path / "run", flags, processes=2, devices=2, joined=joined)
    assert jobs.steps(tmp_path / "run") == [2]


@pytest.mark.slow
@needs_ports
def test_a_job_whose_coordinator_is_not_told_is_refused(tmp_path):
    """As under Open MPI 5, whose mpirun does not say where process 0 is."""

    def unsaid(port, count, index):
        return [], {"OMPI_COMM_WORLD_SIZE": str(count), "OMPI_COMM_WORLD_RANK": str(index)}

    said = jobs.run(tmp_path / "run", [], codes=2, processes=2, joined=unsaid)
    assert all("--coordinator" in line and "Traceback" not in line for line in said)


@pytest.mark.slow
@needs_ports
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_whose_peer_never_comes_says_so(tmp_path, index):
    flags, _ = jobs.by_flags(jobs.free_port(), 2, index)
    patient = [*flags, "--config.train.peer_timeout=1"]
    (said,) = jobs.run(tmp_path / "run", patient, codes=runtime.RETRY, timeout=60)
    assert "(not all joined within 5 s)" in said
    begun, _ = said.splitlines()
    assert begun.endswith("importing JAX, Flax and Orbax ...")


@pytest.mark.slow
@needs_ports
def test_a_port_that_is_taken_is_told_of(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags, _ = jobs.by_flags(taken.getsockname()[1], 2, 0)
        (said,) = jobs.run(tmp_path / "run", flags, codes=runtime.RETRY, timeout=60)
    assert "is in use" in said
    begun, _ = said.splitlines()
    assert begun.endswith("importing JAX, Flax and Orbax ...")


@pytest.fixture
def interruptible():
    """Processes begun now hear SIGINT, which those of a job begun with `&` ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@needs_ports
@pytest.mark.usefixtures("interruptible")
def test_a_process_that_waits_for_its_peer_can_be_interrupted(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        flags, _ = jobs.by_flags(silent.getsockname()[1], 2, 1)
        with jobs.Job(tmp_path / "run", flags) as job, silent.accept()[0]:
            job.processes[0].send_signal(signal.SIGINT)
            assert job.wait(20) == [130], job.said()
    assert "interrupted" in job.said()


@pytest.mark.slow
@needs_ports
def test_evaluation_by_two_processes_gives_the_numbers_of_one(data, reference, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(reference, workdir)
    (workdir / "results.json").unlink()
    (workdir / "embeddings.npz").unlink()
    hosts = {0: "auto:3", 1: "auto:0"}  # would choose apart, and all must take part in one fit
    said = jobs.run(workdir, data, processes=2, devices=2, faults=hosts)
    assert all("auto took 3" in line for line in said)
    found, expected = jobs.embeddings(workdir), jobs.embeddings(reference)
    assert sorted(found) == sorted(expected)
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name], rows, atol=1e-6)
    metrics, one = (json.loads((w / "results.json").read_text())["metrics"]
                    for w in (workdir, reference))
    for side in ("text_to_video", "video_to_text"):
        for row in ("plain", "inductive", "transductive"):
            for name in ("R@1", "R@5", "MdR", "MnR"):
                assert metrics[side][row][name] == pytest.approx(one[side][row][name], abs=1e-6)


@pytest.mark.slow
@needs_ports
def test_two_processes_hold_out_and_choose_what_one_does(data, tmp_path):
    """Several banks, chosen among by all processes together, and biases that follow the queries."""
    flags = [*data, "--config.data.bank_holdout=0.25", "--config.eval.bank=auto",
             "--config.eval.online=True", "--config.eval.online_every=3"]  # fmt: skip
    jobs.run(tmp_path / "one", flags, devices=4)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "results.json").unlink()
    jobs.run(tmp_path / "two", flags, processes=2, devices=2)
    one, two = (json.loads((tmp_path / w / "results.json").read_text()) for w in ("one", "two"))
    assert two["metrics"]["bank"] == one["metrics"]["bank"]
    held = one["data"]["held_out_of_training"]
    assert two["data"]["held_out_of_training"] == held
    assert held["clips"] == 6
    for side in ("text_to_video", "video_to_text"):
        for row in ("plain", "inductive", "inductive_auto", "online"):
            expected = {name: one["metrics"][side][row][name] for name in ("R@1", "R@5", "MnR")}
            found = {name: two["metrics"][side][row][name] for name in expected}
            assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 1])
def test_a_run_goes_on_with_other_devices_and_past_damage(devices, data, reference, tmp_path):
    """From step 10, because the checkpoint of step 20 is damaged."""
    workdir = tmp_path / "run"
    shutil.copytree(reference, workdir)
    (tmp_path / "run.pairs-0.jsonl").write_text(
        (reference.parent / "run.pairs-0.jsonl").read_text()
    )
    (workdir / "results.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    files = [p for p in (workdir / "checkpoints" / "20" / "arrays").rglob("d/*") if p.is_file()]
    for victim in files:  # all of them: Orbax leaves some behind that nothing refers to
        content = bytearray(victim.read_bytes())
        content[::100] = (byte ^ 1 for byte in content[::100])
        victim.write_bytes(content)
        if devices == 1:
            victim.unlink()
    said = jobs.run(workdir, data, devices=devices, faults={0: "pairs"})[0]
    assert "20 is damaged" in said
    assert "at step 10 of 24" in said
    check_same_curve(workdir, reference)
    check_whole_epoch(workdir, reference)


def test_a_process_is_alone_unless_told_otherwise():
    assert runtime.find_job(Job(), {}) is None
    assert runtime.find_job(Job(), {"SLURM_NTASKS": "8"}) is None  # in salloc, outside srun
    assert runtime.find_job(Job("a:1", 1, 0), {}) is None


def test_jobs_are_found_by_flags_and_environment():
    assert runtime.find_job(Job("a:1", 2, 1), {}) == Job("a:1", 2, 1)
    jax_own = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert runtime.find_job(Job(), jax_own) == Job("a:1", 4, 3)
    slurm = {"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0"}
    assert runtime.find_job(Job(), slurm) == Job()
    assert runtime.find_job(Job(), {"OMPI_COMM_WORLD_SIZE": "2"}) == Job()


@pytest.mark.parametrize(
    ("flags", "environ", "told"),
    [
        (Job("a:1"), {}, "--coordinator is given without --num_processes, --process_id"),
        (Job(None, 2, 0), {}, "--num_processes is given without --coordinator"),
        (Job(), {"JAX_COORDINATOR_ADDRESS": "a:1"}, "without JAX_NUM_PROCESSES"),
        (Job("a:1", 2, 2), {}, "got 2 of 2"),
        (Job("a:1", 2, -1), {}, "got -1 of 2"),
        (Job("a:1", 0, 0), {}, "got 0 of 0"),
        (Job("a", 2, 0), {}, "as host:port, got 'a'"),
        (Job("a:65536", 2, 0), {}, "as host:port, got 'a:65536'"),
    ],
)
def test_half_a_description_is_refused(flags, environ, told):
    with pytest.raises(ValueError, match=told):
        runtime.find_job(flags, environ)


def test_hosts_with_other_data_or_weights_are_told_apart(monkeypatch):
    split = types.SimpleNamespace(video_ids=["a", "b"], captions=["one", "two"])
    parts = types.SimpleNamespace(
        splits={"train": split}, tokenizer=types.SimpleNamespace(to_json=lambda: "{}"),
        params={"w": np.ones(3, np.float32)}, bank_texts=None,
    )  # fmt: skip
    monkeypatch.setattr(runtime, "alone", lambda: False)
    facts = run._facts(parts)

    def differing():
        other = run._facts(parts)
        return {name for name in facts if facts[name] != other[name]}

    assert not differing()
    split.captions = ["one", "three"]
    assert differing() == {"train split (digest)"}
    parts.params["w"][1] = 1.5  # weights to start from that are another file on one host
    assert differing() == {"train split (digest)", "initial weights (digest)"}


def test_hosts_may_keep_their_data_in_places_of_their_own(monkeypatch):
    told = []
    monkeypatch.setattr(run.sync, "check_same", lambda _, facts: told.append(facts))
    config = demo.get_config()
    run.check_same_config(config)
    config.data.data_dir = "/elsewhere"
    run.check_same_config(config)
    config.train.steps += 1
    run.check_same_config(config)
    assert told[0] == told[1]
    assert {name for name in told[0] if told[0][name] != told[2][name]} == {"config.train.steps"}


# Sums over many spread leaves, again and again, by two processes.
SUMS = """
import sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from ncl_jax.checkpoint import checksums
from ncl_jax.distributed import sharding
leaves = {str(i): np.full((64, 64 + 64 * (i % 3)), i, np.float32) for i in range(160)}
spread = sharding.place_state(
    leaves, sharding.state_sharding(leaves, sharding.data_mesh(), "fsdp"))
found = [checksums.describe_arrays(spread) for _ in range(20)]
assert all(one == found[0] for one in found)
assert found[0] == checksums.describe_arrays(jax.device_put(leaves))
jax.distributed.shutdown()
"""


@pytest.mark.slow
@needs_ports
def test_sums_of_many_spread_leaves_wait_for_nobody():
    where = f"127.0.0.1:{jobs.free_port()}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    started = [
        subprocess.Popen([sys.executable, "-c", SUMS, where, str(index)], cwd=jobs.ROOT,
                         env=environment, stdout=subprocess.DEVNULL)
        for index in range(2)
    ]  # fmt: skip
    try:
        assert [process.wait(150) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.wait()
