"""The command line, as real processes: plain errors, a whole small run, kill and resume."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import demo
from ncl_jax.checkpoint import checkpointer as checkpointing
from ncl_jax.distributed import sharding
from ncl_jax.experiment import build
from ncl_jax.training.run_state import CHECKPOINTS
from ncl_jax.training.step import init_state
from tests import jobs

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    *jobs.SMALL,
    "--config.train.steps=120",
    "--config.train.checkpoint_every=20",
    "--config.train.validate_every=30",
    "--config.train.log_every=5",
]


def command(*arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return [sys.executable, "-m", "ncl_jax.main", *arguments], {"cwd": ROOT, "env": environment}


def small_run(root):
    """The workdir of a finished run of four steps on a small corpus below `root`."""
    done = run(
        "--config=configs/demo.py", f"--workdir={root}/run", *TINY, "--config.train.steps=4",
        *jobs.data_in(root),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root / "run"


def run(*arguments, timeout=300):
    line, options = command(*arguments)
    return subprocess.run(
        line, **options, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--config is missing, for example --config=configs/demo.py"),
        (["--config=configs/dmeo.py"], "got 'configs/dmeo.py'; did you mean configs/demo.py?"),
        (["--config=configs/demo"], "got 'configs/demo'; did you mean configs/demo.py?"),
        (["--config=configs"], "expected a .py file with get_config, as configs/demo.py"),
        (["--config="], "a .py file with get_config, as configs/demo.py, got ''"),
        (["--config", "pyproject.toml", "--help"], "got 'pyproject.toml'"),
        (["--config=configs/demo.py", "--config.loss.nam=ncl"],
         "has no key 'nam'; did you mean loss.name?"),
        (["--config=configs/demo.py", "--config.mapper=pmap"],
         "config.mapper is now called config.parallel_backend"),
        (["--config=configs/demo.py", "--config.batch.micro=4"],
         "config.batch.micro is now called config.batch.micro_batch_size"),
        (["--config=configs/demo.py", "--config.train.steps=many"], "'many'"),
        (["--config=configs/demo.py:lose=ncl"], "expected some of loss=ncl, seed=0"),
        (["--config=configs/clip4clip.py"], "it has no function get_config"),
        (["--config=README.md"], "as configs/demo.py, got 'README.md'"),
        (["--config=configs/demo.py", "surplus"], "unexpected arguments surplus"),
    ],
)
def test_wrong_flags_are_one_plain_message(arguments, said):
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [("hello\n", "got 'mine.md'"), ('{"a": true}', "got 'mine.json'"),
     ("a: b\n", "got 'mine.yaml'"),
     ("def get_config():\n    return 3\n", "an ml_collections.ConfigDict, got int"),
     ("a b\n", "is not Python: mine.py, line 1")],
)  # fmt: skip
def test_what_is_no_config_is_not_run(tmp_path, text, said):
    name = re.search(r"mine\.\w+", said)
    file = tmp_path / (name[0] if name else "mine.py")
    file.write_text(text)
    line, options = command(f"--config={file}")
    done = subprocess.run(line, **options, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr.replace(f"{tmp_path}/", "")
    assert "Traceback" not in done.stderr


def test_what_would_abort_the_end_of_python_does_not_change_the_exit_code():
    """As threads do that still decode in C++ when the devices ran out of memory."""
    code = ("import atexit, os, ncl_jax.distributed.runtime\nfrom ncl_jax.cli import train\n"
            "atexit.register(os.abort)\ntrain.stop('out of memory')")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "ncl_jax: out of memory\n")


@pytest.mark.parametrize("asked", ["-h", "--help", "--help=true", "--helpfull", "-?"])
def test_help_is_no_failure(asked):
    done = run(asked)
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


@pytest.mark.parametrize(
    ("line", "code"), [("config.no_such_key.x = 1", 2), ("ml_collections.no_such_class()", 1)]
)
def test_a_bug_in_a_config_file_is_not_told_as_an_unknown_key(tmp_path, line, code):
    text = f"import ml_collections\nfrom configs import demo\n\n\ndef get_config():\n" \
           f"    config = demo.get_config()\n    {line}\n    return config\n"
    (tmp_path / "mine.py").write_text(text)
    done = run(f"--config={tmp_path}/mine.py")
    assert done.returncode == code
    assert ("has no key 'no_such_key'" in done.stderr) == (code == 2)
    assert ("Traceback" in done.stderr) == (code == 1)


@pytest.mark.slow
def test_missing_data_shows_the_tree_and_the_demo(tmp_path):
    done = run("--config=configs/msvd.py", f"--workdir={tmp_path}/run",
               f"--config.data.manual_dir={tmp_path}", f"--config.data.data_dir={tmp_path}/tfds")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in ("raw-captions.pkl", "train_list.txt", "videos/", "--config=configs/demo.py"):
        assert part in done.stderr


@pytest.mark.slow
def test_unusable_workdir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("--config=configs/demo.py", f"--workdir={tmp_path}/file/run")
    assert done.returncode == 2
    assert f"--workdir={tmp_path}/file/run: expected a folder that can be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Flags of the tiny corpus; the first run renders it."""
    root = tmp_path_factory.mktemp("data")
    return [*TINY, *jobs.data_in(root)]


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    done = run("--config=configs/demo.py", f"--workdir={workdir}", *data)
    return workdir, done


@pytest.mark.slow
def test_a_run_leaves_all_it_promises(whole_run):
    workdir, done = whole_run
    assert done.returncode == 0, done.stderr
    for part in ("plain", "inductive", "transductive", "order of events", "results.json", "next:"):
        assert part in done.stdout
    begun = [line for line in done.stdout.splitlines() if line.endswith(" ...")]
    assert begun[0] == f"demo -> {workdir}: importing JAX, Flax and Orbax ..."
    for what in ("building tokenizer and model", "embedding the 24 clips of train",
                 "ranking by plain and normalised scores"):  # fmt: skip
        assert f"{what} ..." in begun
    assert "demo: building " in done.stdout
    assert "Downloading" not in done.stdout  # TFDS's words for a set that downloads nothing
    assert "compiling the step" in done.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert results["schema"] == 1
    assert results["run"]["step"] == 120
    assert set(results["run"]["seconds"]) == {"data", "model", "training", "evaluation"}
    assert results["config"]["loss"]["name"] == "ncl"
    assert results["environment"]["devices"]["count"] == 1
    assert results["data"]["splits"]["train"]["clips"] == {"used": 24, "expected": 24}
    for direction in ("text_to_video", "video_to_text"):
        for row in ("plain", "inductive", "transductive"):
            assert {"R@1", "R@50", "MdR", "MnR", "norm_error_mean"} <= set(
                results["metrics"][direction][row]
            )
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "train/loss" in x] == list(range(5, 121, 5))
    assert [x["step"] for x in lines if "validation/text_to_video_R@1" in x] == [30, 60, 90]
    assert list((workdir / "tensorboard").glob("events*"))
    assert (workdir / "tokenizer.json").exists()


def weights(workdir, data):
    """The bytes of every parameter and moment in the last checkpoint."""
    config = demo.get_config()
    for flag in data:
        path, value = flag.removeprefix("--config.").split("=", 1)
        *sections, key = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        with section.unlocked():
            section[key] = int(value) if value.isdigit() else value
    parts = build.build(config, build.prepare_data(config))
    like = init_state(parts.params, parts.optimizer, config.seed)
    checkpointer = checkpointing.Checkpointer(workdir / CHECKPOINTS)
    shardings = sharding.state_sharding(like, sharding.data_mesh(), "replicated")
    restored = checkpointer.restore(sharding.place_state(like, shardings))
    checkpointer.close()
    import jax

    leaves = jax.tree.leaves((restored.state.params, restored.state.opt_state))
    return int(restored.state.step), [np.asarray(x).tobytes() for x in leaves]


@pytest.mark.slow
def test_killed_run_resumes_to_identical_weights(whole_run, data, tmp_path):
    workdir, _ = whole_run
    arguments = ("--config=configs/demo.py", f"--workdir={tmp_path}")
    line, options = command(*arguments, *data)
    process = subprocess.Popen(
        line, **options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    saved = tmp_path / CHECKPOINTS / "40"
    deadline = time.monotonic() + 240
    while not saved.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "results.json").exists()

    done = run(*arguments, *data)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout
    assert re.search(r"at step (40|60|80|90|100) of 120", done.stdout)
    assert weights(tmp_path, data) == weights(workdir, data)


@pytest.mark.slow
def test_a_finished_run_is_only_evaluated_again(whole_run, data):
    workdir, _ = whole_run
    before = json.loads((workdir / "results.json").read_text())
    done = run("--config=configs/demo.py", f"--workdir={workdir}", *data)
    assert done.returncode == 0, done.stderr
    after = json.loads((workdir / "results.json").read_text())
    assert after["metrics"] == before["metrics"]
    spent, earlier = after["run"]["seconds"], before["run"]["seconds"]
    assert all(spent[phase] > earlier[phase] for phase in earlier)  # of both commands together


@pytest.mark.slow
def test_another_seed_in_an_old_workdir_is_refused(whole_run, data):
    workdir, _ = whole_run
    done = run("--config=configs/demo.py:seed=1", f"--workdir={workdir}", *data)
    assert done.returncode == 2
    assert "holds another run: config.seed was 0, now it is 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_another_model_in_an_old_workdir_is_refused(whole_run, data):
    workdir, _ = whole_run
    done = run("--config=configs/demo.py", f"--workdir={workdir}", *data,
               "--config.model.embed_dim=32")
    assert done.returncode == 2
    assert "holds another run: config.model.embed_dim was 16, now it is 32" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_index_of_a_run_answers_in_words(whole_run):
    workdir, _ = whole_run
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", "ncl_jax.cli.index", "search"]
    done = subprocess.run(
        [*line, f"{workdir}/index", "a red ball moves left", "-k", "3"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [row.split("\t") for row in done.stdout.strip().splitlines()]
    assert [row[:2] for row in rows] == [["a red ball moves left", str(n)] for n in (1, 2, 3)]
    assert all(row[2].startswith("clip") for row in rows)
    scores = [float(row[3]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    done = subprocess.run([*line, f"{workdir}/checkpoints", "a ball"], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_held_out_bank_is_named_and_belongs_to_the_run(data, tmp_path):
    def again(*flags):
        return run("--config=configs/demo.py", f"--workdir={tmp_path}/run", *data,
                   "--config.train.steps=4", *flags)  # fmt: skip

    def measured():
        return json.loads((tmp_path / "run" / "results.json").read_text())

    held = "--config.data.bank_holdout=0.25"
    done = again(held, "--config.eval.bank=auto", "--config.eval.online=True")
    assert done.returncode == 0, done.stderr
    assert "embedding the 18 clips of train ..." in done.stdout
    assert "embedding the 6 clips held out of training ..." in done.stdout
    assert "each query after those before it" in done.stdout
    results = measured()
    captions = results["data"]["splits"]["train"]["captions"]["used"]
    out = results["data"]["held_out_of_training"]
    assert out["clips"] == 6
    assert results["metrics"]["counts"]["bank"] == {"texts": captions - out["captions"],
                                                    "videos": 18}  # fmt: skip
    fit = results["metrics"]["fit"]["inductive_auto"]["video"]
    assert set(fit["banks"]) == {"train", "validation", "holdout"}
    assert "online" in results["metrics"]["text_to_video"]
    done = again(held, "--config.eval.bank=holdout")
    assert done.returncode == 0, done.stderr
    assert "normalised, held-out bank (inductive)" in done.stdout
    assert f"bank: {out['captions']} captions of 6 clips held out of" in done.stdout
    results = measured()
    assert results["metrics"]["bank"]["text_to_video"] == {"source": "holdout",
                                                           "queries": out["captions"]}  # fmt: skip
    assert "online" not in results["metrics"]["text_to_video"]
    done = again("--config.data.bank_holdout=0.5")
    assert done.returncode == 2
    assert "holds another run: config.data.bank_holdout was 0.25, now it is 0.5" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
