"""Search on the host: float64's answer to the last item, whatever the panels, parts and ties."""

import subprocess
import sys

import numpy as np
import pytest

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, device_search, host_search


def unit(seed, count, dim=24):
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def best(query, item, bias, k, scale):
    """By a stable sort of all float64 scores, rounded as the answer is."""
    scores = (scale * (query.astype(np.float64) @ item.astype(np.float64).T) + bias).astype("f")
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


def nearly_equal(count):
    """Rows that differ in their last bits alone: float32 products put them in another order."""
    noise = np.random.default_rng(5).normal(size=(count, 24)) * 1e-7
    return (unit(4, 1) + noise).astype(np.float32)


GALLERIES = {
    "random": unit(0, 3001),
    "nearly equal": nearly_equal(3000),
    "equal": np.repeat(unit(1, 1), 700, axis=0),
    "equal in places": unit(2, 40)[np.random.default_rng(3).integers(0, 40, 2500)],
    "one": unit(0, 1),
}


@pytest.mark.parametrize("cut", [(), (1,), (100, 101, 2000)])
@pytest.mark.parametrize(("queries", "k"), [(1, 1), (1, 10), (37, 10), (5, 5000)])
@pytest.mark.parametrize("name", GALLERIES)
def test_it_is_the_stable_sort_of_float64(name, queries, k, cut, monkeypatch):
    monkeypatch.setattr(host_search, "SCORES", 1000)
    monkeypatch.setattr(host_search, "WIDTH", 64)
    monkeypatch.setattr(host_search, "_EXACT", 1000)
    item, query = GALLERIES[name], np.concatenate([unit(4, 1), unit(7, queries)])[:queries]
    bias = np.round(np.random.default_rng(6).normal(size=len(item)), 1).astype(np.float32)
    bias = bias if name == "random" else np.zeros_like(bias)
    parts = list(zip(np.split(item, cut), np.split(bias, cut), strict=True))
    scores, rows = host_search.search(query, parts, k, 100.0)
    expected = best(query, item, bias, k, 100.0)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


def test_more_near_ties_than_are_held_change_nothing(monkeypatch):
    monkeypatch.setattr(host_search, "SCORES", 1000)
    monkeypatch.setattr(host_search, "WIDTH", 64)
    item, query = nearly_equal(3000), np.concatenate([unit(4, 1), unit(7, 3)])
    parts = [(item, np.zeros(3000, np.float32))]
    expected = host_search.search(query, parts, 10, 50.0)
    monkeypatch.setattr(host_search, "MANY", 100)
    for got, want in zip(host_search.search(query, parts, 10, 50.0), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_scores_do_not_depend_on_the_other_queries():
    item, query = unit(0, 5000, 512), unit(1, 33, 512)
    parts = [(item, np.zeros(5000, np.float32))]
    together = host_search.search(query, parts, 7, 100.0)
    for number in range(33):
        alone = host_search.search(query[number : number + 1], parts, 7, 100.0)
        np.testing.assert_array_equal(alone[0][0], together[0][number])
        np.testing.assert_array_equal(alone[1][0], together[1][number])


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38, 7.0])
def test_damage_that_would_be_found_is_one_sentence(number):
    item = unit(0, 3000).copy()
    item[1234, 5] = number
    query = np.eye(24, dtype=np.float32)[5:6]
    with pytest.raises(InputError, match="not of unit length, so it is damaged; build it again"):
        host_search.search(query, [(item, np.zeros(3000, np.float32))], 3, 100.0)


def test_devices_give_the_same_items():
    item, query = unit(0, 2000), unit(1, 20)
    bias = np.random.default_rng(2).normal(size=2000).astype(np.float32)
    scores, rows = host_search.search(query, [(item, bias)], 10, 20.0)
    shards = device_search.place(item, bias)
    on_devices = device_search.search(query * np.float32(20), shards, 10)
    np.testing.assert_array_equal(rows, on_devices[1])
    np.testing.assert_allclose(scores, on_devices[0], rtol=1e-5, atol=1e-5)


def test_an_index_is_opened_and_searched_without_jax(tmp_path):
    np.save(tmp_path / "q.npy", unit(1, 2))
    RetrievalIndex.build([f"clip {n}" for n in range(9)], unit(0, 9), unit(2, 5)).save(tmp_path)
    code = (
        "import sys; from ncl_jax.cli import index\n"
        f"assert index.main(['search', {str(tmp_path)!r}, '--query', {str(tmp_path / 'q.npy')!r}"
        ", '-k', '3']) == 0\n"
        "found = {'jax', 'flax', 'scipy', 'tensorflow'} & set(sys.modules)\n"
        "assert not found, found"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 6
