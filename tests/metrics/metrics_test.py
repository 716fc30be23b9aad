"""Metrics against loop oracles, on ragged, tied and multi-caption inputs."""

import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncl_jax import metrics
from ncl_jax.cli import metrics as command
from ncl_jax.normalizers import LazyScores
from tests import retrieval_oracles as oracle

REAL = os.environ.get("NCL_REAL_DATA")
real_data = pytest.mark.skipif(not REAL, reason="NCL_REAL_DATA is not set")


@st.composite
def problems(draw):
    """Scores on a coarse grid, so that ties abound; captions unevenly spread, some clips bare."""
    videos, texts = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    values = st.integers(-2, 2).map(float)
    scores = draw(st.lists(st.lists(values, min_size=videos, max_size=videos),
                           min_size=texts, max_size=texts))
    of = draw(st.lists(st.integers(0, videos - 1), min_size=texts, max_size=texts))
    return np.asarray(scores), np.asarray(of)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(metrics.TIE_RULES), st.sampled_from(metrics.VIDEO_RULES))
def test_both_directions_equal_the_oracle(problem, tie_rule, rule):
    scores, of = problem
    assert metrics.text_to_video(scores, of, tie_rule) == pytest.approx(
        oracle.text_to_video(scores, of, tie_rule))
    assert metrics.video_to_text(scores, of, tie_rule, rule) == pytest.approx(
        oracle.video_to_text(scores, of, tie_rule, rule))


@settings(max_examples=40, deadline=None)
@given(problems(), st.sampled_from(metrics.TIE_RULES), st.integers(0, 9))
def test_one_pass_for_both_directions_equals_the_oracle(problem, tie_rule, seed):
    scores, of = problem
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-1, 2, len(of)), rng.integers(-1, 2, scores.shape[1])
    found = metrics.both_directions(scores, of, tie_rule, text_bias=a, video_bias=b)
    assert found["text_to_video"] == pytest.approx(oracle.text_to_video(scores + b, of, tie_rule))
    assert found["video_to_text"] == pytest.approx(
        oracle.video_to_text(scores + a[:, None], of, tie_rule, "group_max"))


@pytest.mark.parametrize("block", [1, 7, 40])
def test_block_size_does_not_matter(monkeypatch, block):
    rng = np.random.default_rng(0)
    scores, of = rng.integers(0, 9, (31, 13)).astype(float), rng.integers(0, 13, 31)
    whole = [metrics.text_to_video(scores, of), metrics.video_to_text(scores, of),
             metrics.video_to_text(scores, of, rule="best_caption"), metrics.hubness(scores, 3),
             metrics.normalization_error(scores, np.ones(31), np.full(13, 31 / 13))]
    monkeypatch.setattr(metrics.blocks, "BLOCK", block)
    parts = [metrics.text_to_video(scores, of), metrics.video_to_text(scores, of),
             metrics.video_to_text(scores, of, rule="best_caption"), metrics.hubness(scores, 3),
             metrics.normalization_error(scores, np.ones(31), np.full(13, 31 / 13))]
    for a, b in zip(whole, parts, strict=True):
        assert a == pytest.approx(b)


def test_average_ties_do_not_depend_on_order():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    turned = scores[:, ::-1]
    for rule in metrics.TIE_RULES:
        assert metrics.text_to_video(scores, [0, 1, 2], rule) == metrics.text_to_video(
            turned, [2, 1, 0], rule)


def test_a_place_shared_across_the_border_counts_by_the_rule():
    """Places 5 and 6, the mean 5.5: a hit for CE, MMT and QB-Norm, a miss by `average`."""
    ranks = metrics.Ranks(np.array([4, 0]), np.array([1, 1]))
    found = {rule: metrics.summarize(ranks, rule) for rule in ("average", "average_border")}
    assert [found[rule]["R@5"] for rule in found] == [50.0, 100.0]
    assert [found[rule]["R@1"] for rule in found] == [0.0, 0.0]
    assert [found[rule]["MnR"] for rule in found] == [3.5, 3.5]


def test_ndcg_is_the_mean_over_the_places_that_tied_answers_share():
    rng = np.random.default_rng(5)
    scores, of = rng.integers(0, 6, (60, 14)), rng.integers(0, 14, 60)
    for k in (1, 3, 10, 20):
        gains = []
        for row, own in zip(scores, of, strict=True):
            places = [np.sum(row > row[own]) + n for n in range(np.sum(row == row[own]))]
            gains.append(np.mean([1 / np.log2(p + 2) if p < k else 0.0 for p in places]))
        found = metrics.ndcg(metrics.ranks_of_texts(scores, of), k)
        assert found == pytest.approx(100 * np.mean(gains))


@pytest.mark.parametrize(
    ("above", "k", "said"),
    [([], 10, "cannot evaluate 0 queries"), ([0], 0, "k must be at least 1")],
)
def test_ndcg_of_nothing_is_refused(above, k, said):
    with pytest.raises(ValueError, match=said):
        metrics.ndcg(metrics.Ranks(np.array(above), np.array(above)), k)


def test_tie_rules_are_ordered():
    rng = np.random.default_rng(3)
    scores, of = rng.integers(0, 4, (40, 12)), rng.integers(0, 12, 40)
    r1 = {r: metrics.text_to_video(scores, of, r)["MnR"] for r in metrics.TIE_RULES}
    assert r1["optimistic"] < r1["average"] < r1["pessimistic"]


@pytest.mark.parametrize(
    ("least", "dtype", "told"),
    [(1e-12, np.float64, True), (1e-12, np.float32, False), (1, np.int64, True),
     (2.0**-7, jnp.bfloat16, True), (2.0**-9, jnp.bfloat16, False)],
)  # fmt: skip
def test_scores_are_told_apart_as_far_as_their_type_does(least, dtype, told):
    base = 1 << 30 if dtype is np.int64 else 1
    scores = np.array([[base, base + least], [0, base]], dtype)
    for found in (
        metrics.text_to_video(scores, [0, 1], "optimistic"),
        metrics.both_directions(scores, [0, 1], "optimistic")["text_to_video"],
        metrics.video_to_text(scores.T, [0, 1], "optimistic", "best_caption"),
        metrics.both_directions(scores.T, [0, 1], "optimistic")["video_to_text"],
    ):
        assert found["R@1"] == (50 if told else 100)


def test_lazy_scores_equal_the_matrix_and_equal_captions_tie(monkeypatch):
    rng = np.random.default_rng(1)
    text, video = rng.normal(size=(50, 8)), rng.normal(size=(20, 8))
    text[31] = text[4]
    text[44] = text[4]
    video[7] = video[2]
    of = rng.integers(0, 20, 50)
    lazy = LazyScores(text, video, 10.0, rng.normal(size=50), rng.normal(size=20))
    whole = lazy[:]
    np.testing.assert_allclose(lazy.T[3:9], whole.T[3:9], rtol=1e-4, atol=1e-4)
    assert metrics.text_to_video(lazy, of) == metrics.text_to_video(whole, of)
    assert metrics.video_to_text(lazy, of)["R@1"] == metrics.video_to_text(whole, of)["R@1"]
    plain = LazyScores(text, video, 10.0).T[:]
    assert (plain[:, 31] == plain[:, 4]).all()
    assert (plain[:, 44] == plain[:, 4]).all()
    monkeypatch.setattr(metrics.blocks, "BLOCK", 60)  # equal texts in different blocks
    both = metrics.both_directions(LazyScores(text, video, 10.0), of, "pessimistic")
    assert both["video_to_text"] == metrics.video_to_text(plain.T, of, "pessimistic")
    assert both["text_to_video"] == metrics.text_to_video(plain.T, of, "pessimistic")


def test_normalization_error_equals_the_oracle_and_ignores_the_other_side():
    rng = np.random.default_rng(2)
    x, r = rng.normal(size=(7, 5)) * 3, rng.uniform(0.5, 1.5, 7)
    c = rng.uniform(0.5, 1.5, 5)
    c *= r.sum() / c.sum()
    found = metrics.normalization_error(x, r, c)
    assert found == pytest.approx(oracle.normalization_error(x, r, c), rel=1e-5)
    only_b = metrics.normalization_error(x + rng.normal(size=7)[:, None], r, c)
    assert only_b["video_max"] == pytest.approx(found["video_max"], rel=1e-4)
    assert only_b["text_max"] != pytest.approx(found["text_max"], rel=1e-2)


def test_normalization_error_vanishes_at_balance_and_survives_large_logits():
    x = np.log(np.outer(np.arange(1.0, 5), np.arange(2.0, 5))) * 0 + 300.0
    error = metrics.normalization_error(x, np.ones(4), np.full(3, 4 / 3))
    assert max(error.values()) < 1e-6


@pytest.mark.parametrize("k", [1, 3])
def test_hubness_equals_the_oracle(k):
    scores = np.random.default_rng(4).normal(size=(30, 12)) + np.arange(12) * 0.3
    assert metrics.hubness(scores, k) == pytest.approx(oracle.hubness(scores, k))


def test_even_lists_are_not_hubs_and_ties_share_places():
    assert metrics.hubness(np.eye(4), 1) == {
        "skewness": 0.0, "robin_hood": 0.0, "anti_hub_rate": 0.0, "hub_occurrence": 0.0}
    assert metrics.hubness(np.ones((3, 4)), 2)["robin_hood"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.text_to_video(np.eye(3)[:2], [0, 1, 2]), "transposed"),
        (lambda: metrics.text_to_video(np.eye(3), [0, 1, 3]), "lie in"),
        (lambda: metrics.text_to_video(np.eye(3), [0, 1, 1.9]), "expected integers, got float64"),
        (lambda: metrics.text_to_video(np.eye(2), [False, True]), "expected integers, got bool"),
        (lambda: metrics.video_to_text(np.eye(2) * 1j, [0, 1]), "real numbers, got complex128"),
        (lambda: metrics.hubness(np.eye(2) * 1j, 1), "expected real numbers, got complex128"),
        (lambda: metrics.text_to_video(np.eye(2).astype(str), [0, 1]), "real numbers, got <U"),
        (lambda: metrics.text_to_video(np.full((2, 2), np.nan), [0, 1]), "NaN"),
        (lambda: metrics.text_to_video(np.eye(2), [0, 1], "lucky"), "tie rule"),
        (lambda: metrics.video_to_text(np.eye(2), [0, 1], rule="all"), "group_max"),
        (lambda: metrics.text_to_video(np.zeros((0, 3)), []), "0 queries"),
        (lambda: metrics.both_directions(np.zeros((1, 1 << 15)), [0]), "at most 16384 videos"),
        (lambda: metrics.hubness(np.eye(3), 4), "gallery size"),
        (lambda: metrics.normalization_error(np.eye(2), [1, 1], [1, 3]), "equal totals"),
    ],
)
def test_bad_input_is_named(call, says, unchecked):
    with pytest.raises(ValueError, match=says):
        call()


def test_every_id_counts_once():
    metrics.check_ids(["b", "a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"1 missing \(c\); 1 doubled \(a\); 1 unknown \(x\)"):
        metrics.check_ids(["a", "a", "b", "x"], ["a", "b", "c"])


@real_data
def test_published_matrix_gives_its_known_figures():
    scores = np.load(pathlib.Path(REAL) / "sims" / "msrvtt_video_matrix.npy")
    of = np.arange(1000)
    assert metrics.text_to_video(scores, of)["R@1"] == 48.0
    assert metrics.both_directions(scores, of) == {
        "text_to_video": metrics.text_to_video(scores, of),
        "video_to_text": metrics.video_to_text(scores, of),
    }
    found = {rule: metrics.video_to_text(scores, of, rule)["R@1"] for rule in metrics.TIE_RULES}
    assert found == pytest.approx(
        {"optimistic": 46.0, "average": 45.6, "average_border": 45.6, "pessimistic": 45.6,
         "clip4clip": 45.4545}, abs=1e-4)


@real_data
def test_command_prints_all_rules_of_the_published_matrix(capsys):
    matrix = str(pathlib.Path(REAL) / "sims" / "msrvtt_video_matrix.npy")
    assert command.main(["--scores", matrix]) == 0
    tables = capsys.readouterr().out.split("video to text")
    assert tables[0].count("48.00") == len(metrics.TIE_RULES)
    for rules in tables[1:]:
        rows = dict(line.split(" | ")[:2] for line in rules.splitlines() if line[:2] == "| ")
        assert {k[2:]: rows[k] for k in list(rows)[1:]} == {
            "average": "45.60", "average_border": "45.60", "pessimistic": "45.60",
            "optimistic": "46.00", "clip4clip": "45.45"}
