"""The seconds of a run: over all commands that worked on it, and kept by a kill."""

import itertools
import json

import pytest
from etils import epath

from ncl_jax.experiment import run_clock
from ncl_jax.experiment.run_clock import RunClock


@pytest.fixture
def tick(monkeypatch):
    """Every look at the clock is one second later."""
    seconds = itertools.count()
    monkeypatch.setattr(run_clock.time, "perf_counter", lambda: float(next(seconds)))


def work(clock, *names):
    for name in names:
        with clock.phase(name):
            pass


def test_seconds_of_repeated_commands_add_up(tmp_path, tick, capsys):
    first = RunClock(epath.Path(tmp_path))
    work(first, "data", "training")
    first.save()
    second = RunClock(epath.Path(tmp_path))
    work(second, "data", "training", "evaluation")
    assert second.seconds() == {"data": 2.0, "training": 2.0, "evaluation": 1.0}
    assert capsys.readouterr().out.splitlines()[2:] == ["data: 1 s", "training: 1 s",
                                                        "evaluation: 1 s"]  # fmt: skip


def test_a_phase_under_way_is_saved(tmp_path, tick):
    clock = RunClock(epath.Path(tmp_path))
    with clock.phase("training"):
        clock.save()
        clock.save()
        saved = RunClock(epath.Path(tmp_path)).seconds()
    assert saved == {"training": 2.0}


def test_nothing_is_written_before_a_save(tmp_path):
    work(RunClock(epath.Path(tmp_path)), "data")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data": null}', '{"data": "long"}'])
def test_a_damaged_file_counts_as_none(tmp_path, text):
    (tmp_path / run_clock.FILE).write_text(text)
    assert RunClock(epath.Path(tmp_path)).seconds() == {}


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(run_clock.runtime, "is_first", lambda: False)
    clock = RunClock(epath.Path(tmp_path))
    clock.save()
    assert not list(tmp_path.iterdir())
    assert json.dumps(clock.seconds()) == "{}"


def test_a_run_from_before_there_was_a_clock_keeps_what_its_results_say(tmp_path, tick):
    results = {"run": {"seconds": {"data": 200.0, "training": 300.0}}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    clock = RunClock(epath.Path(tmp_path))
    work(clock, "data")
    assert clock.seconds() == {"data": 201.0, "training": 300.0}
    clock.save()  # from now on this file counts, whatever the results say
    assert RunClock(epath.Path(tmp_path)).seconds() == {"data": 201.0, "training": 300.0}
