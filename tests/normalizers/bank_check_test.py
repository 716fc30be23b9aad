"""Whether a bank is like the test set: its cosines, their spread and its hubs."""

import re

import numpy as np
import pytest

from ncl_jax.normalizers import bank_check, comparison
from ncl_jax.normalizers.comparison import Pairs
from tests.normalizers.normalizers_test import hubby, unit


def test_cosines_of_own_items_do_not_count():
    query, gallery = unit(np.eye(3) + 0.1), unit(np.eye(3) + 0.2)
    bank = unit(np.ones((2, 3)))
    found = bank_check.check(bank, query, gallery, np.eye(3, dtype=bool))
    cosine = query @ gallery.T
    others = [[cosine[i, j] for j in range(3) if i != j] for i in range(3)]
    assert found.mean[1] == pytest.approx(np.mean(others), abs=1e-6)
    assert found.mean[0] == pytest.approx(np.mean(bank @ gallery.T), abs=1e-6)
    assert found.spread[1] == pytest.approx(np.std([np.subtract(o, np.mean(o)) for o in others]),
                                            abs=1e-6)  # fmt: skip


def split(seed=4, lean=0.7):
    """Test pairs, and training pairs of the same kind."""
    text, video = hubby(seed, lean, clips=700)
    return (Pairs(text[a], video[a], np.arange(350)) for a in (slice(350), slice(350, None)))


@pytest.mark.parametrize("direction", ["t2v", "v2t"])
def test_a_bank_of_the_same_kind_is_like_the_test(direction):
    test, bank = split()
    found = comparison.compare(test, bank, direction)
    assert found.differences == []
    assert found.hubs is not None
    assert found.hubs > (0.9 if direction == "t2v" else 0.45)


def test_each_difference_is_named():
    test, bank = split()
    away = bank._replace(text=unit(-bank.text))  # leans to where nobody is
    (shift, hubs) = comparison.compare(test, away, "t2v").differences
    assert shift.startswith("its mean cosine is ")
    assert hubs.startswith("its hubs are others (correlation -")
    rng = np.random.default_rng(0)
    query, far = np.eye(8)[rng.integers(1, 8, 60)], np.eye(8)[np.zeros(60, int)]
    gallery = unit(rng.normal(size=(80, 8)) * [4, 1, 1, 1, 1, 1, 1, 1])
    found = bank_check.check(far, query, gallery, np.zeros((60, 80), bool))
    assert re.match(r"its cosines spread 2\.\d\d times as far", found.differences[0])
    assert found.spread[0] > 2 * found.spread[1]


def test_where_the_test_queries_agree_on_no_hub_nothing_is_said_of_hubs():
    rng = np.random.default_rng(1)
    test = Pairs(unit(rng.normal(size=(40, 64))), unit(rng.normal(size=(30, 64))),
                 np.arange(40) % 30)  # fmt: skip
    bank = Pairs(unit(rng.normal(size=(40, 64))), unit(rng.normal(size=(40, 64))), np.arange(40))
    assert comparison.compare(test, bank, "t2v").hubs is None


def test_at_most_so_many_rows_are_compared(monkeypatch):
    monkeypatch.setattr(bank_check, "QUERIES", 50)
    monkeypatch.setattr(bank_check, "ITEMS", 60)
    test, bank = split()
    sizes = []
    shares = bank_check._shares
    monkeypatch.setattr(bank_check, "_shares", lambda c, s: sizes.append(c.shape) or shares(c, s))
    comparison.compare(test, bank, "t2v")
    assert sizes[:2] == [(25, 60), (25, 60)]
    assert all(rows <= 50 and items == 60 for rows, items in sizes)


def rows(gain, choice="ncl scale=2.5/spread strength=1", times=3):
    """What the table holds of plain and of `auto`."""
    settings = comparison.Counter({choice: times, "none": 3 - times})
    return {"none": {"R@1": [40.0] * 3}, "auto": {"R@1": [40.0 + g for g in gain],
                                                  "settings": settings}}  # fmt: skip


def test_nothing_that_lost_is_recommended():
    name, said = comparison.recommend(rows([-9.0, -10.0, -10.34]))
    assert name == "none"
    assert said.startswith("Recommended: plain scores.")
    assert "-9.78 R@1" in said
    name, said = comparison.recommend(rows([1.0, 2.0, 3.0]))
    assert name == "auto"
    assert said.endswith("its mean gain here is +2.00 ± 2.48 R@1.")  # 4.303 / sqrt(3)
    name, said = comparison.recommend(rows([0.0, 0.0, 1.0], times=1))
    assert name == "none"
    assert "nothing helps" in said
