"""Factors of normalisation: what must agree, agrees; what must be apart, is."""

import json

import numpy as np
import pytest
from etils import epath

from ncl_jax.evaluation import embeddings, evaluate, synthetic
from ncl_jax.experiment import finished
from ncl_jax.normalizers import Bank, Ncl
from ncl_jax.report import ablations, plots, runs
from tests.report.page_test import workdir


def made(seed):
    test, bank = synthetic.embeddings(30, 2, bank_videos=50, dim=16, seed=seed)
    return finished.FinishedRun({}, test, bank, 20.0, None)


@pytest.fixture(scope="module")
def rows():
    return ablations.at_test_time([made(0), made(1)])


def at(rows, factor, value):
    (row,) = (r for r in rows if (r.factor, r.value) == (factor, value))
    return row


def test_the_defaults_of_all_factors_are_one_setting(rows):
    usual = at(rows, "iterations", 4)
    assert usual.runs == 2
    for factor, value in (("scale", 1.0), ("strength", 1.0), ("bank", "train split"),
                          ("bank size", 1.0)):  # fmt: skip
        for name, (mean, spread) in at(rows, factor, value).measures.items():
            assert mean == pytest.approx(usual.measures[name][0], abs=1e-4)
            assert spread == pytest.approx(usual.measures[name][1], abs=1e-4)
    plain = at(rows, "bank", "none")
    assert plain.kind == "plain"
    for name, (mean, _) in at(rows, "strength", 0.0).measures.items():
        assert mean == pytest.approx(plain.measures[name][0], abs=1e-4)


def test_a_row_against_the_normaliser_itself(rows):
    values = []
    for run in (made(0), made(1)):
        fitted = Ncl(run.scale, 16).fit(Bank(run.bank.text), run.test.video)
        other = Ncl(run.scale, 16).fit(Bank(run.bank.video), run.test.text)
        scored = evaluate.score(
            fitted.lazy(run.test.text), other.lazy(run.test.video), run.test.video_of_text
        )
        values.append(scored["video_to_text"]["R@1"])
    mean, spread = at(rows, "iterations", 16).measures["video_to_text"]
    assert (mean, spread) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_errors_of_all_scales_are_at_the_scale_of_the_model(rows):
    errors = []
    for run in (made(0), made(1)):
        bias = Ncl(4 * run.scale).fit(Bank(run.bank.text), run.test.video).bias / (4 * run.scale)
        logits = run.scale * (run.test.text @ run.test.video.T + bias)
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        errors.append(np.abs(share.sum(0) * len(run.test.video) / len(run.test.text) - 1).mean())
    assert at(rows, "scale", 4.0).measures["norm_error"][0] == pytest.approx(np.mean(errors))


def test_only_the_test_queries_are_transductive(rows):
    assert [r.value for r in rows if r.kind == "transductive"] == ["test queries"]
    lone = ablations.at_test_time([made(0)])
    assert at(lone, "iterations", 4).measures["text_to_video"][1] is None


def test_tables_and_plots(rows):
    text = ablations.markdown(rows)
    assert text.count("| scores |") == 5
    assert "| test queries | transductive |" in text
    for name in ("iterations", "scale", "bank size", "strength"):
        (axes,) = plots.factor(rows, name).axes
        assert (axes.get_xlabel(), axes.get_ylabel()) == (plots.FACTORS[name], "R@1 (%)")


def test_training_and_test_time(tmp_path):
    folders = [workdir(tmp_path / f"{loss}{seed}", loss__name=loss, seed=seed)
               for loss in ("infonce", "ncl") for seed in (0, 1)]  # fmt: skip
    found = ablations.train_and_test(runs.load(folders))
    assert [(r.value, r.kind) for r in found] == [
        ("neither", "plain"), ("test only", "inductive"), ("training only", "plain"),
        ("both", "inductive"), ("test only", "transductive"), ("both", "transductive"),
    ]  # fmt: skip
    assert found[1].measures["text_to_video"] == (41.0, 0.0)


def test_embeddings_of_a_run_come_back(tmp_path):
    run, path = made(0), epath.Path(tmp_path) / "embeddings.npz"
    embeddings.save_embeddings(path, run.test, run.bank, run.scale)
    test, bank, scale = finished.read_embeddings(path)
    assert np.array_equal(test.text, run.test.text)
    assert list(test.video_ids) == list(run.test.video_ids)
    assert np.array_equal(bank.video, run.bank.video)
    assert np.array_equal(bank.video_of_text, run.bank.video_of_text)
    assert scale == run.scale
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"embeddings\.npz: damaged"):
        finished.read_embeddings(path)


def test_a_run_whose_data_moved_is_named(tmp_path):
    folder = epath.Path(workdir(tmp_path / "a"))
    run = made(0)
    embeddings.save_embeddings(folder / "embeddings.npz", run.test, run.bank, run.scale)
    with pytest.raises(ValueError, match="its dataset data/<dir> is not here"):
        finished.open_run(folder)
    content = json.loads((folder / "results.json").read_text())
    del content["data"]
    (folder / "results.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"results\.json: damaged"):
        finished.open_run(folder)


def test_example_has_hubs_that_the_bank_mends():
    test, bank = synthetic.embeddings()
    assert np.allclose(np.linalg.norm(test.text, axis=1), 1, atol=1e-6)
    run = finished.FinishedRun({}, test, bank, 30.0, None)
    rng = np.random.default_rng(0)
    found = {t.value: ablations.measure(t, run) for t in ablations.trials(run, 4, rng)
             if t.factor == "bank"}  # fmt: skip
    assert found["train split"]["text_to_video"] > found["none"]["text_to_video"] + 5
    assert found["train split"]["norm_error"] < found["none"]["norm_error"] / 2
