"""The command `normalize`: what it says meanwhile, what it recommends, what it saves."""

import json
import pathlib

import numpy as np
import pytest

from ncl_jax import metrics
from ncl_jax.cli import normalize
from ncl_jax.normalizers import Auto, Bank, Online
from ncl_jax.normalizers.comparison import Pairs
from tests.normalizers.normalizers_test import hubby, unit


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Flags of test pairs and of a bank of the same kind, in the present folder."""
    monkeypatch.chdir(tmp_path)
    text, video = hubby(4, 0.7, clips=160)
    arrays = {"t": text[:60], "v": video[:60], "bt": text[60:], "bv": video[60:]}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return ["--text", "t.npy", "--video", "v.npy", "--bank-text", "bt.npy", "--bank-video",
            "bv.npy"], arrays  # fmt: skip


def test_a_quick_look_tells_its_steps_and_names_the_full_one(files, capsys):
    flags, _ = files
    assert normalize.main([*flags, "--direction", "t2v", "--json", "out.json"]) == 0
    said, told = capsys.readouterr()
    assert "Text to video, 3 bank samples (quick; --full takes 20)" in said
    assert told.startswith("importing JAX ...\ntext to video, sample 1 of 3: held-out pairs\n")
    assert "3 samples took " in told
    assert "--full takes 20, about " in told
    assert "Warning" not in said
    assert json.loads(pathlib.Path("out.json").read_text())["t2v"]["bank"]["differences"] == []


def test_a_bank_unlike_the_test_set_is_told(files, capsys):
    flags, arrays = files
    np.save("bt.npy", unit(np.random.default_rng(0).normal(size=arrays["bt"].shape)
                           - 3 * np.eye(32)[0]))  # fmt: skip
    assert normalize.main([*flags, "--direction", "t2v", "--samples", "1"]) == 0
    said = capsys.readouterr().out
    assert "Warning: the bank is unlike the test set: its mean cosine is " in said
    assert "Recommended: plain scores" in said


@pytest.mark.parametrize("recommended", ["auto", "none"])
def test_saved_biases_rank_as_the_recommended_normaliser(files, recommended, capsys, monkeypatch):
    flags, arrays = files
    sentence = lambda _: (recommended, "Recommended: as planted.")  # noqa: E731
    monkeypatch.setattr("ncl_jax.normalizers.comparison.recommend", sentence)
    assert normalize.main([*flags, "--samples", "1", "--save", "biases.npz"]) == 0
    assert "biases.npz: text to video " in capsys.readouterr().out
    saved = np.load("biases.npz")
    scores = saved["video_scale"] * arrays["t"] @ arrays["v"].T + saved["video_bias"]
    fitted = Auto().fit(Bank(arrays["bt"], arrays["bv"]), arrays["v"])
    assert fitted.evidence["choice"] != "none"
    wanted = fitted.score(arrays["t"]) if recommended == "auto" else arrays["t"] @ arrays["v"].T
    of = np.arange(60)
    assert metrics.text_to_video(scores, of) == metrics.text_to_video(wanted, of)
    assert (np.ptp(saved["video_bias"]) > 0) == (recommended == "auto")
    assert saved["text_bias"].shape == (60,)


def test_biases_without_a_bank_are_refused(files, capsys):
    assert normalize.main(["--text", "t.npy", "--video", "v.npy", "--save", "b.npz"]) == 2
    assert "--save needs a bank of training pairs" in capsys.readouterr().err


def test_the_full_look_is_twenty_samples(files, monkeypatch):
    flags, _ = files
    seen = []
    monkeypatch.setattr(normalize, "run", seen.append)
    assert normalize.main([*flags, "--full"]) == 0
    assert normalize.main(flags) == 0
    assert [args.samples for args in seen] == [20, 3]


def test_online_is_a_table_of_its_own(files, capsys):
    flags, arrays = files
    asked = [*flags, "--samples", "2", "--direction", "t2v", "--json", "out.json"]
    assert normalize.main(asked) == 0
    assert "online" not in capsys.readouterr().out
    without = json.loads(pathlib.Path("out.json").read_text())["t2v"]
    assert normalize.main([*asked, "--online", "15"]) == 0
    said = capsys.readouterr().out
    head, row = said.split("| online | R@1 |")
    assert "| online |" not in head
    assert row.splitlines()[2].startswith("| online | ")
    rows = json.loads(pathlib.Path("out.json").read_text())["t2v"]
    assert {name: rows[name] for name in without} == without
    assert rows["online"]["kind"] == "online"
    for seed, found in enumerate(rows["online"]["R@1"]):
        part = np.random.default_rng(seed).permutation(100)[:50]
        bank = Pairs(arrays["bt"], arrays["bv"], np.arange(100)).take(part).bank("t2v")
        fitted = Online(15, order=seed, seed=seed).fit(bank, arrays["v"])
        assert found == metrics.text_to_video(fitted.score(arrays["t"]), np.arange(60))["R@1"]


@pytest.mark.parametrize("every", ["0", "-3"])
def test_online_without_a_query_between_refits_is_refused(files, every, capsys):
    flags, _ = files
    assert normalize.main([*flags, "--online", every]) == 2
    assert "--online: expected at least 1 query between refits" in capsys.readouterr().err
