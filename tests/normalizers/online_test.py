"""Online biases: a loop oracle, and that no query sees itself or a later one."""

import numpy as np
import pytest

from ncl_jax import metrics
from ncl_jax.normalizers import Auto, Bank, Ncl, Online, Plain
from tests import retrieval_oracles as oracle
from tests.normalizers.normalizers_test import hubby, problem, unit

NCL = Ncl(scale=12.0, iterations=3)


@pytest.mark.parametrize("every", [1, 2, 4, 9, 50])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_scores_equal_the_loop_over_queries(every, strength):
    query, bank, gallery = problem(1)
    ncl = Ncl(scale=12.0, iterations=3, strength=strength)
    found = Online(every, ncl).fit(bank, gallery).score(query)
    wanted = oracle.online_scores(query, bank.query, gallery, every, 12.0, 3, strength)
    found, wanted = (x - x.mean(axis=1, keepdims=True) for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("order", [None, 5])
@pytest.mark.parametrize("changed", range(9))
def test_no_query_sees_itself_or_a_later_one(every, order, changed):
    """Another query at place `changed`: the scores of those before it stay bit by bit, its own are
    those that the biases of before give it, and some later ones move where there are any.
    """
    query, bank, gallery = problem(2)
    fitted = Online(every, NCL, order).fit(bank, gallery)
    arrival = np.arange(9) if order is None else np.random.default_rng(order).permutation(9)
    other = query.copy()
    other[arrival[changed]] = unit(-gallery[:1])
    before, after = (fitted.score(q)[arrival] for q in (query, other))
    np.testing.assert_array_equal(before[:changed], after[:changed])
    bias = [s[changed] - 12 * q[arrival[changed]] @ gallery.T
            for s, q in ((before, query), (after, other))]  # fmt: skip
    np.testing.assert_allclose(*bias, atol=1e-4)
    same_fit = (changed // every + 1) * every
    np.testing.assert_array_equal(before[changed + 1 : same_fit], after[changed + 1 : same_fit])
    if same_fit < 9:
        assert np.abs(before[same_fit:] - after[same_fit:]).max() > 1e-3


@pytest.mark.parametrize("cut", [[9], [1] * 9, [2, 5, 2], [4, 4, 1]])
def test_a_stream_gives_the_same_however_it_is_cut(cut):
    query, bank, gallery = problem(3)
    fitted = Online(3, NCL).fit(bank, gallery)
    stream, parts = fitted.stream(), []
    for part in np.split(query, np.cumsum(cut)[:-1]):
        parts.append(stream.answer(part))
    np.testing.assert_allclose(np.concatenate(parts), fitted.score(query), atol=1e-5)
    assert (stream.answered, stream.refits) == (9, 2)
    np.testing.assert_allclose(fitted.stream().answer(query), fitted.score(query), atol=1e-5)


def test_before_the_first_refit_it_is_the_normaliser_itself():
    query, bank, gallery = problem(4)
    np.testing.assert_array_equal(
        Online(9, NCL).fit(bank, gallery).score(query), NCL.fit(bank, gallery).score(query)
    )
    assert (Online(3, Plain()).fit(bank, gallery).score(query)
            == Plain().fit(None, gallery).score(query)).all()  # fmt: skip


def test_lazy_rows_columns_and_another_scale():
    query, bank, gallery = problem(5)
    gallery[7] = gallery[2]
    fitted = Online(2, NCL, order=1).fit(bank, gallery)
    lazy, whole = fitted.lazy(query), fitted.score(query)
    assert lazy.shape == (9, 11)
    assert lazy.T.shape == (11, 9)
    np.testing.assert_array_equal(lazy[2:5], whole[2:5])
    np.testing.assert_array_equal(lazy.T[2:5], whole.T[2:5])
    np.testing.assert_array_equal(whole[:, 7], whole[:, 2])
    half = fitted.at_scale(6.0).score(query)
    np.testing.assert_allclose(2 * half, whole, rtol=1e-4, atol=1e-4)


def test_it_learns_what_the_bank_does_not_know():
    """The bank's queries lie on the other side than those that come: these have other hubs."""
    text, video = hubby(5, 0.7, clips=500)
    side = np.eye(32)[0]
    bank = Bank(unit(text[300:] - 1.6 * side), video[300:])
    text, video = text[:300], video[:300]
    ncl = Ncl(15.0)
    fixed, online = (
        metrics.text_to_video(n.fit(bank, video).lazy(text), np.arange(300))["R@1"]
        for n in (ncl, Online(50, ncl))
    )
    assert online > fixed + 3


def test_auto_chooses_before_the_first_query():
    text, video = hubby(0, 0.7)
    bank = Bank(text[:120], video[:120])
    fitted, chosen = Online(30).fit(bank, video[120:]), Auto().fit(bank, video[120:])
    assert fitted.kind == "online"
    assert fitted.evidence["choice"] == chosen.evidence["choice"] != "none"
    assert fitted.evidence["every"] == 30
    np.testing.assert_allclose(fitted.score(text[120:150]), chosen.score(text[120:150]), atol=1e-4)


def test_what_does_not_fit_is_named():
    query, bank, gallery = problem(6)
    with pytest.raises(ValueError, match="every: expected at least 1 query between refits, got 0"):
        Online(0).fit(bank, gallery)
    fitted = Online(3, NCL).fit(bank, gallery)
    for call in (fitted.score, fitted.stream().answer):
        with pytest.raises(ValueError, match="queries must have width 4"):
            call(np.ones((2, 5), np.float32))
        with pytest.raises(ValueError, match="finite"):
            call(query * np.nan)
