"""Sweeps: what is planned, run, skipped, resumed, and what the table says."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats

from configs import demo
from ncl_jax.cli import report, sweep, sweep_plans, sweep_runs
from ncl_jax.distributed import sharding
from ncl_jax.experiment import build, coincidence, finished
from ncl_jax.report import sweeps as tables
from tests import jobs
from tests.cli.train_test import ROOT, TINY

# Stands in for `ncl_jax.main`: seconds to take, the config to say, what to do at the end.
WORK = """
import json, pathlib, sys, time
folder, seconds, config, end = sys.argv[1:]
with open(pathlib.Path(folder) / "starts", "a") as starts:
    starts.write("x")
time.sleep(float(seconds))
if end == "fail":
    sys.exit("ncl_jax: the loss is nan")
text = json.dumps({"config": json.loads(config), "metrics": {}})
(pathlib.Path(folder) / "results.json").write_text(text)
"""


@pytest.fixture
def runs(tmp_path):
    """A function that makes stand-in runs: name -> (seconds, end)."""

    def make(**kinds):
        made = []
        for name, (seconds, end) in kinds.items():
            config, folder = demo.get_config(f"seed={len(made)}"), tmp_path / name
            line = [sys.executable, "-c", WORK, str(folder), str(seconds),
                    json.dumps(config.to_dict()), end]
            made.append(sweep_runs.SweepRun(name, config.seed, folder, config, line))
        return made

    return make


@pytest.mark.parametrize("name", sweep_plans.SWEEPS)
def test_every_sweep_fits_the_configs(name, tmp_path):
    config = demo.get_config()
    runs = sweep.plan(config, name, tmp_path, ["--config=configs/demo.py"])
    assert len({run.workdir for run in runs}) == len(runs)
    assert len({json.dumps(run.config.to_dict()) for run in runs}) == len(runs)
    seeds = {run.seed for run in runs}
    assert len(seeds) == {"seeds": 5, "tuning": 1}.get(name, 3)
    for run in runs:
        assert run.command[2:4] == ["ncl_jax.main", "--config=configs/demo.py"]
        assert f"--workdir={run.workdir}" in run.command
    assert (sweep.plan(config, name, tmp_path, [])[0].config.seed) == min(seeds)


def test_batch_sizes_see_the_same_number_of_pairs(tmp_path):
    config = demo.get_config()
    for run in sweep.plan(config, "batch_size", tmp_path, []):
        seen = run.config.train.steps * run.config.train.batch_size
        assert 0 <= 900 * 64 - seen < run.config.train.batch_size


def test_sweeps_share_their_runs(tmp_path):
    config = demo.get_config()
    planned = {name: sweep.plan(config, name, tmp_path, []) for name in sweep_plans.SWEEPS}
    assert planned["seeds"][0].workdir == tmp_path / "loss=infonce,seed=0"
    assert planned["seeds"][1].workdir == tmp_path / "seed=0"
    of = {name: {run.workdir: run.config.to_dict() for run in runs}
          for name, runs in planned.items()}
    assert len(of["iterations"].keys() & of["seeds"].keys()) == 3
    assert len(of["loss"].keys() & of["seeds"].keys()) == 6
    for folder in set().union(*of.values()):
        configs = [runs[folder] for runs in of.values() if folder in runs]
        assert all(other == configs[0] for other in configs)


def test_settings_that_cannot_differ_are_run_once(tmp_path):
    config = demo.get_config()
    planned = sweep.plan(config, "loss", tmp_path, [])
    runs, coinciding = sweep.once(planned)
    assert [run.label for run in runs[:2]] == ["loss=infonce positives=same_clip",
                                               "loss=ncl positives=same_clip"]  # fmt: skip
    assert len(runs) == 6
    assert len(planned) == 12
    assert coinciding == {
        f"loss={name} positives=diagonal": f"the same as loss={name} positives=same_clip (pairs of "
        "one clip show the same frames), so it is run once" for name in ("infonce", "ncl")
    }  # fmt: skip
    config.data.flip = True  # now they can differ
    assert sweep.once(sweep.plan(config, "loss", tmp_path, []))[1] == {}
    config.data.distinct_clips = True
    runs, coinciding = sweep.once(sweep.plan(config, "loss", tmp_path, []))
    assert len(runs) == 6
    assert "data.distinct_clips leaves no clip twice in a batch" in " ".join(coinciding.values())
    for name in set(sweep_plans.SWEEPS) - {"loss"}:
        assert sweep.once(sweep.plan(demo.get_config(), name, tmp_path, []))[1] == {}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("infonce", "loss.iterations", 9), ("infonce", "loss.gradient", "unroll"),
     ("infonce", "loss.tolerance", 0.1), ("infonce", "loss.overrelaxation", True),
     ("infonce", "loss.positives", "diagonal"), ("ncl", "loss.positives", "diagonal")],
)  # fmt: skip
def test_a_setting_without_effect_leaves_the_step_as_it_was(name, key, value):
    """The same values and gradients, to rounding, on pairs of which two show one clip."""
    import jax

    configs = [demo.get_config(f"loss={name}") for _ in range(2)]
    configs[1].update_from_flattened_dict({key: value})
    assert key in coincidence.without_effect(configs[0])
    assert coincidence.essence(configs[0]) == coincidence.essence(configs[1])
    rng = np.random.default_rng(0)
    clip = np.array([0, 1, 2, 1, 3, 4])
    text, frames = rng.normal(size=(6, 5)), rng.normal(size=(5, 5))[clip]

    def step(config):
        loss = build.build_loss(config)

        def total(a, b):  # parameters of both towers
            rows = (unit(text @ a), unit(frames @ b))
            values, _ = loss(*rows, 8.0, clip, np.ones(6, bool))
            return values.sum()

        unit = lambda x: x / jax.numpy.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
        mapped = jax.vmap(jax.value_and_grad(total, (0, 1)), axis_name=sharding.AXIS)
        one = np.eye(5)[None] + 0.1
        return jax.tree.leaves(mapped(one, one))

    for a, b in zip(*map(step, configs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("loss.iterations", 9), ("loss.gradient", "unroll"), ("optim.learning_rate", 0.5),
     ("train.steps", 3)],
)  # fmt: skip
def test_a_setting_with_effect_makes_another_run(key, value):
    config, other = demo.get_config(), demo.get_config()
    other.update_from_flattened_dict({key: value})
    assert coincidence.essence(config) != coincidence.essence(other)


def test_the_time_left_is_told_but_not_of_the_last(runs, capsys):
    made = runs(one=(0, "ok"), two=(0, "ok"), three=(0, "fail"))
    list(sweep_runs.execute(made, sweep_runs.shares(1)))
    first, second, third = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[1/3\] one, seed 0: done after \d+ s; about \d+ s left", first)
    assert re.fullmatch(r"\[2/3\] two, seed 1: done after \d+ s; about \d+ s left", second)
    assert third.startswith("[3/3] three, seed 2: failed with exit code 1")
    assert "; about " not in third


def test_labels():
    overrides = {"loss.name": "ncl", "loss.iterations": 4, "seed": 0}
    assert sweep.label_of(overrides) == "loss=ncl iterations=4"


def test_an_override_that_does_not_fit_is_named(tmp_path, monkeypatch):
    plan = [{"loss.temper": 1, "seed": 0}]
    monkeypatch.setitem(sweep_plans.SWEEPS, "bad", lambda config: iter(plan))
    with pytest.raises(ValueError, match=r"sweep bad: .*loss\.temper.* does not fit"):
        sweep.plan(demo.get_config(), "bad", tmp_path, [])


def test_a_config_with_seeds_of_its_own_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seeds: expected 1, got 3; a sweep trains"):
        sweep.plan(demo.get_config("seeds=3"), "seeds", tmp_path, [])


def test_shares_of_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    assert sweep_runs.shares(1) == [{0, 1, 2, 5}]
    assert sweep_runs.shares(3) == [{0, 5}, {1}, {2}]
    assert sweep_runs.shares(5) == [{0}, {1}, {2}, {5}, {0}]


def test_one_failing_run_does_not_stop_the_others_and_finished_ones_are_skipped(runs, capsys):
    made = runs(one=(0, "ok"), two=(0, "fail"), three=(0, "ok"))
    faults = {run.name: fault for run, fault in sweep_runs.execute(made, sweep_runs.shares(2))}
    assert faults.pop("two, seed 1").startswith(
        "failed with exit code 1 (ncl_jax: the loss is nan; see "
    )
    assert faults == {"one, seed 0": "", "three, seed 2": ""}
    assert "[3/3]" in capsys.readouterr().out
    list(sweep_runs.execute(made, sweep_runs.shares(1)))
    starts = {run.label: (run.workdir / "starts").read_text() for run in made}
    assert starts == {"one": "x", "two": "xx", "three": "x"}


def test_results_of_another_config_do_not_count_as_finished(runs):
    (run,) = runs(one=(0, "ok"))
    list(sweep_runs.execute([run], sweep_runs.shares(1)))
    assert sweep_runs.finished(run)
    other = run.config.copy_and_resolve_references()
    other.optim.learning_rate = 0.5
    assert not sweep_runs.finished(run._replace(config=other))
    (run.workdir / "results.json").write_text("{")
    assert not sweep_runs.finished(run)


def test_a_run_that_outlived_its_sweep_is_waited_for(runs, capsys):
    (run,) = runs(one=(1.0, "ok"))
    orphan = sweep_runs.start(run, {0})
    assert orphan is not None
    assert sweep_runs.start(run, {0}) is None  # the lock is the orphan's
    faults = [fault for _, fault in sweep_runs.execute([run], sweep_runs.shares(1))]
    assert faults == [""]
    assert (run.workdir / "starts").read_text() == "x"
    assert orphan.wait() == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "one, seed 0: another process trains it; waiting for it to end"
    assert told[1].startswith("[1/1] one, seed 0: done after")
    assert len(told) == 2


def test_leaving_early_ends_the_runs_under_way(runs):
    made = runs(one=(0, "ok"), two=(60, "ok"))
    left = sweep_runs.execute(made, sweep_runs.shares(2))
    assert next(left)[0].label == "one"
    begin = time.monotonic()
    left.close()
    assert time.monotonic() - begin < 30
    with (made[1].workdir / sweep_runs.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it


def metrics(value, error=0.1):
    row = {"R@1": value, "R@5": value, "R@10": value, "MnR": 2.0, "norm_error_mean": error}
    return {d: dict.fromkeys(tables.results.ROWS, row) for d in tables.DIRECTIONS} | {
        "in_batch_norm_error": {"plain": 0.2, "normalised": 0.1, "trained_on": 0.1}
    }


def test_table_against_numpy_and_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(30, 60, (2, 4))
    runs = [tables.Finished(s, i, metrics(v)) for s, x in (("a", a), ("b", b))
            for i, v in enumerate(x)]
    runs.append(tables.Finished("c", 3, metrics(1.0)))
    table = tables.table(runs)
    assert table["settings"] == ["a", "b", "c"]
    row = next(r for r in table["rows"] if r["measure"] == "text to video R@1")
    assert row["kind"] == "plain"
    cell = row["settings"]["b"]
    assert cell["values"] == b.tolist()
    assert np.isclose(cell["mean"], b.mean())
    assert np.isclose(cell["std"], np.std(b, ddof=1))
    test = stats.ttest_rel(b, a)
    low, high = test.confidence_interval(0.95)
    assert np.allclose([cell["difference"][k] for k in ("mean", "low", "high")],
                       [(b - a).mean(), low, high])
    assert row["settings"]["c"]["std"] is None
    assert row["settings"]["c"]["difference"] is None  # one seed in common tells nothing
    assert "difference" not in row["settings"]["a"]


def test_differences_pair_the_seeds_that_both_have():
    runs = [tables.Finished("a", s, metrics(v)) for s, v in ((0, 1.0), (1, 2.0), (2, 9.0))]
    runs += [tables.Finished("b", s, metrics(v)) for s, v in ((2, 10.0), (0, 2.0))]
    row = tables.table(runs)["rows"][0]
    assert row["settings"]["b"]["difference"] == {
        "mean": 1.0, "low": 1.0, "high": 1.0, "seeds": [0, 2]
    }


def test_markdown_keeps_kinds_apart_plain_first():
    runs = [tables.Finished(s, i, metrics(v + i)) for s, v in (("a", 40), ("b", 50))
            for i in range(2)]
    head = {"sweep": "x", "command": "cmd", "runs": {"finished": 4, "planned": 5},
            "failed": {"c, seed 1": "failed"}, "coinciding": {"d": "the same as a"}}
    text = tables.markdown(head | tables.table(runs))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    wanted = [*(h.capitalize() for h in tables.HEADINGS.values()), "Every seed"]
    assert headings == [f"## {h}" for h in wanted]
    assert text.count("| text to video | R@1 | R@5 | R@10 | MnR | norm. error |") == 5
    assert "| a | 40.5 ± 0.7 | 40.5 ± 0.7 |" in text
    assert "| b | 50.5 ± 0.7 [+10.0; +10.0 to +10.0] |" in text  # a point: no star
    assert "4 of 5 runs finished" in text
    assert "- c, seed 1: failed" in text
    assert "- d: the same as a" in text
    assert "| text to video R@1 | plain | b | 50.0 | 51.0 |" in text


def test_a_star_where_the_interval_excludes_zero():
    runs = [tables.Finished(s, i, metrics(v)) for s, x in (("a", [1, 2, 3]), ("b", [9, 11, 10]))
            for i, v in enumerate(x)]  # fmt: skip
    head = {"sweep": "x", "command": "cmd", "runs": {"finished": 6, "planned": 6}, "failed": {},
            "coinciding": {}}
    # differences 8, 9, 7: half width 4.303 / sqrt(3)
    text = tables.markdown(head | tables.table(runs))
    assert "| b | 10.0 ± 1.0 [+8.0; +5.5 to +10.5] \\* |" in text


def test_a_table_without_runs_says_so():
    head = {"sweep": "x", "command": "cmd", "runs": {"finished": 0, "planned": 5}, "failed": {},
            "coinciding": {}}
    assert "0 of 5 runs finished" in tables.markdown(head | tables.table([]))


# The real command, with a sweep of two runs.
SHORT = """
from absl import app

from ncl_jax.cli import sweep, sweep_plans
sweep_plans.SWEEPS["two"] = lambda config: iter(
    [{"loss.gradient": g, "seed": 3} for g in ("stop", "unroll")])
app.run(sweep.main, flags_parser=sweep.job.parse_flags)
"""


def command(folder, *arguments):
    line = [sys.executable, "-c", SHORT, "--config=configs/demo.py",
            f"--workdir={folder}/sweep", *TINY, "--config.train.steps=20",
            *jobs.data_in(folder)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return [*line, *arguments], {"cwd": ROOT, "env": environment}


@pytest.mark.slow
def test_a_wrong_flag_is_one_plain_message(tmp_path):
    line, options = command(tmp_path, "--sweep=iteration")
    done = subprocess.run(line, **options, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--sweep: expected one of seeds, loss, gradient" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


# Interrupted where the data is prepared, before any run.
INTERRUPTED = SHORT.replace("app.run", """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job begun with `&` ignores it
sweep.prepare = lambda *_: os.kill(os.getpid(), signal.SIGNAL)
app.run""")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_before_the_runs_is_one_sentence(tmp_path, name):
    line, options = command(tmp_path, "--sweep=two")
    line[2] = INTERRUPTED.replace("SIGNAL", name)
    done = subprocess.run(line, **options, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "interrupted; run the same command again to resume\n"


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path):
    line, options = command(tmp_path, "--sweep=two")
    process = subprocess.Popen(line, **options, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    first, second = (tmp_path / "sweep" / name for name in ("seed=3", "gradient=unroll,seed=3"))
    deadline = time.monotonic() + 400
    while not (second / sweep_runs.LOG).exists():  # the first has finished, the second has begun
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = (first / "results.json").stat().st_mtime_ns

    done = subprocess.run(line, **options, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (first / "results.json").stat().st_mtime_ns == kept
    table = json.loads((tmp_path / "sweep" / "two.json").read_text())
    assert table["runs"] == {"finished": 2, "planned": 2}
    assert table["settings"] == ["gradient=stop", "gradient=unroll"]
    cell = table["rows"][0]["settings"]["gradient=unroll"]
    assert cell["seeds"] == [3]
    assert table["workdirs"]["gradient=unroll"]["3"] == str(second)
    results = json.loads((second / "results.json").read_text())
    assert results["config"]["seed"] == 3
    assert results["config"]["loss"]["gradient"] == "unroll"
    assert results["metrics"]["text_to_video"]["plain"]["R@1"] == cell["values"][0]
    assert (tmp_path / "sweep" / "two.md").read_text().strip() in done.stdout
    # what it left opens again, and makes a page with the frames of its clips
    run = finished.open_run(second)
    assert len(run.split.captions) == len(run.test.text)
    assert len(run.frames(0, 2)) == 2
    assert report.main(["html", str(first), str(second)]) == 0
    page = (tmp_path / "sweep" / "report-seed=3+gradient=unroll,seed=3.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') > 50
    assert "No balance" not in page
    # the second outlived the kill and was waited for, or was begun again: never twice at a time
    assert (second / sweep_runs.LOG).read_text().count("curves:") == 1
