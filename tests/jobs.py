"""Jobs of real processes on this machine, which end with the test whatever happens."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import psutil

ROOT = pathlib.Path(__file__).parents[1]
DEMO = "--config=configs/demo.py"
SMALL = (  # of the demo
    "--config.data.settings.train=24",
    "--config.data.settings.val=8",
    "--config.data.settings.test=8",
    "--config.data.settings.short_side=32",
    "--config.data.image_size=32",
    "--config.model.vision.width=16",
    "--config.model.text.width=16",
    "--config.model.embed_dim=16",
    "--config.train.batch_size=8",
    "--config.train.log_every=1",
)


def data_in(root):
    """The flags that keep all data below a folder."""
    return [f"--config.data.manual_dir={root}/manual", f"--config.data.data_dir={root}/tfds"]


COMPILED = tempfile.TemporaryDirectory(prefix="ncl-jax-compiled-")
"""Most of a small run is compilation, and all runs of a session compile the same."""


PORTS = range(61441, 65536)
"""Of these JAX takes one under SLURM and Open MPI."""


def free_port():
    """A port nobody listens on, or None where ports cannot be opened."""
    for port in random.sample(PORTS, 20):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
    return None


def by_flags(port, count, index):
    """How `Job` tells a process of the others: (flags, environment)."""
    return [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}",
            f"--process_id={index}"], {}


def by_slurm(port, count, index):
    """What srun sets, on one node; JAX makes the port from the number of the job."""
    return [], {"SLURM_JOB_ID": str(port - 61440), "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": str(count), "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}


def by_mpirun(port, count, index):
    """What the mpirun of Open MPI 4 sets, likewise."""
    job = (port - 61440) * 4096
    return [], {"OMPI_MCA_orte_hnp_uri": f"{job}.0;tcp://127.0.0.1:1",
                "OMPI_COMM_WORLD_SIZE": str(count), "OMPI_COMM_WORLD_RANK": str(index),
                "OMPI_COMM_WORLD_LOCAL_RANK": str(index)}


class Job:
    """Processes of `tests.faulty`, which is `ncl_jax.main` with planted faults.

    Args:
      workdir: of the run; output goes to `<workdir>.process-<index>.log`.
      flags: of all processes.
      processes: how many; each has `devices` devices.
      devices: per process.
      faults: {process: fault}, see `tests.faulty`.
      own_flags: {process: flags of its own}.
      joined: how they learn of each other, one of `by_flags`, `by_slurm`, `by_mpirun`.
    """

    def __init__(
        self, workdir, flags, processes=1, devices=1, faults=None, own_flags=None, joined=by_flags
    ):
        self.workdir = pathlib.Path(workdir)
        port = free_port()
        self.processes, self._logs = [], []
        for index in range(processes):
            line = [sys.executable, "-m", "tests.faulty", DEMO, *SMALL, f"--workdir={workdir}",
                    *flags]
            where, variables = joined(port, processes, index) if processes > 1 else ([], {})
            line += where
            environment = os.environ | variables | {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "NCL_FAULT": (faults or {}).get(index, ""),
                "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            log = self.workdir.with_name(f"{self.workdir.name}.process-{index}.log")
            self._logs.append(log)
            with log.open("w") as out:
                self.processes.append(subprocess.Popen(
                    [*line, *(own_flags or {}).get(index, ())], cwd=ROOT, env=environment,
                    stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                ))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self, timeout=240):
        """Exit codes of all processes."""
        deadline = time.monotonic() + timeout
        try:
            return [p.wait(max(0.1, deadline - time.monotonic())) for p in self.processes]
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {timeout} s:\n{self.said()}") from error

    def wait_until_frozen(self, index, timeout=240):
        """Until the planted fault has stopped a process."""
        process = psutil.Process(self.processes[index].pid)
        deadline = time.monotonic() + timeout
        while process.status() != psutil.STATUS_STOPPED:
            assert self.processes[index].poll() is None, self.said(index)
            assert time.monotonic() < deadline, self.said(index)
            time.sleep(0.1)

    def said(self, index=None):
        """What a process, or all, wrote."""
        logs = self._logs if index is None else [self._logs[index]]
        return "\n".join(log.read_text().replace("\r", "\n") for log in logs)


def run(workdir, flags, codes=0, timeout=240, **job):
    """A job that ends by itself with the given exit codes; what its processes said."""
    with Job(workdir, flags, **job) as running:
        found = running.wait(timeout)
        count = len(running.processes)
        expected = [codes] * count if isinstance(codes, int) else list(codes)
        assert found == expected, f"exit codes {found}, not {expected}:\n{running.said()}"
        return [running.said(index) for index in range(count)]


def losses(workdir):
    """{step: loss} of metrics.jsonl; every step once."""
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    assert len(dict(found)) == len(found), "a step was logged twice"
    return dict(found)


def shown(workdir):
    """{step: sorted (clip, tokens) of all processes}, as `tests.faulty` recorded them."""
    pairs = {}
    for path in sorted(workdir.parent.glob(f"{workdir.name}.pairs-*.jsonl")):
        mine = {}  # the last time a step was done counts: earlier ones were lost
        for line in path.read_text().splitlines():
            step, rows = json.loads(line)
            mine[step] = rows
        for step, rows in mine.items():
            pairs.setdefault(step, []).extend(map(tuple, rows))
    return {step: sorted(rows) for step, rows in pairs.items()}


def steps(workdir):
    """Steps of the checkpoints there are."""
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def arrays(workdir, step):
    """Digest of the contents of a checkpoint: equal exactly where every bit is."""
    path = workdir / "checkpoints" / str(step) / "contents" / "metadata"
    return json.loads(path.read_text())["leaves"]


def embeddings(workdir):
    """The embeddings a run leaves."""
    with np.load(workdir / "embeddings.npz") as kept:
        return {name: kept[name] for name in kept.files if kept[name].dtype.kind == "f"}
