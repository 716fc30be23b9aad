"""What the benchmark of normalisers draws from its sets, and what it concludes from the gains."""

import numpy as np
import pytest

from benchmarks import retrieval_normalizers, retrieval_sets
from ncl_jax import metrics
from ncl_jax.normalizers import Auto, Online
from ncl_jax.normalizers.comparison import Pairs


def real_set(pairs=50, train=None):
    rng = np.random.default_rng(0)
    rows = retrieval_sets.unit(rng.normal(size=(pairs, 8)))
    found = Pairs(rows, rows, np.arange(pairs))
    return retrieval_sets.RealSet(found, found if train else None)


def test_no_bank_has_a_pair_of_its_test():
    kinds = {}
    for kind, bank, test in retrieval_normalizers.banks(real_set(), seed=3):
        seen = {row.tobytes() for row in bank.video}
        assert not seen & {row.tobytes() for row in test.video}
        kinds[kind] = (len(bank.video), len(test.video))
    assert kinds == {"half": (25, 25), "fifth": (10, 25)}
    kinds = [kind for kind, _, _ in retrieval_normalizers.banks(real_set(train=True), seed=3)]
    assert kinds == ["half", "fifth", "train"]


def test_a_turned_set_keeps_its_pairs():
    text, video = np.arange(4.0)[:, None], 10 * np.arange(4.0)[:, None]
    of = np.array([2, 0, 3, 1])
    turned = retrieval_normalizers.turned(Pairs(text, video, of))
    pairs = set(zip(text[:, 0], video[of, 0], strict=True))
    assert set(zip(turned.video[turned.video_of_text, 0], turned.text[:, 0], strict=True)) == pairs


def gains(fixed, chosen, careless, careful):
    names = [f"auto, caution {c:g}" for c in retrieval_normalizers.CAUTIONS]
    by_caution = dict(zip(names, [careless, *[careful] * 5], strict=True))
    online = {"online": fixed + 10.0, "online, Zipf": -fixed}
    one = {"none": 0.0, "csls k=5": fixed, "auto": chosen, "plain": 50.0}
    return [one | by_caution | online] * 2


def test_report_compares_with_the_best_setting_and_leaves_each_set_out():
    found = {
        "a": gains(4.0, 3.0, 4.0, 3.0),
        "a (turned)": gains(4.0, 3.0, 4.0, 3.0),
        "b": gains(2.0, 1.0, -1.0, 1.0),
    }
    rows = retrieval_normalizers.rows_of(found)
    assert [row["which"] for row in rows] == ["csls k=5"] * 3
    assert [row["share"] for row in rows] == ["75%", "75%", "50%"]
    values = {row.what: row for row in retrieval_normalizers.report(found, 0.65)}
    share = values["share of the best fixed settings' gain"]
    assert share.value == pytest.approx(7 / 10)
    assert share.met
    # Set a takes what is best for b (the careful one), and b what is best for both ways of a.
    assert retrieval_normalizers.left_out(found) == pytest.approx((3 + 3 - 1) / 10)
    assert values["online over auto, mean over sets"].value == pytest.approx(40 / 3)
    assert values["online, Zipf: sets below auto by more than the interval"].value == 3
    assert values["online, Zipf: sets above auto by more than the interval"].value == 0
    assert values["least share where over 1 R@1 is to gain"].value == pytest.approx(0.5)


def test_half_of_the_captions_are_the_query_and_half_the_item():
    captions = {"x": list("abcdefgh"), "y": ["only"], "z": ["p", "q"]}
    corpus = retrieval_sets.of_captions(captions, ["z", "y", "missing", "x"])
    assert corpus == (["p", "a"], [["q"], ["b", "d", "f"]])
    encode = {t: np.eye(16)[i] for i, t in enumerate("abcdefghpq")}
    pairs = retrieval_sets.embedded(corpus, lambda texts: np.array([encode[t] for t in texts]))
    assert pairs.video[0].argmax() == 9
    np.testing.assert_allclose(pairs.video[1][[1, 3, 5]], 3**-0.5)


def test_zipf_draws_the_queries_of_few_items_often():
    found = real_set(pairs=400).pairs
    drawn = retrieval_normalizers.by_zipf(found)
    assert len(drawn.text) == 400
    np.testing.assert_array_equal(drawn.text, found.text[drawn.video_of_text])
    counts = np.sort(np.bincount(drawn.video_of_text, minlength=400))[::-1]
    total = (1 / np.arange(1, 401)).sum()
    assert counts[0] == pytest.approx(400 / total, rel=0.3)
    assert counts[:20].sum() > 400 * 0.4 > 4 * counts[-200:].sum()


def test_online_gains_are_over_auto_by_its_own_rule():
    rng = np.random.default_rng(1)
    side = np.eye(8)[0]
    video = retrieval_sets.unit(rng.normal(size=(300, 8)))
    text = retrieval_sets.unit(video + 0.4 * rng.normal(size=video.shape) + 0.6 * side)
    pairs = Pairs(text, video, np.arange(300))
    bank, test = pairs.take(np.arange(60)), pairs.take(np.arange(60, 300))
    gains = retrieval_normalizers.gains_of(bank, test)
    chosen = Auto().fit(bank.bank("t2v"), test.video)
    online = Online(retrieval_normalizers.ONLINE, order=0).fit(bank.bank("t2v"), test.video)
    one, other = (metrics.text_to_video(f.lazy(test.text), np.arange(240))["R@1"]
                  for f in (online, chosen))  # fmt: skip
    assert chosen.evidence["choice"] != "none"
    assert gains["online"] == pytest.approx(one - other)
    assert gains["online"] != 0
