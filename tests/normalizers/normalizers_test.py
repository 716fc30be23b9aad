"""Every normaliser against a loop oracle, its relations, and the choice made by `auto`."""

import inspect
import os
import pathlib

import numpy as np
import pytest

from benchmarks import retrieval_fresh
from ncl_jax import metrics, normalizers
from ncl_jax.cli import normalize
from ncl_jax.normalizers import NORMALIZERS, Bank, auto, biases
from ncl_jax.sinkhorn import numpy_solver
from tests import oracles as numerics
from tests import retrieval_oracles as oracle

REAL = os.environ.get("NCL_REAL_DATA")
SETTINGS = {
    "none": [{}],
    "ncl": [{"scale": 12.0, "iterations": 0}, {"scale": 12.0, "iterations": 3},
            {"scale": 12.0, "iterations": 3, "strength": 0.6},
            {"scale": 12.0, "iterations": 3, "host": False}],
    "inverted_softmax": [{"beta": 9.0}],
    "csls": [{"k": 3}],
    "nnn": [{"k": 4, "alpha": 0.6}],
    "qb_norm": [{"beta": 9.0, "k": 1}, {"beta": 9.0, "k": 2}],
    "dual_is": [{"beta": 9.0, "item_beta": 5.0}],
    "dual_dis": [{"beta": 9.0, "item_beta": 5.0, "k": 1}],
    "sinkhorn_single": [{"scale": 12.0, "iterations": 3}],
    "dsl": [{"scale": 12.0, "temp": 2.0}],
    "sinkhorn_test": [{"scale": 12.0, "iterations": 3}],
}
PER_ROW_CONSTANT = {"none", "ncl", "sinkhorn_test", "sinkhorn_single", "csls", "inverted_softmax"}


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def problem(seed=0, queries=9, bank=7, items=5, gallery=11, dim=4):
    """Ragged sizes and a common direction, so that there are hubs and every gate is used."""
    rng = np.random.default_rng(seed)
    lean = np.eye(dim)[0]
    draw = lambda n: unit(rng.normal(size=(n, dim)) + lean * rng.uniform(0, 1))  # noqa: E731
    return draw(queries), Bank(draw(bank), draw(items)), draw(gallery)


@pytest.mark.parametrize(("name", "p"), [(n, p) for n, ps in SETTINGS.items() for p in ps])
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_equal_the_oracle(name, p, seed):
    query, bank, gallery = problem(seed)
    found = NORMALIZERS[name](**p).fit(bank, gallery).score(query).astype(np.float64)
    wanted = oracle.scores_of(name, query, bank.query, bank.item, gallery, p)
    if name == "none":
        wanted = 100 * wanted
    if name == "inverted_softmax":
        wanted = np.log(wanted)
    if name in PER_ROW_CONSTANT:  # a constant per query never changes a ranking
        found, wanted = (x - x.mean(axis=1, keepdims=True) for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def test_every_normaliser_has_an_oracle_and_a_label():
    assert set(SETTINGS) | {"auto"} == set(NORMALIZERS)
    transductive = {n for n, c in NORMALIZERS.items() if c.kind == "transductive"}
    assert transductive == {"dsl", "sinkhorn_test"}


@pytest.mark.parametrize("name", sorted(set(NORMALIZERS)))
def test_inductive_means_that_other_queries_do_not_matter(name):
    query, bank, gallery = problem(2)
    fitted = NORMALIZERS[name]().fit(bank, gallery)
    together, alone = fitted.score(query), fitted.score(query[:1])
    same = np.allclose(together[:1], alone, rtol=1e-4, atol=1e-3)
    assert fitted.kind == NORMALIZERS[name].kind
    assert same == (fitted.kind == "inductive")


@pytest.mark.parametrize("name", sorted(set(NORMALIZERS)))
def test_lazy_rows_are_the_scores(name):
    query, bank, gallery = problem(3)
    fitted = NORMALIZERS[name]().fit(bank, gallery)
    lazy, whole = fitted.lazy(query), fitted.score(query)
    assert lazy.shape == whole.shape == (9, 11)
    assert lazy.T.shape == (11, 9)
    np.testing.assert_allclose(lazy[2:5], whole[2:5], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(lazy.T[2:5], whole.T[2:5], rtol=1e-4, atol=1e-4)


def test_relations():
    _, bank, gallery = problem(4)
    fit = lambda n, **p: NORMALIZERS[n](**p).fit(bank, gallery).bias  # noqa: E731
    zero, softmax = fit("ncl", scale=9.0, iterations=0), fit("inverted_softmax", beta=9.0)
    np.testing.assert_allclose(zero - zero.mean(), softmax - softmax.mean(), atol=1e-4)
    assert not np.allclose(zero, fit("ncl", scale=9.0, iterations=3), atol=1e-2)
    np.testing.assert_allclose(fit("csls", k=3), 2 * fit("nnn", k=3, alpha=0.5), atol=1e-6)
    assert np.ptp(fit("ncl", strength=0.0)) == 0


def hubby(seed, lean, clips=240):
    """Pairs where some clips lean, more or less, to the side on which all texts lie."""
    rng = np.random.default_rng(seed)
    video, side = unit(rng.normal(size=(clips, 32))), np.eye(32)[0]
    text = unit(video + rng.normal(size=video.shape) * 0.22 + 0.8 * side)
    return text, unit(video + lean * rng.uniform(0, 1, (clips, 1)) * side)


def test_a_bank_wins_back_what_hubs_took():
    text, video = hubby(5, 0.7, clips=800)
    bank, text, video = Bank(text[200:]), text[:200], video[:200]
    plain = NORMALIZERS["none"](scale=15.0).fit(None, video).lazy(text)
    ncl = NORMALIZERS["ncl"](scale=15.0, iterations=20).fit(bank, video).lazy(text)
    plain_error, error = (
        metrics.normalization_error(s, np.ones(200), np.ones(200))["video_mean"]
        for s in (plain, ncl)
    )
    assert error < 0.5 * plain_error
    gain = [metrics.text_to_video(s, np.arange(200))["R@1"] for s in (plain, ncl)]
    assert gain[1] > gain[0] + 3
    assert metrics.hubness(ncl, 1)["robin_hood"] < metrics.hubness(plain, 1)["robin_hood"]


def test_equal_items_get_equal_scores():
    query, bank, gallery = problem(6)
    gallery[7] = gallery[2]
    for name in NORMALIZERS:
        scores = NORMALIZERS[name]().fit(bank, gallery).score(query)
        if name not in ("sinkhorn_single",):
            np.testing.assert_array_equal(scores[:, 7], scores[:, 2], err_msg=name)


def test_huge_problems_take_the_panels(monkeypatch, unchecked):
    _, bank, gallery = problem(7)
    called = []
    monkeypatch.setattr(numpy_solver, "balance", lambda *a: called.append(a) or (None, None))
    NORMALIZERS["ncl"](host=False).balance(bank.query, gallery)
    assert not called
    monkeypatch.setattr(biases, "LARGE", 7 * 11 - 1)
    monkeypatch.setattr(biases.jax, "device_count", lambda: 1)
    NORMALIZERS["ncl"](host=False).balance(bank.query, gallery)
    assert called


@pytest.mark.parametrize("memory", [1e9, 0])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_panels_equal_the_solver(memory, strength, monkeypatch):
    for name, value in (("ROWS", 3), ("TILE", 4), ("LEAST", 1), ("SLICE", 20)):
        monkeypatch.setattr(numpy_solver, name, value)
    _, bank, gallery = problem(7, bank=10)
    ncl = NORMALIZERS["ncl"](scale=90.0, strength=strength, host=False)
    whole, report = ncl.balance(bank.query, gallery)
    parts, other = numpy_solver.balance(bank.query, gallery, 90.0, 4, strength, memory)
    np.testing.assert_allclose(parts.video, whole.video, atol=1e-3)
    np.testing.assert_allclose(parts.text, whole.text, atol=1e-3)
    assert float(other.error) == pytest.approx(float(report.error), rel=1e-2)


@pytest.mark.parametrize("memory", [1e9, 0.0])
def test_items_far_from_every_query_do_not_vanish(memory, monkeypatch):
    """At scale 150 such an item is e^-200 beside the best one, far below float32."""
    monkeypatch.setattr(numpy_solver, "SLICE", 1)
    rng = np.random.default_rng(12)
    query = unit(rng.normal(size=(12, 6)) * 0.2 + np.eye(6)[0])
    gallery = unit(np.vstack([rng.normal(size=(8, 6)), -2 * np.eye(6)[:1]]))
    found, _ = numpy_solver.balance(query, gallery, 150.0, 3, memory=memory)
    wanted = oracle.sinkhorn_item_biases(150.0 * query.astype(np.float64) @ gallery.T, 3)
    assert np.ptp(wanted) > 150
    np.testing.assert_allclose(found.video, wanted, atol=1e-2)


def test_bad_banks_are_named():
    _, bank, gallery = problem()
    for setting in ({"strength": 2.0}, {"iterations": -1}, {"scale": 0.0}):
        with pytest.raises(ValueError, match="strength in"):
            NORMALIZERS["ncl"](**setting).fit(bank, gallery)
    with pytest.raises(ValueError, match="width 4"):
        NORMALIZERS["ncl"]().fit(Bank(np.ones((3, 5))), gallery)
    with pytest.raises(ValueError, match="NaN"):
        NORMALIZERS["csls"]().fit(Bank(np.full((3, 4), np.nan)), gallery)
    with pytest.raises(ValueError, match="training items"):
        NORMALIZERS["auto"]().fit(Bank(bank.query), gallery)


# --- auto -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lean", "least"), [pytest.param(0.0, -1.0, marks=pytest.mark.slow), (0.7, 3.0)]
)
def test_auto_normalises_where_it_helps(lean, least):
    gains = []
    for seed in range(3):
        text, video = hubby(seed, lean)
        fitted = NORMALIZERS["auto"]().fit(Bank(text[:120], video[:120]), video[120:])
        plain = NORMALIZERS["none"]().fit(None, video[120:])
        gains.append(metrics.text_to_video(fitted.lazy(text[120:]), np.arange(120))["R@1"]
                     - metrics.text_to_video(plain.lazy(text[120:]), np.arange(120))["R@1"])
    assert np.mean(gains) >= least
    assert set(fitted.evidence["table"]) >= {"none", fitted.evidence["choice"]}


@pytest.mark.parametrize(
    ("margins", "chosen"),
    [
        ({1: [2.0, 2.2, 2.1, 2.3]}, 1),  # a steady gain
        ({1: [1.4, 1.4, 1.4, 1.4], 2: [1.3, 1.3, 1.3, 1.3]}, 1),  # the larger one
        ({1: [-7.0, 10.0, -7.0, 10.0]}, 0),  # a quarter of a standard error: may be chance
        ({1: [-5.0, 9.0, -5.0, 9.0]}, 1),  # two thirds of one
        ({1: [9.0, 9.0, -0.1, 9.0]}, 1),  # R@1 falls, the margins grow
        ({1: [0.9, 0.9, 0.9, 0.9]}, 0),  # R@1 is the same, the margins shrink
    ],
)
def test_auto_takes_the_largest_margin_that_exceeds_half_its_error(margins, chosen, monkeypatch):
    text, video = hubby(4, 0.3)
    bank = Bank(text[:24], video[:24])
    names = ["none", *(c.name for c in auto._candidates(auto.trials(bank)[1]))]
    table = {names[k]: np.repeat(m, 5) for k, m in margins.items()}
    monkeypatch.setattr(auto, "held_out_margins",
                        lambda c, folds: table.get(c.name, 1.0 * np.full(20, c.name == "none")))
    found = NORMALIZERS["auto"]().fit(bank, video[120:]).evidence
    assert found["choice"] == names[chosen]
    assert {n.split()[1] for n in names[1:]} == {"scale=1.5/spread", "scale=2.5/spread"}
    assert list(found["table"]) == names
    given = table.get(names[1], np.zeros(20)) - 1
    assert found["table"][names[1]]["gain"] * found["spread"] == pytest.approx(given.mean())
    assert found["table"][names[1]]["error"] * found["spread"] == pytest.approx(
        given.std() / 20**0.5)


def test_auto_takes_most_of_what_a_small_bank_gives():
    """Eighty pairs whose two modalities are cones of their own: a fixed NCL gains ten points."""
    gains = []
    for seed in range(4):
        bank, test = retrieval_fresh.small_bank(np.random.default_rng(seed))
        _, spread = auto.trials(bank.bank("t2v"))
        rules = (normalizers.Plain(), normalizers.Ncl(1.5 / spread), normalizers.Auto())
        plain, fixed, chosen = (
            metrics.text_to_video(r.fit(bank.bank("t2v"), test.video).lazy(test.text),
                                  test.video_of_text)["R@1"] for r in rules)
        gains.append((fixed - plain, chosen - plain))
    fixed, chosen = np.mean(gains, axis=0)
    assert fixed > 5
    assert chosen > 0.85 * fixed


def test_auto_keeps_plain_scores_where_nothing_helps():
    rng = np.random.default_rng(8)
    video = np.eye(60, dtype=np.float32)
    text = unit(video + rng.normal(size=video.shape) * 0.02)  # every query is answered already
    fitted = NORMALIZERS["auto"]().fit(Bank(text[:30], video[:30]), video[30:])
    assert metrics.text_to_video(fitted.lazy(text[30:]), np.arange(30))["R@1"] == 100
    few = NORMALIZERS["auto"]().fit(Bank(text[:10], video[:10]), video[30:])
    assert few.evidence["choice"] == "none"
    assert not few.bias.any()


def test_trials_hide_the_answer_and_hold_out_every_query_once():
    text, video = hubby(1, 0.3)
    ids = np.arange(60)
    bank = Bank(np.repeat(text[:60], 2, axis=0), video[:60], np.repeat(ids, 2), ids)
    folds, spread = auto.trials(bank)
    assert sorted(np.concatenate([f.right for f in folds]).tolist()) == list(range(60))
    cosine = text[:60] @ video[:60].T
    for fold in folds:
        assert np.abs(fold.bank.query[fold.bank.query > -5]).max() <= 1.0001
        for row in fold.bank.query:
            assert (row < cosine.min() - 100 * spread).sum() == 1  # only its own item is hidden
        assert (fold.query > -2).all()


def test_auto_ignores_scale_of_scores():
    text, video = hubby(2, 0.5)
    scores, gallery = text @ video.T, np.eye(240, dtype=np.float32)
    choices = [NORMALIZERS["auto"]().fit(Bank(k * scores[:120], gallery[:120]), gallery[120:])
               .evidence["choice"] for k in (1.0, 30.0)]
    assert choices[0] == choices[1]


# --- the table --------------------------------------------------------------------------------


def test_table_command_prints_every_normaliser(tmp_path, capsys):
    text, video = hubby(3, 0.5)
    np.save(tmp_path / "t.npy", text[:60])
    np.save(tmp_path / "v.npy", video[:60])
    arguments = ["--text", str(tmp_path / "t.npy"), "--video", str(tmp_path / "v.npy"),
                 "--samples", "2", "--direction", "t2v", "--json", str(tmp_path / "out.json")]
    assert normalize.main(arguments) == 0
    said = capsys.readouterr().out
    assert all(f"| {name} |" in said for name in NORMALIZERS)
    assert said.index("inductive") < said.index("transductive") < said.index("| dsl |")
    assert "Recommended:" in said
    assert (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "either --text and --video, or --scores, or --embeddings"),
        (["--text", "missing.npy", "--video", "v.npy"], "cannot read missing.npy"),
        (["--text", "t.npy", "--video", "wide.npy"], "one model"),
        (["--text", "nan.npy", "--video", "v.npy"], "finite"),
        (["--text", "t.npy", "--video", "v.npy", "--bank-text", "t.npy"], "go together"),
        (["--scores", "bad.npz"], "cannot read bad.npz"),
        (["--embeddings", "t.npy"], "embeddings of a run"),
        (["--text", "i.npy", "--video", "v.npy"], "i.npy: expected real numbers, got complex128"),
        (["--scores", "i.npy"], "i.npy: expected real numbers, got complex128"),
        (["--scores", "b.npy"], "b.npy: expected real numbers, got bool"),
        (["--scores", "fine.npy"], "fine.npy: in float32, which this command computes in"),
        (["--text", "huge.npy", "--video", "v.npy"], "huge.npy: expected numbers below 3.4e38"),
        (["--text", "t.npy", "--video", "v.npy", "--video-of-text", "of.npy"],
         "of.npy: expected integers, got float64"),
        (["--text", "t.npy", "--video", "v.npy", "--video-of-text", "b4.npy"],
         "b4.npy: expected integers, got bool"),
        (["--embeddings", "run.npz"], "video_of_text: expected integers, got float64"),
    ],
)
def test_bad_files_exit_with_one_sentence(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", np.ones((4, 3)))
    np.save("v.npy", np.ones((4, 3)))
    np.save("wide.npy", np.ones((4, 5)))
    np.save("nan.npy", np.full((4, 3), np.nan))
    np.save("i.npy", np.full((4, 3), 1 + 1j))
    np.save("b.npy", np.ones((4, 3), bool))
    np.save("b4.npy", np.ones(4, bool))
    np.save("of.npy", np.arange(4) + 0.5)
    np.save("huge.npy", np.full((4, 3), 1e300))
    np.save("fine.npy", 1 + 1e-12 * np.arange(16.0).reshape(4, 4))
    names = ("text", "video", "video_of_text")
    run = {prefix + name: np.ones((4, 3)) for prefix in ("", "bank_") for name in names}
    np.savez("run.npz", **run)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04junk")
    assert normalize.main(arguments) == 2
    said = capsys.readouterr().err.removeprefix("importing JAX ...\n")
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="NCL_REAL_DATA is not set")
def test_auto_on_real_embeddings_gains_three_points():
    video, text = map(unit, np.load(pathlib.Path(REAL) / "embeddings" / "features_clip.npy"))
    gains = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(500)
        a, b = order[:250], order[250:]
        fitted = normalizers.Auto().fit(Bank(text[a], video[a]), video[b])
        assert fitted.evidence["choice"] != "none"
        plain = normalizers.Plain().fit(None, video[b])
        gains.append(metrics.text_to_video(fitted.lazy(text[b]), np.arange(250))["R@1"]
                     - metrics.text_to_video(plain.lazy(text[b]), np.arange(250))["R@1"])
    assert np.mean(gains) >= 3


def test_constructors_document_themselves():
    for name, constructor in NORMALIZERS.items():
        assert inspect.getdoc(constructor), name


@pytest.mark.parametrize("memory", [1e9, 0.0])
@pytest.mark.parametrize("strength", [0.05, 0.2, 0.5])
def test_the_host_solver_holds_at_high_scale_and_small_strength(memory, strength):
    """Weights of the rows are spread over e^500 there: sums with their own maxima take over."""
    rng = np.random.default_rng(0)
    query, gallery = (np.float32(unit(rng.normal(size=(60, 8)))) for _ in range(2))
    biases, report = numpy_solver.balance(query, gallery, 600.0, 4, strength, memory)
    one = np.ones(60)
    logit = 600.0 * np.float64(query) @ np.float64(gallery).T
    a, b = numerics.sinkhorn(logit, one, one, 4, strength=strength)
    np.testing.assert_allclose(biases.video, b, atol=1e-3)
    np.testing.assert_allclose(biases.text, a, atol=1e-3)
    exact = -strength * np.logaddexp.reduce(logit + b, axis=1)
    assert bool(report.converged) == (np.abs(np.expm1(a - exact)).max() < 1e-3)
