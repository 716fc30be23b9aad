"""Which bank is taken: every one is tried on the same held-out pairs."""

import numpy as np
import pytest

from ncl_jax.normalizers import Auto, Bank, auto
from tests.normalizers.normalizers_test import hubby, unit


def pairs_of(text, video):
    return Bank(text, video)


def test_one_bank_is_the_choice_of_auto():
    text, video = hubby(1, 0.7)
    pairs = pairs_of(text[:100], video[:100])
    name, choice, evidence = auto.choose_bank(pairs, {"train": None})
    found = Auto().fit(pairs, video[100:]).evidence
    assert name == "train"
    assert choice.name == evidence["choice"] == found["choice"] != "none"
    assert evidence["table"] == found["table"]
    assert "banks" not in evidence


@pytest.mark.parametrize("first", ["memorised", "own"])
def test_a_bank_that_lies_elsewhere_is_not_taken(first):
    """Its texts lie where no query of the pairs does, as those of memorised pairs may."""
    text, video = hubby(2, 0.7, clips=400)
    elsewhere = unit(np.random.default_rng(0).normal(size=(300, 32)) - 3 * np.eye(32)[0])
    banks = {"memorised": elsewhere, "own": None}
    banks = banks if first == "memorised" else dict(reversed(banks.items()))
    name, choice, evidence = auto.choose_bank(pairs_of(text[:150], video[:150]), banks)
    assert name == "own"
    assert choice.name != "none"
    assert evidence["banks"]["own"]["gain"] == evidence["held_out_gain"]
    assert evidence["banks"]["memorised"]["gain"] < evidence["banks"]["own"]["gain"]
    alone, only, lone = auto.choose_bank(
        pairs_of(text[:150], video[:150]), {"memorised": elsewhere})  # fmt: skip
    assert (alone, only.name, lone["choice"]) == ("memorised", "none", "none")


def test_a_larger_bank_of_the_same_kind_is_taken():
    text, video = hubby(3, 0.7, clips=2000)
    pairs = pairs_of(text[:40], video[:40])
    name, _, evidence = auto.choose_bank(pairs, {"own": None, "more": text[200:]})
    assert name == "more"
    assert list(evidence["banks"]) == ["own", "more"]


def test_gains_of_another_bank_are_those_of_a_loop():
    """Margins of NCL's best candidate by biases of that bank, over plain margins."""
    text, video = hubby(4, 0.7)
    pairs, other = pairs_of(text[:60], video[:60]), text[100:]
    _, choice, evidence = auto.choose_bank(pairs, {"other": other})
    bias = choice.normalizer.fit(Bank(other), video[:60]).bias / choice.normalizer.scale
    gains = []
    for place, row in enumerate(text[:60] @ video[:60].T):
        margins = []
        for scores in (row, row + bias):
            rest = np.delete(scores, place)
            margins.append(scores[place] - rest.max())
        gains.append((margins[1] - margins[0]) / evidence["spread"])
    assert evidence["held_out_gain"] == pytest.approx(np.mean(gains), abs=1e-4)
    assert evidence["held_out_error"] == pytest.approx(np.std(gains) / 60**0.5, abs=1e-4)


def test_few_pairs_take_the_first_bank_and_plain_scores():
    text, video = hubby(5, 0.7)
    name, choice, evidence = auto.choose_bank(
        pairs_of(text[:10], video[:10]), {"b": text[20:], "a": None}
    )
    assert (name, choice.name) == ("b", "none")
    assert evidence["reason"] == "fewer than 20 training pairs"
    assert evidence["banks"]["a"] == {"candidate": "none", "gain": 0.0, "error": 0.0}


def test_no_bank_is_refused():
    text, video = hubby(6, 0.7)
    with pytest.raises(ValueError, match="banks: expected at least one, got none"):
        auto.choose_bank(pairs_of(text, video), {})
    with pytest.raises(ValueError, match="bank queries must have width 32"):
        auto.choose_bank(pairs_of(text, video), {"other": np.ones((3, 4), np.float32)})
