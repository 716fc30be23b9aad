"""Several seeds of one config: their folders, their means, and going on after a stop."""

import json
import statistics

import pytest
from etils import epath

from configs import demo
from ncl_jax.experiment import seeds
from ncl_jax.report import runs, tables

RECALL = {0: 40.0, 1: 42.0, 2: 47.0}


def fake_run(calls, stop_at=None):
    """An `experiment.run` that leaves a result file of the real shape."""

    def run(config, workdir):
        calls.append(config.seed)
        if config.seed == stop_at:
            return None
        rows = {s: {"R@1": RECALL[config.seed], "R@5": 70.0, "R@10": 80.0, "MdR": 2.0, "MnR": 9.0}
                for s in ("plain", "inductive")}  # fmt: skip
        summary = {
            "schema": 1,
            "run": {"name": config.name, "seed": config.seed, "step": 9, "seconds": {"data": 1.0}},
            "config": config.to_dict(), "environment": {}, "data": {},
            "metrics": {"text_to_video": rows, "video_to_text": rows, "rules": {"ties": "average"}},
        }  # fmt: skip
        (workdir / "results.json").write_text(json.dumps(summary))
        return summary

    return run


def test_mean_deviation_and_values_of_each_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "run_experiment", fake_run([]))
    summary = seeds.run_seeds(demo.get_config("seeds=3"), epath.Path(tmp_path))
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["metrics"]["text_to_video"]["plain"]["R@1"] == 43.0
    deviation = written["metrics_std"]["video_to_text"]["inductive"]["R@1"]
    assert deviation == pytest.approx(statistics.stdev(RECALL.values()))
    found = {s: m["text_to_video"]["plain"]["R@1"] for s, m in written["per_seed"].items()}
    assert found == {"0": 40.0, "1": 42.0, "2": 47.0}
    assert summary["run"]["seeds"] == [0, 1, 2]
    (group,) = runs.group(runs.load([tmp_path]))
    assert [run.path.name for run in group.runs] == ["seed0", "seed1", "seed2"]
    assert "43.0 ± 3.6" in tables.results([group])[0].markdown()


def test_a_stopped_command_goes_on(tmp_path, monkeypatch):
    calls = []
    config, folder = demo.get_config("seeds=3"), epath.Path(tmp_path)
    monkeypatch.setattr(seeds, "run_experiment", fake_run(calls, stop_at=1))
    assert seeds.run_seeds(config, folder) is None
    assert not (folder / "results.json").exists()
    monkeypatch.setattr(seeds, "run_experiment", fake_run(calls))
    assert seeds.run_seeds(config, folder) is not None
    assert calls == [0, 1, 1, 2]  # the finished one is not run again
    config.eval.iterations = 8
    seeds.run_seeds(config, folder)
    assert calls[4:] == [0, 1, 2]  # other settings are


@pytest.mark.parametrize("count", [0, -1])
def test_seeds_must_be_positive(tmp_path, count):
    config = demo.get_config()
    config.seeds = count
    with pytest.raises(ValueError, match=f"seeds: expected at least 1, got {count}"):
        seeds.run_seeds(config, epath.Path(tmp_path))
