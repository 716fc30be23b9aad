"""Tables of finished runs."""

import json
import pathlib

import pytest

from configs import msvd
from ncl_jax.cli import report
from ncl_jax.report import reproduction, runs, tables

METRICS = {"R@1": 40.0, "R@5": 70.0, "R@10": 80.0, "R@50": 95.0, "MdR": 2.0, "MnR": 15.0,
           "norm_error_mean": 0.3123}  # fmt: skip


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
    kinds = ("transductive", "inductive", "plain")  # the tables have an order of their own
    rows = {kind: METRICS | {"R@1": r1 + 2 - i} for i, kind in enumerate(kinds)}
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
            "| 80.0 ± 0.0 | 95.0 ± 0.0 | 2.0 ± 0.0 | 15.0 ± 0.0 | 0.312 ± 0.000 |") in lines
    assert ("| msvd | msvd | ncl | meanP | loss.iterations=8 | 1 | "
            "normalised, train bank (inductive) | 51.0 | 70.0 | 80.0 | 95.0 | 2.0 | 15.0 | 0.312 |"
            ) in lines  # fmt: skip
    assert len([line for line in lines if "| plain |" in line]) == 4  # 2 groups, 2 directions


def test_plain_comes_first_and_transductive_stands_apart(tmp_path, capsys):
    assert report.main(["results", finished(tmp_path / "a", 40.0)]) == 0
    text = capsys.readouterr().out
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert [title.strip("*").partition(";")[0] for title in titles] == [
        f"{direction}, {apart}"
        for direction in ("Text to video", "Video to text")
        for apart in ("each query alone", "all test queries together")
    ]
    for direction in text.split("**Video to text, each")[:2]:
        alone, together = direction.split("all test queries together;")
        assert "transductive" not in alone
        assert "inductive)" not in together
        assert alone.index("| plain |") < alone.index("(inductive)")


def test_cells_hold_any_text():
    table = tables.Table("x", ("a",), [("^~<b>|\\\nc_d",)])
    assert "| ^~&lt;b>\\|\\\\ c_d |" in table.markdown()
    odd = r"\textasciicircum{}\textasciitilde{}\textless{}b\textgreater{}|\textbackslash{} c\_d \\"
    assert odd in table.latex().splitlines()


def test_scores_that_one_run_lacks_are_a_row_without_numbers(tmp_path, capsys):
    folders = [finished(tmp_path / f"s{s}", 40.0, seed=s) for s in (0, 1)]
    file = tmp_path / "s0" / "results.json"
    content = json.loads(file.read_text())
    for rows in content["metrics"].values():
        rows.pop("inductive")
    file.write_text(json.dumps(content))
    for order in (folders, folders[::-1]):
        assert report.main(["results", *order]) == 0
        lacking = f"| 2 | normalised, train bank (inductive) |{' - |' * 7}"
        assert lacking in capsys.readouterr().out


def test_several_seeds_of_one_command_are_runs_of_their_own(tmp_path):
    finished(tmp_path / "seed3", 40.0, seed=3)
    content = json.loads((tmp_path / "seed3" / "results.json").read_text())
    measured = content["metrics"]
    content["run"] |= {"seed": 3, "seeds": [3, 4], "seconds": {"training": 50.0}}
    content["config"] |= {"seeds": 2, "seed": 3}
    content["per_seed"] = {"3": measured, "4": measured}
    (tmp_path / "results.json").write_text(json.dumps(content))
    one, other = runs.load([tmp_path])
    assert [run.config["seed"] for run in (one, other)] == [3, 4]
    assert one.config["seeds"] == other.config["seeds"] == 1
    assert "seconds" not in one.content["run"]  # its own file says how long
    assert one.content["run"] == {"name": "msvd", "seed": 3}
    assert "seconds" not in other.content["run"]  # only the sum is known


def test_a_folder_of_runs_and_files_as_markdown_and_latex(tmp_path, capsys):
    for seed in (0, 1):
        finished(tmp_path / "runs" / str(seed), 40.0, seed=seed, name="my_run")
    assert report.main(["results", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out/results.md").read_text() + "\n" == printed
    latex = (tmp_path / "out/results.tex").read_text()
    assert r"my\_run & msvd & ncl & meanP & 2 & plain & 40.0 $\pm$ 0.0 &" in latex
    assert latex.count(r"\begin{tabular}{llllll") == 4
    assert latex.count("&") == 2 * (3 + 2) * 12  # tables of three and of two lines of 13 cells


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "expected results.json there"), ("{", "results.json: expected JSON"),
     ('{"schema": 1}', "expected the results of a run")],
)  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert report.main(["results", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.removeprefix("importing JAX ...\n").splitlines()) == 1
    assert not captured.out


def test_the_same_run_twice_is_refused(tmp_path, capsys):
    folders = [finished(tmp_path / name, 40.0) for name in "ab"]
    assert report.main(["results", *folders]) == 2
    assert "are the same run (seed 0)" in capsys.readouterr().err


DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/results.md"


def reproduced(folder, arg, r1, **changes):
    """A finished run of configs/msvd.py."""
    settings = msvd.get_config(arg)
    settings.update_from_flattened_dict(changes)
    folder.mkdir()
    rows = {scores: METRICS | {"R@1": r1} for scores in ("plain", "inductive")}
    content = {"schema": 1, "run": {"name": settings.name, "seed": settings.seed},
               "config": settings.to_dict(),
               "metrics": {"text_to_video": rows, "video_to_text": rows}}  # fmt: skip
    (folder / "results.json").write_text(json.dumps(content))
    return str(folder)


def test_the_reproduction_table_is_filled_by_runs_of_its_commands_only(tmp_path, capsys):
    document = tmp_path / "results.md"
    document.write_text(DOCUMENT.read_text())
    folders = [
        reproduced(tmp_path / "a", "loss=infonce", 46.0, **{"data.threads": 9}),
        reproduced(tmp_path / "b", "loss=infonce,seed=1", 47.0,
                   **{"init.checkpoint": "/weights/clip-vit-base-patch32"}),
        reproduced(tmp_path / "short", "head=seqTransf", 90.0, **{"train.steps": 10}),
    ]  # fmt: skip
    # A local copy of the weights is as good as their name, so the first two are seeds of one run.
    assert report.main(["results", *folders, "--fill", str(document)]) == 0
    said = capsys.readouterr().out
    assert "fills no row; nearest: train.steps is 10, not 1905" in said
    assert f"{tmp_path}/a, {tmp_path}/b: 2 rows of the reproduction table" in said
    before, after = (p.read_text().splitlines() for p in (DOCUMENT, document))
    changed = [(b, a) for b, a in zip(before, after, strict=True) if a != b]
    assert len(changed) == 2
    assert all("MSVD | CLIP4Clip meanP" in a and ":loss=infonce`" in a for _, a in changed)
    assert all("46.5 ± 0.7 / 70.0 ± 0.0 / 80.0 ± 0.0 / 2.0 ± 0.0 / 15.0" in a for _, a in changed)


def test_every_command_of_the_reproduction_table_makes_a_config():
    rows = [line.split(" | ") for line in DOCUMENT.read_text().splitlines() if "`--config=" in line]
    assert len(rows) == 28
    for *_, command in rows:
        wanted = reproduction.expected(command)
        assert wanted["loss"]["name"] == ("infonce" if "loss=infonce" in command else "ncl")
        assert wanted["train"]["steps"] == 0 or "steps=0" not in command
    with pytest.raises(ValueError, match=r"no key 'train\.stops'"):
        reproduction.expected("--config=configs/msvd.py --config.train.stops=0")


def test_a_document_without_the_table_is_refused(tmp_path, capsys):
    (tmp_path / "other.md").write_text("# nothing\n")
    folder = finished(tmp_path / "run", 40.0)
    assert report.main(["results", folder, "--fill", str(tmp_path / "other.md")]) == 2
    assert "expected a table with the columns direction, scores" in capsys.readouterr().err
