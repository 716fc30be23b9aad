"""A model to hold: its numbers against the towers called by hand, its ways out and in again."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re

import jax
import numpy as np
import pytest
import scipy.special

import ncl_jax
from ncl_jax import normalizers
from ncl_jax.data.clips import clip_frames
from ncl_jax.index import RetrievalIndex
from ncl_jax.models import clip
from ncl_jax.pretrained import checkpoint, encoders, random_weights, saving
from ncl_jax.pretrained.checkpoint import CaptionBank
from tests.video_search.gallery_test import write_video

TEXTS = ["a red ball", "two blue cubes", "a dog runs on the beach", "a red ball"]


def frames(seed, count=5, height=40, width=64):
    return np.random.default_rng(seed).integers(0, 255, (count, height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_weights.write(tmp_path_factory.mktemp("tiny"), temporal="seqTransf")


@pytest.fixture(scope="module")
def model(folder):
    return ncl_jax.load(folder)


@pytest.fixture(scope="module")
def banked(model):
    """The same model with captions that it was trained on."""
    captions = [f"caption {number}" for number in range(7)]
    rows = model.encode_text(captions)
    bank = CaptionBank(rows, np.linspace(-1, 1, 7).astype(np.float32), captions)
    results = {
        "run": {"name": "balls", "seed": 3, "step": 9, "seconds": {"data": 1}},
        "config": {"data": {"builder": "demo", "test_split": "test", "data_dir": "/home/me/data"}},
        "metrics": {
            "counts": {"test": {"texts": 40, "videos": 20}, "bank": {"texts": 7, "videos": 3}},
            "rules": {"ties": "average", "video_to_text": "group_max"},
            "text_to_video": {"plain": {"R@1": 47.25}, "inductive": {"R@1": 44.5}},
        },
        "files": {"index": "/home/me/runs/index"},
    }
    return ncl_jax.pretrained.Model(model.checkpoint._replace(bank=bank, results=results))


def test_texts_are_what_the_tower_gives(model):
    rows = model.encode_text(TEXTS, batch_size=2)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(rows[0], rows[3])
    own = model.checkpoint
    by_hand = jax.jit(own.towers.encode_text)(own.params, *own.tokenizer(TEXTS, model.max_tokens))
    np.testing.assert_allclose(rows, by_hand, atol=1e-6)


def test_a_long_text_takes_the_long_program_to_the_same_rows(model):
    """Texts of up to 32 tokens are not padded to 77."""
    long = " ".join(["ball"] * 60)
    together, alone = model.encode_text(["a red ball", long]), model.encode_text(["a red ball"])
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)
    own = model.checkpoint
    by_hand = jax.jit(own.towers.encode_text)(own.params, *own.tokenizer([long], 77))
    np.testing.assert_allclose(together[1], by_hand[0], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_arrays_are_what_the_tower_gives(model, batch_size):
    clips = [frames(1), frames(2, count=30), frames(3, count=1, height=32, width=32), frames(4)]
    rows = model.encode_video(clips, batch_size=batch_size)
    own, given = model.checkpoint, model.preprocessing
    seen = [clip_frames(c, given.shapes, given.view, np.random.default_rng(0)) for c in clips]
    batch = map(np.stack, zip(*seen, strict=True))
    by_hand = jax.jit(own.towers.encode_video)(own.params, *batch)
    np.testing.assert_allclose(rows, by_hand, atol=1e-6)


def test_pictures_of_many_clips_are_not_decoded_at_once(model, monkeypatch):
    """A film has hundreds of windows; those of one batch and one chunk are in memory."""
    decoded, seen = [], encoders._chunks

    def chunks(clips, size):
        for number, pictures in enumerate(clips):
            assert len(decoded) <= number + 4
            yield from seen([pictures], size)

    monkeypatch.setattr(encoders, "_chunks", chunks)
    monkeypatch.setattr(
        encoders, "clip_frames", lambda *given: decoded.append(1) or clip_frames(*given)
    )
    rows = model.encode_frames([frames(n, count=1) for n in range(20)], batch_size=4)
    assert (rows.shape, len(decoded)) == ((20, 16), 20)


def test_files_arrays_and_windows(model, tmp_path):
    long = write_video(tmp_path / "long.mp4", [40] * 10 + [200] * 16)
    short = write_video(tmp_path / "short.mp4", [90] * 3)
    rows = model.encode_video([str(long), frames(1), short])
    np.testing.assert_allclose(rows[1], model.encode_video([frames(1)])[0], atol=1e-6)
    np.testing.assert_allclose(rows[[0, 2]], model.encode_video([long, short]), atol=1e-6)
    parts = model.encode_video([long, short], window=10.0)
    assert parts.video.tolist() == [0, 0, 0, 1]
    assert parts.start.tolist() == [0.0, 10.0, 20.0, 0.0]
    assert parts.end.tolist() == [10.0, 20.0, 26.0, 3.0]
    np.testing.assert_allclose(parts.embedding[3], rows[2], atol=1e-6)
    alone = write_video(tmp_path / "begin.mp4", [40] * 10)
    np.testing.assert_allclose(
        parts.embedding[0], model.encode_video([alone])[0], atol=0.02
    )  # compressed anew


@pytest.mark.slow
def test_many_threads_get_the_rows_of_one(model):
    queries = [[f"text {n} {m}" for m in range(n % 3 + 1)] for n in range(24)]
    expected = [model.encode_text(texts) for texts in queries]
    clips = model.encode_video([frames(5)])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = pool.map(model.encode_text, queries)
        videos = pool.map(lambda _: model.encode_video([frames(5)]), range(8))
        for rows, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(rows, right, atol=1e-6)
        for rows in videos:
            np.testing.assert_allclose(rows, clips, atol=1e-6)


def test_parameters_are_on_every_device(model):
    devices = {leaf.sharding.device_set == set(jax.local_devices())
               for leaf in jax.tree.leaves(model.checkpoint.params)}  # fmt: skip
    assert devices == {True}


@pytest.mark.slow
def test_bfloat16_is_near(model, folder):
    coarse = ncl_jax.load(folder, dtype="bfloat16")
    rows, near = model.encode_text(TEXTS), coarse.encode_text(TEXTS)
    assert 1e-6 < np.abs(rows - near).max() < 0.05
    assert near.dtype == np.float32
    assert coarse.fingerprint != model.fingerprint


def test_rank_is_the_normaliser(model, banked):
    text, video = model.encode_text(TEXTS), model.encode_video([frames(n) for n in range(6)])
    np.testing.assert_allclose(model.similarity(text, video), text @ video.T, atol=1e-6)
    plain = model.rank(text, video)
    np.testing.assert_allclose(plain.scores, model.scale * text @ video.T, atol=1e-4)
    assert plain.evidence["source"] == "no bank: plain scores"
    captions = [f"caption {number}" for number in range(7)]
    bank = normalizers.Bank(model.encode_text(captions))
    right = normalizers.Ncl(model.scale).fit(bank, video).score(text)
    for ranked, source in (
        (model.rank(text, video, bank=captions), "7 texts"),
        (model.rank(text, video, bank=bank.query), "7 embeddings"),
        (banked.rank(text, video), "7 training captions"),
    ):
        np.testing.assert_allclose(ranked.scores, right, atol=1e-4)
        assert ranked.evidence["source"] == source
        assert (ranked.evidence["normalizer"], ranked.evidence["kind"]) == ("Ncl", "inductive")
    assert ranked.top(2).tolist() == np.argsort(-ranked.scores, axis=1)[:, :2].tolist()
    csls = banked.rank(text, video, normalizer=normalizers.Csls())
    assert csls.evidence["normalizer"] == "Csls"
    assert not np.allclose(csls.scores, right)


def test_a_saved_model_is_the_same_model(banked, tmp_path):
    banked.save_pretrained(tmp_path / "saved")
    again = ncl_jax.load(str(tmp_path / "saved"))
    assert again.fingerprint == banked.fingerprint
    clips = [frames(1), frames(2)]
    np.testing.assert_array_equal(again.encode_text(TEXTS), banked.encode_text(TEXTS))
    np.testing.assert_array_equal(again.encode_video(clips), banked.encode_video(clips))
    for field in ("text", "bias", "captions"):
        np.testing.assert_array_equal(getattr(again.bank, field), getattr(banked.bank, field))
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        banked.save_pretrained(tmp_path / "saved")


def test_a_head_of_other_attention_heads_than_the_text_tower_is_kept(model, tmp_path):
    """No weight's shape tells how many there are."""
    own = model.checkpoint
    sizes = dataclasses.replace(own.sizes, temporal_heads=8)
    other = ncl_jax.pretrained.Model(own._replace(sizes=sizes, towers=clip.abstract(sizes)[0]))
    other.save_pretrained(tmp_path / "saved")
    again = ncl_jax.load(tmp_path / "saved")
    rows = again.encode_video([frames(1)])
    np.testing.assert_array_equal(rows, other.encode_video([frames(1)]))
    assert np.abs(rows - model.encode_video([frames(1)])).max() > 1e-6


def test_the_model_card_says_what_was_measured_and_no_more(banked, tmp_path):
    banked.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "40 captions of 20 clips; bank: 7 captions of 3 training clips; ties: average" in card
    assert "| plain cosine | 47.2 |" in card
    assert "| normalised by the bank | 44.5 |" in card
    assert card.count("FILL IN") == 4
    written = card + (tmp_path / "saved" / "ncl_jax.json").read_text()
    assert "/home/me" not in written


def test_the_rule_on_the_card_is_that_of_an_index(banked):
    """-logsumexp(scale * text @ v + bias) is the bias of a clip that is added, but a constant."""
    video = banked.encode_video([frames(n) for n in range(5)])
    index = RetrievalIndex.build(list("abcde"), video, banked.bank.text, scale=banked.scale)
    by_card = -scipy.special.logsumexp(
        banked.scale * banked.bank.text @ video.T + index.bank_bias[:, None], axis=0
    )
    np.testing.assert_allclose(by_card - by_card[0], index.bias - index.bias[0], atol=1e-3)


def test_it_prints_what_it_is(banked):
    assert re.fullmatch(
        r"Model\('.*': CLIP of 1 and 1 layers, seqTransf over up to 12 frames of 32 pixels at 1 "
        r"per second, 77 tokens, 16 dimensions, [\d,]+ parameters, float32, scale 100.0, bank: 7 "
        r"training captions\)",
        repr(banked),
    )


def test_another_vocabulary_beside_the_weights_serves(folder, tmp_path):
    """vocab.json and merges.txt, as older repositories have them."""
    for name in ("model.safetensors", "config.json", "head.safetensors"):
        (tmp_path / name).write_bytes(pathlib.Path(folder, name).read_bytes())
    table = json.loads(pathlib.Path(folder, "tokenizer.json").read_text())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in table["merges"]]
    vocab = table["vocab"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    assert ncl_jax.load(tmp_path).encode_text(TEXTS).shape == (4, 16)


def test_a_model_of_another_format_is_refused(banked, tmp_path):
    banked.save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "ncl_jax.json"
    content = path.read_text()
    for old, new, said in (
        ('"max_frames": 12', '"max_frames": 13', "the weights take at most"),
        ('"fps": 1.0', '"fps": "x"', "fps: expected frames per second above 0"),
        ('"frames"', '"pictures"', "expected the preprocessing of a model"),
        ('"format": 1', '"format": 2', "expected format 1, got 2; update ncl_jax"),
        ("{", "[", "expected JSON"),
    ):
        assert old in content
        path.write_text(content.replace(old, new, 1))
        with pytest.raises(ValueError, match=re.escape(said)):
            checkpoint.read(str(tmp_path / "saved"))


BAD = {
    "no list of texts": (lambda m: m.encode_text("a dog"), "expected a list of texts, got one"),
    "no text": (lambda m: m.encode_text([]), "expected at least one text"),
    "a number": (lambda m: m.encode_text(["a", 3]), r"texts[1]: expected a text, got int"),
    "half a pair": (lambda m: m.encode_text(["\ud83d"]), "half of a surrogate pair"),
    "batches of none": (lambda m: m.encode_text(["a"], batch_size=0), "expected at least 1"),
    "no list of videos": (lambda m: m.encode_video("a.mp4"), "expected a list of videos"),
    "one array": (lambda m: m.encode_video(frames(1)), "expected a list of videos"),
    "no video": (lambda m: m.encode_video([]), "expected at least one video"),
    "no file": (lambda m: m.encode_video(["no.mp4"]), "there is no file no.mp4"),
    "a folder": (lambda m: m.encode_video([os.curdir]), "expected a video file"),
    "no video file": (lambda m: m.encode_video([__file__]), "expected a readable video"),
    "floats": (lambda m: m.encode_video([frames(1) / 255]), "got float64 [5, 40, 64, 3]"),
    "channels first": (
        lambda m: m.encode_video([frames(1).transpose(0, 3, 1, 2)]), "got uint8 [5, 3, 40, 64]",
    ),
    "no frames": (lambda m: m.encode_video([frames(1)[:0]]), "got uint8 [0, 40, 64, 3]"),
    "one picture": (lambda m: m.encode_video([frames(1)[0]]), "got uint8 [40, 64, 3]"),
    "no clips": (lambda m: m.encode_frames([]), "expected at least one clip"),
    "a clip of nothing": (lambda m: m.encode_frames([[]]), "and frames in each"),
    "None": (lambda m: m.encode_video([None]), "expected a path or an array, got NoneType"),
    "short windows": (lambda m: m.encode_video([__file__], window=0.5), "seconds from 1, got 0.5"),
    "an array's windows": (
        lambda m: m.encode_video([frames(1)], window=2.0), "a window needs times",
    ),
    "another width": (
        lambda m: m.similarity(np.ones((2, 3)), np.ones((2, 16))), "embeddings [row, 16]",
    ),
    "NaN": (
        lambda m: m.similarity(np.full((1, 16), np.nan), np.ones((2, 16))), "finite numbers",
    ),
    "an empty bank": (
        lambda m: m.rank(np.ones((1, 16)), np.ones((2, 16)), bank=[]), "at least one text",
    ),
    "a bank without items": (
        lambda m: m.rank(np.ones((1, 16)), np.eye(16), bank=["a"], normalizer=normalizers.Auto()),
        "items",
    ),
    "another type": (lambda m: ncl_jax.load(m.checkpoint.source, dtype="int8"), "expected one of"),
    "no repository": (lambda m: m.push_to_hub("my model"), "as owner/model"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(model, unchecked, name, monkeypatch, tmp_path):
    call, said = BAD[name]
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        call(model)
    assert "\n" not in str(raised.value)


def test_a_head_that_scores_pairs_is_refused_but_saved(tmp_path):
    folder = random_weights.write(tmp_path / "pairs", temporal="tightTransf")
    with pytest.raises(ValueError, match="its head tightTransf scores pairs"):
        ncl_jax.load(folder)
    saving.save(checkpoint.read(folder), tmp_path / "out")
    assert (tmp_path / "out" / "head.safetensors").exists()


def test_weights_without_a_vocabulary_are_refused(folder, tmp_path):
    for name in ("model.safetensors", "config.json", "head.safetensors"):
        (tmp_path / name).write_bytes(pathlib.Path(folder, name).read_bytes())
    with pytest.raises(ValueError, match=re.escape("expected tokenizer.json (or vocab.json")):
        ncl_jax.load(tmp_path)
