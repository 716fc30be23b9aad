"""Which banks a config has, what is refused before anything is built, and what is held out."""

import re

import numpy as np
import pytest

from configs import demo
from ncl_jax.data.records import Split, hold_out
from ncl_jax.evaluation.banks import make_banks
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.experiment import banks, build, renamed, results
from ncl_jax.experiment.run import MAY_CHANGE
from ncl_jax.training.run_state import check_same_run


def config_with(**changes):
    config = demo.get_config()
    config.update_from_flattened_dict(changes)
    return config


# -- held out of training --------------------------------------------------------------------------


def split_of(ids, captions_per_clip=2):
    of = np.repeat(np.arange(len(ids)), captions_per_clip)
    records = [{"frames": [name.encode()]} for name in ids]
    captions = [f"{ids[v]} caption {i}" for i, v in enumerate(of)]
    return Split(records, list(ids), captions, of.astype(np.int32))


IDS = [f"clip{i:02}" for i in range(20)]


@pytest.mark.parametrize(("share", "count"), [(0.05, 1), (0.25, 5), (0.5, 10)])
def test_clips_are_held_out_with_all_their_captions(share, count):
    whole = split_of(IDS)
    parts = hold_out(whole, share, seed=3)
    assert [len(part.video_ids) for part in parts] == [20 - count, count]
    assert sorted(parts[0].video_ids + parts[1].video_ids) == IDS
    for part in parts:
        assert len(part.captions) == 2 * len(part.video_ids)
        for caption, video in zip(part.captions, part.video_of_text, strict=True):
            assert caption.startswith(part.video_ids[video])
        for place, name in enumerate(part.video_ids):
            assert part.jpegs(place) == [name.encode()]  # the frames of the same clip
    assert part.video_of_text.dtype == whole.video_of_text.dtype


def test_what_is_held_out_depends_on_the_seed_and_not_on_the_order_of_records():
    held = {seed: hold_out(split_of(IDS), 0.25, seed)[1].video_ids for seed in range(4)}
    assert len({tuple(ids) for ids in held.values()}) == 4
    for seed, ids in held.items():
        turned = hold_out(split_of(IDS[::-1]), 0.25, seed)[1].video_ids
        assert sorted(turned) == sorted(ids)
        assert hold_out(split_of(IDS), 0.25, seed)[1].video_ids == ids


@pytest.mark.parametrize(("ids", "share"), [(IDS, 0.02), (IDS[:1], 0.5)])
def test_a_share_of_no_clip_is_refused(ids, share):
    with pytest.raises(ValueError, match=r"data.bank_holdout=.*: expected a share that holds out"):
        hold_out(split_of(ids), share, 0)


# -- what may be asked for -------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "said"), [
    ({"data.bank_holdout": -0.1}, "data.bank_holdout: expected a share in [0, 0.5], got -0.1"),
    ({"data.bank_holdout": 0.6}, "data.bank_holdout: expected a share in [0, 0.5], got 0.6"),
    ({"eval.bank": "holdout"}, "eval.bank=holdout: expected data.bank_holdout above 0, got 0"),
    ({"eval.bank": "validation", "data.validation_split": ""},
     "eval.bank=validation: expected data.validation_split to name a split"),
    ({"eval.bank": "validation", "data.validation_split": "test"}, "other than data.test_split"),
    ({"eval.bank": "auto", "data.validation_split": ""},
     "eval.bank=auto: expected several banks, got the train split alone"),
    ({"eval.bank": "auto", "model.temporal": "tightTransf"},
     "eval.bank=auto: expected a head whose clips have vectors, got model.temporal=tightTransf"),
    ({"eval.online": True, "model.temporal": "tightTransf"}, "eval.online=True: expected a head"),
    ({"eval.online_every": 0}, "eval.online_every: expected at least 1 query, got 0"),
    ({"eval.bank": "trian"}, "expected train, validation, holdout, auto or a file of captions, "
                             "got 'trian'"),
    ({"eval.bank": "captions.pdf"}, "eval.bank captions.pdf: expected .txt, .csv, .tsv, .npy"),
])  # fmt: skip
def test_what_does_not_go_together_is_one_sentence(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        build.validate_config(config_with(**changes))


def test_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(OSError, match=r"none\.txt"):
        build.validate_config(config_with(**{"eval.bank": str(tmp_path / "none.txt")}))


@pytest.mark.parametrize(("changes", "there"), [
    ({}, ["train", "validation"]),
    ({"data.validation_split": ""}, ["train"]),
    ({"data.validation_split": "test"}, ["train"]),
    ({"data.bank_holdout": 0.1}, ["train", "validation", "holdout"]),
])  # fmt: skip
def test_banks_that_exist(changes, there):
    config = config_with(**changes)
    assert banks.existing(config) == there
    build.validate_config(config)


@pytest.mark.parametrize("asked", ["validation", "auto"])
def test_a_bank_of_test_clips_is_refused(asked):
    splits = {"val": split_of(["a", "b"]), "test": split_of(["c", "b"])}
    with pytest.raises(ValueError, match=rf"eval.bank={asked}: expected no clip of .* got 1 \(b\)"):
        build._check_apart(config_with(**{"eval.bank": asked}), splits)
    build._check_apart(config_with(), splits)  # the train bank does not look at it


# -- what is gathered ------------------------------------------------------------------------------


def embedded(clips, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3 * clips, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = [f"{seed}-{i}" for i in range(clips)]
    of = np.repeat(np.arange(clips), 2)
    return Embedded(rows[clips:], rows[:clips], of, ids, [f"text {i}" for i in range(2 * clips)])


SPLITS = {"train": embedded(9, 0), "validation": embedded(4, 1), "holdout": embedded(3, 2)}


def gathered(given=None, **changes):
    asked = []

    def embed(name):
        asked.append(name)
        return SPLITS[name]

    def encode(captions):
        return np.eye(len(captions), 8, dtype=np.float32)

    found = banks.gather(config_with(**changes), embed, encode, given)
    return found, asked


@pytest.mark.parametrize(("changes", "asked", "text", "video"), [
    ({}, ["train"], {"train": None}, {"train": None}),
    ({"eval.bank": "validation"}, ["validation"], {"validation": None}, {"validation": None}),
    ({"eval.bank": "holdout", "data.bank_holdout": 0.2}, ["holdout"], {"holdout": None},
     {"holdout": None}),
    ({"eval.bank": "auto"}, ["train", "validation"], {"train": 18, "validation": None},
     {"train": 9, "validation": None}),
    ({"eval.bank": "auto", "data.bank_holdout": 0.2}, ["train", "validation", "holdout"],
     {"train": 18, "validation": 8, "holdout": None},
     {"train": 9, "validation": 4, "holdout": None}),
])  # fmt: skip
def test_only_the_banks_asked_for_are_embedded_and_unseen_pairs_judge(changes, asked, text, video):
    """None: the queries of the pairs on which all banks are tried."""
    found, order = gathered(**changes)
    assert order == asked
    for side, wanted in ((found.banks.text, text), (found.banks.video, video)):
        sizes = {name: None if rows is None else len(rows) for name, rows in side.queries.items()}
        assert sizes == wanted
    own = next(name for name, size in text.items() if size is None)
    np.testing.assert_array_equal(found.banks.text.of(own), SPLITS[own].text)
    np.testing.assert_array_equal(found.banks.video.of(own), SPLITS[own].video)
    for name in text:
        rows, words = found.queries(name)
        np.testing.assert_array_equal(rows, SPLITS[name].text)
        assert words == SPLITS[name].captions


@pytest.mark.parametrize("kind", ["txt", "npy"])
def test_a_file_serves_text_to_video_and_the_train_clips_the_other_way(tmp_path, kind):
    path = tmp_path / f"mine.{kind}"
    if kind == "txt":
        path.write_text("one\ntwo\nthree\n")
    else:
        np.save(path, 3 * np.eye(3, 8))
    changes = {"eval.bank": str(path)}
    given = banks.read(config_with(**changes))
    found, order = gathered(given, **changes)
    assert order == ["train", "validation"]  # `auto` tries it on pairs that were not trained on
    np.testing.assert_array_equal(found.banks.text.queries["mine." + kind], np.eye(3, 8))
    np.testing.assert_array_equal(found.banks.text.pairs.query, SPLITS["validation"].text)
    assert found.banks.video.queries == {"train": None}
    np.testing.assert_array_equal(found.banks.video.of("train"), SPLITS["train"].video)
    assert found.queries("mine." + kind)[1] == (["one", "two", "three"] if kind == "txt" else [])
    assert found.pairs("mine." + kind) is found.splits["train"]


@pytest.mark.parametrize("rows", [np.ones((2, 3)), np.zeros((2, 8)), np.full((2, 8), np.nan)])
def test_embeddings_that_do_not_fit_are_refused(tmp_path, rows):
    np.save(tmp_path / "mine.npy", rows)
    changes = {"eval.bank": str(tmp_path / "mine.npy")}
    with pytest.raises(ValueError, match=r"eval.bank: expected finite embeddings \[caption, 8\]"):
        gathered(banks.read(config_with(**changes)), **changes)


def test_the_sample_is_of_the_bank_asked_for():
    found, _ = gathered(**{"eval.bank": "validation", "eval.bank_clips": 2})
    assert len(found.splits["validation"].video) == 2
    assert len(found.banks.video.of("validation")) == 2


def test_a_doubled_clip_and_a_missing_name_stop():
    twice = SPLITS["train"]._replace(video_ids=["a"] * 9)
    with pytest.raises(ValueError, match="doubled"):
        make_banks({"train": twice}, "train", ["train"])
    with pytest.raises(ValueError, match="bank 'validation': expected one of train"):
        make_banks({"train": SPLITS["train"]}, "validation", ["train"])


# -- going on, and telling -------------------------------------------------------------------------


def test_another_share_does_not_go_on_and_a_run_from_before_does(tmp_path):
    was = {"config": config_with(**{"data.bank_holdout": 0.25}).to_dict(), "captions": 10}
    now = {"config": config_with().to_dict(), "captions": 12}
    with pytest.raises(ValueError, match=r"holds another run: config.data.bank_holdout was 0.25, "):
        check_same_run(now, was, tmp_path, MAY_CHANGE)
    before = demo.get_config().to_dict()
    for key in renamed.ADDED:
        section, _, name = key.partition(".")
        del before[section][name]
    check_same_run(now, {"config": renamed.updated(before), "captions": 12}, tmp_path, MAY_CHANGE)
    other = {"config": config_with(**{"eval.bank": "validation", "eval.online": True}).to_dict(),
             "captions": 12}  # fmt: skip
    check_same_run(other, now, tmp_path, MAY_CHANGE)  # the bank may change, the weights do not


def test_rows_name_their_bank():
    def metrics(text, video):
        return {"bank": {"text_to_video": {"source": text}, "video_to_text": {"source": video}},
                "counts": {"bank": {"texts": 1200, "videos": 100}}}  # fmt: skip

    one = metrics("holdout", "holdout")
    name = "normalised, held-out bank (inductive)"
    assert results.row_name("inductive", "text_to_video", [one]) == name
    assert results.bank_line(one) == "1,200 captions of 100 clips held out of training"
    mixed = metrics("mine.txt", "train")
    assert results.row_name("inductive", "text_to_video", [mixed]) == (
        "normalised, mine.txt bank (inductive)")
    assert results.bank_line(mixed) == (
        "1,200 captions from mine.txt; from video to text 100 training clips")
    assert results.bank_line(metrics("validation", "train")) == (
        "1,200 captions of validation clips; from video to text 100 training clips")
    assert results.row_name("inductive", "text_to_video", [one, mixed]) == (
        results.ROWS["inductive"])
    old = {"counts": {"bank": {"texts": 5, "videos": 3}}}
    assert results.bank_line(old) == "5 captions of 3 training clips"


def test_the_bank_of_auto_is_told():
    evidence = {"source": "holdout", "banks": {}, "choice": "none", "held_out_R@1": 5.0,
                "held_out_plain_R@1": 6.0}  # fmt: skip
    said = results._choice("text -> video", evidence)
    assert said.startswith("auto, text -> video, held-out bank: none")
