"""Tables of finished runs."""

import json

import pytest

from ncl_jax.cli import report

METRICS = {"R@1": 40.0, "R@5": 70.0, "R@10": 80.0, "R@50": 95.0, "MdR": 2.0, "MnR": 15.0}


def config(**changes):
    c = {"name": "msvd", "seed": 0, "data": {"builder": "msvd", "threads": 4},
         "loss": {"name": "ncl", "iterations": 4}, "model": {"temporal": "meanP"}}  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition("__")
        (c[section] if name else c)[name or section] = value
    return c


def finished(folder, r1, **changes):
    """A workdir with a result file of the shape that a run leaves."""
    folder.mkdir(parents=True)
    settings = config(**changes)
    rows = {scores: METRICS | {"R@1": r1 + i} for i, scores in enumerate(("plain", "inductive"))}
    measured = {"text_to_video": rows, "video_to_text": rows}
    run = {"name": settings["name"], "seed": settings["seed"]}
    content = {"schema": 1, "run": run, "config": settings, "metrics": measured}
    (folder / "results.json").write_text(json.dumps(content))
    return str(folder)


def test_seeds_are_one_row_and_settings_are_told_apart(tmp_path, capsys):
    folders = [finished(tmp_path / f"s{s}", 40.0 + s, seed=s, data__threads=s) for s in (0, 1, 2)]
    folders.append(finished(tmp_path / "k8", 50.0, loss__iterations=8))
    assert report.main(["results", *folders]) == 0
    lines = capsys.readouterr().out.splitlines()
    # mean of 40, 41, 42 and their sample standard deviation
    assert ("| msvd | msvd | ncl | meanP | loss.iterations=4 | 3 | plain | 41.0 ± 1.0 | 70.0 ± 0.0 "
            "| 80.0 ± 0.0 | 2.0 ± 0.0 | 15.0 ± 0.0 |") in lines  # fmt: skip
    assert ("| msvd | msvd | ncl | meanP | loss.iterations=8 | 1 | inductive | 51.0 | 70.0 | 80.0 "
            "| 2.0 | 15.0 |") in lines  # fmt: skip
    assert len([line for line in lines if "| plain |" in line]) == 4  # 2 groups, 2 directions


def test_a_folder_of_runs_and_files_as_markdown_and_latex(tmp_path, capsys):
    for seed in (0, 1):
        finished(tmp_path / "runs" / str(seed), 40.0, seed=seed, name="my_run")
    assert report.main(["results", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out/results.md").read_text() + "\n" == printed
    latex = (tmp_path / "out/results.tex").read_text()
    assert r"my\_run & msvd & ncl & meanP & 2 & plain & 40.0 $\pm$ 0.0 &" in latex
    assert latex.count(r"\begin{tabular}{llllll") == 2
    assert latex.count("&") == 2 * 3 * 10  # two tables, three lines of eleven cells


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "expected results.json there"), ("{", "expected the results of a run"),
     ('{"schema": 1}', "expected the results of a run")],
)  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert report.main(["results", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not captured.out


def test_the_same_run_twice_is_refused(tmp_path, capsys):
    folders = [finished(tmp_path / name, 40.0) for name in "ab"]
    assert report.main(["results", *folders]) == 2
    assert "are the same run (seed 0)" in capsys.readouterr().err
