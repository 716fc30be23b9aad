"""Evaluation on small hand-made embeddings, against plain loops."""

import numpy as np
import pytest
from etils import epath

from ncl_jax import metrics
from ncl_jax.cli import metrics as cli_metrics
from ncl_jax.cli import normalize as cli_normalize
from ncl_jax.evaluation import embeddings, evaluate
from ncl_jax.evaluation.banks import bank_of, make_banks
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.evaluation.scorers import ORDER, CosineScorer, PairScorer
from ncl_jax.normalizers import Bank, Ncl, Online
from ncl_jax.normalizers.auto import choose_bank

RNG = np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def split(texts_per_video, noise=0.7, videos=12, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    video = unit(rng.normal(size=(videos, dim)))
    of = np.repeat(np.arange(videos), texts_per_video)
    text = unit(video[of] + noise * rng.normal(size=(len(of), dim)))
    return Embedded(text, video, of, [f"clip {i}" for i in range(videos)])


def test_plain_rows_are_the_loop_over_queries():
    test = split(3)
    found = evaluate.evaluate(test, bank_of(split(3, seed=1)), CosineScorer(20.0), 4).metrics
    scores = test.text @ test.video.T
    ranks = [1 + sum(row > row[v]) for row, v in zip(scores, test.video_of_text, strict=True)]
    assert found["text_to_video"]["plain"]["R@1"] == pytest.approx(
        100 * np.mean(np.equal(ranks, 1))
    )
    assert found["text_to_video"]["plain"]["MnR"] == pytest.approx(np.mean(ranks))
    groups = np.array([scores[test.video_of_text == v].max(axis=0) for v in range(12)])
    ranks = [1 + sum(groups[:, v] > groups[v, v]) for v in range(12)]
    assert found["video_to_text"]["plain"]["MnR"] == pytest.approx(np.mean(ranks))


def test_the_bank_matters_to_inductive_and_test_queries_to_transductive():
    test, banks = split(3), [split(3, seed=s) for s in (1, 2)]
    first, second = (
        evaluate.evaluate(test, bank_of(bank), CosineScorer(20.0), 4).metrics for bank in banks
    )
    for direction in ("text_to_video", "video_to_text"):
        assert first[direction]["plain"] == second[direction]["plain"]
        assert first[direction]["transductive"] == second[direction]["transductive"]
        assert first[direction]["inductive"] != second[direction]["inductive"]
        errors = {k: v["norm_error_mean"] for k, v in first[direction].items()}
        assert errors["transductive"] < errors["plain"]


def test_a_hub_is_levelled_by_the_bank():
    """One clip near the mean caption answers everything until the bank's bias holds it back."""
    test, bank = split(4, noise=0.4), split(4, noise=0.4, seed=1)
    shift = 3 * unit(np.ones((1, 8)))
    crowd = test._replace(text=unit(test.text + shift), video=test.video.copy())
    crowd.video[0] = unit(np.ones((1, 8)))[0]
    found = evaluate.evaluate(
        crowd, bank_of(bank._replace(text=unit(bank.text + shift))), CosineScorer(20.0), 4
    ).metrics["text_to_video"]
    assert found["plain"]["R@1"] < 20
    assert found["inductive"]["R@1"] > found["plain"]["R@1"] + 10


def test_the_result_has_auto_hubness_and_both_public_rules():
    test, bank = split(3), split(3, videos=40, seed=1)
    found = evaluate.evaluate(test, bank_of(bank), CosineScorer(20.0), 4).metrics
    for direction in ("text_to_video", "video_to_text", "video_to_text_best_caption"):
        assert list(found[direction]) == ["plain", "inductive", "inductive_auto", "transductive"]
    for side in ("video", "text"):
        evidence = found["fit"]["inductive_auto"][side]
        assert evidence["choice"] in evidence["table"]
        assert evidence["held_out_queries"] == 40
        if evidence["choice"] == "none":
            direction = "text_to_video" if side == "video" else "video_to_text"
            assert found[direction]["inductive_auto"] == found[direction]["plain"]
    hubs = found["text_to_video"]["plain"]["hubness"]
    assert hubs["k=1"] == metrics.hubness(test.text @ test.video.T, 1)
    assert set(hubs) == {"k=1", "k=10"}
    assert found["video_to_text"]["plain"]["hubness"]["k=10"] == pytest.approx(
        metrics.hubness(test.video @ test.text.T, 10))
    assert found["video_to_text_best_caption"]["plain"]["MnR"] == metrics.video_to_text(
        test.text @ test.video.T, test.video_of_text, rule="best_caption")["MnR"]


def test_online_is_a_row_of_its_own_and_moves_no_other():
    test, bank = split(4, videos=20, noise=1.2), split(3, videos=40, seed=1, noise=1.2)
    hub = unit(np.ones((1, 8)))
    bank = bank._replace(text=unit(bank.text + hub))
    scorer = CosineScorer(20.0)
    without = evaluate.evaluate(test, bank_of(bank), scorer, 4).metrics
    found = evaluate.evaluate(test, bank_of(bank), scorer, 4, online=7).metrics
    for direction, side in (("text_to_video", "video"), ("video_to_text", "text")):
        row = found[direction].pop("online")
        assert found[direction] == without[direction]
        items, queries = (test.video, test.text) if side == "video" else (test.text, test.video)
        given = Bank(bank.text if side == "video" else bank.video)
        pairs = getattr(bank_of(bank), "text" if side == "video" else "video").pairs
        rule = choose_bank(pairs, {"train": None})[1].normalizer
        scores = Online(7, rule, ORDER).fit(given, items).score(queries)
        if side == "video":
            wanted = metrics.text_to_video(scores, test.video_of_text)
        else:
            wanted = metrics.video_to_text(scores.T, test.video_of_text)
        assert {name: row[name] for name in wanted} == pytest.approx(wanted)
        assert found["fit"]["online"][side]["every"] == 7
        assert found["fit"]["online"][side]["source"] == "train"


def test_of_several_banks_the_chosen_one_serves_every_row_and_is_named():
    """The train bank lies elsewhere, as a memorised one may; the held-out one is of the test's."""
    test, held = split(3, videos=30, noise=0.6), split(3, videos=60, seed=1, noise=0.6)
    shift = 2 * np.eye(8)[:1]
    test = test._replace(text=unit(test.text + shift))
    held = held._replace(text=unit(held.text + shift))
    far = split(3, videos=60, seed=2)
    far = far._replace(text=unit(far.text - 3 * shift), video=unit(far.video + 3 * shift))
    banks = make_banks({"train": far, "holdout": held}, "holdout", ["train", "holdout"])
    found = evaluate.evaluate(test, banks, CosineScorer(20.0), 4)
    assert found.metrics["bank"]["text_to_video"] == {"source": "holdout", "queries": 180}
    evidence = found.metrics["fit"]["inductive_auto"]["video"]
    assert evidence["source"] == "holdout"
    assert set(evidence["banks"]) == {"train", "holdout"}
    alone = evaluate.evaluate(test, bank_of(held, "holdout"), CosineScorer(20.0), 4)
    for row in ("inductive", "inductive_auto"):
        assert found.metrics["text_to_video"][row] == alone.metrics["text_to_video"][row]
    np.testing.assert_array_equal(found.biases.video, alone.biases.video)
    wanted = Ncl(20.0, 4).fit(Bank(held.text), test.video).bias
    np.testing.assert_allclose(found.biases.video, wanted, atol=1e-5)


def test_a_head_that_scores_pairs_has_one_bank_and_no_online_row():
    test, scorer = split(2), PairScorer(lambda text, video: text @ video.T, 8)
    two = make_banks({"train": split(2, seed=1), "validation": split(2, seed=2)}, "train",
                     ["train", "validation"])  # fmt: skip
    for banks, online in ((two, 0), (bank_of(split(2, seed=1)), 5)):
        with pytest.raises(ValueError, match="has one bank and no online row"):
            evaluate.evaluate(test, banks, scorer, 4, online)


def test_a_clip_that_comes_twice_stops_the_evaluation():
    test = split(3)
    doubled = test._replace(video_ids=["clip 1", *test.video_ids[1:]])
    with pytest.raises(ValueError, match=r"expected 11, got 12; 1 doubled \(clip 1\)"):
        evaluate.evaluate(doubled, bank_of(split(3, seed=1)), CosineScorer(20.0), 4)


def test_embeddings_of_a_run_feed_the_commands(tmp_path, capsys):
    test, bank = split(2), split(2, videos=30, seed=1)
    embeddings.save_embeddings(epath.Path(tmp_path) / "embeddings.npz", test, bank, 20.0)
    given = ["--embeddings", str(tmp_path / "embeddings.npz")]
    assert cli_metrics.main(given) == 0
    said = capsys.readouterr().out
    assert f"{metrics.text_to_video(test.text @ test.video.T, test.video_of_text)['MnR']:.2f}" in (
        said)
    assert cli_normalize.main([*given, "--samples", "1", "--direction", "v2t"]) == 0
    assert "| sinkhorn_test |" in capsys.readouterr().out
    (tmp_path / "embeddings.npz").write_bytes(b"PK")
    assert cli_metrics.main(given) == 2
    assert "cannot read" in capsys.readouterr().err


def test_equal_captions_are_embedded_once():
    calls = []

    def encode(captions):
        calls.append(captions)
        return np.arange(len(captions), dtype=np.float32)[:, None]

    rows = embeddings.embed_captions(["b", "a", "b", "c", "a"], encode)
    assert calls == [["a", "b", "c"]]
    assert rows[:, 0].tolist() == [1, 0, 1, 2, 0]


def test_embed_orders_by_id_and_refuses_missing_and_repeated_rows():
    def batch(*ids):
        return np.asarray(ids), np.asarray(ids, np.float32)[:, None] * [1.0, 10.0]

    batches = [batch(3, 1, -1), batch(-1, 2, 0)]
    found = embeddings.embed(lambda ids, rows: (ids, rows), batches, 4)
    np.testing.assert_array_equal(found, [[0, 0], [1, 10], [2, 20], [3, 30]])
    for wrong, told in (
        ([*batches, batch(1)], "0 missing and 1 repeated"),
        (batches[:1], "2 missing and 0 repeated"),
        ([], "4 missing"),
    ):
        with pytest.raises(ValueError, match=f"each of 4 rows to be embedded once, got .*{told}"):
            embeddings.embed(lambda ids, rows: (ids, rows), wrong, 4)


def test_order_accuracy_counts_wins_and_half_ties():
    video = unit(np.array([[1.0, 0], [0, 1], [1, 1]]))
    text = unit(np.array([[1.0, 0.1], [1, 0], [1, 1], [0.3, 0.2]]))
    test = Embedded(text, video, np.array([0, 1, 0, 2]), ["a", "b", "c"])
    found = evaluate.order_accuracy(test, [(0, 1)], video, CosineScorer(20.0))
    assert found["texts"] == 3  # clip 2 has no twin
    assert found["accuracy"] == pytest.approx(100 * (1 + 0 + 0.5) / 3)


def test_in_batch_error_falls_with_the_batchs_own_biases():
    train, scorer = split(4, videos=40), CosineScorer(20.0)
    error = evaluate.in_batch_error(train, scorer, 16, 4, seed=0)
    assert 0 < error["normalised"] < error["plain"] / 3
    assert error["plain"] == evaluate.in_batch_error(train, scorer, 16, 0, 0)["plain"]


def test_a_bank_is_a_sample_of_clips_and_captions():
    of = np.asarray([0, 0, 1, 1, 1, 2, 3, 3, 3, 3])
    split = Embedded(
        np.arange(10.0)[:, None], np.arange(4.0)[:, None], of, ["a", "b", "c", "d"],
        [f"caption {i}" for i in range(10)],
    )  # fmt: skip
    whole = embeddings.sample(split, 0, 0, seed=1)
    np.testing.assert_array_equal(whole.text, split.text)
    np.testing.assert_array_equal(whole.video_of_text, of)
    seen = set()
    for seed in range(20):
        bank = embeddings.sample(split, 2, 2, seed)
        assert len(bank.video) == len(bank.video_ids) == 2
        for text, clip in zip(bank.text[:, 0], bank.video_of_text, strict=True):
            assert bank.video[clip, 0] == of[int(text)]  # still its own clip
        assert list(bank.captions) == [f"caption {int(text)}" for text in bank.text[:, 0]]
        assert [bank.video_ids[i] for i in range(2)] == ["abcd"[int(v)] for v in bank.video[:, 0]]
        counts = np.bincount(bank.video_of_text, minlength=2)
        expected = [min(2, np.sum(of == v)) for v in bank.video[:, 0]]
        np.testing.assert_array_equal(counts, expected)
        seen |= set(bank.text[:, 0])
    assert seen == set(range(10))
    again = embeddings.sample(split, 2, 2, 7)
    np.testing.assert_array_equal(again.text, embeddings.sample(split, 2, 2, 7).text)
