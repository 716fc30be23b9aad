"""Cleaning, coverage and truncation of the tokenizer."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ncl_jax.data.tokenizer import END, START, Tokenizer, clean

CAPTIONS = ["a red ball moves left", "two small stars spin", "a red square moves right"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CAPTIONS, vocab_size=600)


def test_clean_is_clips_cleaning():
    assert clean("  A  dog &amp;amp; a\tCAT\n") == "a dog & a cat"
    assert clean("schÃ¶n") == "schön"


def test_start_words_end_padding(tokenizer):
    ids, mask = tokenizer(["a red ball", ""], 8)
    start, end = (tokenizer._backend.token_to_id(t) for t in (START, END))
    assert ids.shape == mask.shape == (2, 8)
    assert list(ids[0, [0, 4]]) == [start, end]
    assert mask.sum(1).tolist() == [5, 2]
    assert not ids[~mask].any()


def test_truncation_keeps_the_end_token(tokenizer):
    ids, mask = tokenizer(["ball " * 50], 6)
    assert mask.all()
    assert ids[0, -1] == tokenizer._backend.token_to_id(END)


def test_no_text_is_lost(tokenizer):
    """Letters that no training caption ends with, other alphabets and symbols have tokens."""
    for word in ("zx", "é", "日本", "q7!", "🙂"):
        tokens = tokenizer._backend.encode(word).tokens
        decoded = "".join(t.removesuffix("</w>") for t in tokens)
        known = "".join(Tokenizer.train([word], 600)._backend.encode(word).tokens)
        assert decoded == known.replace("</w>", ""), word


def test_frequent_words_become_one_token(tokenizer):
    assert len(tokenizer._backend.encode("moves").tokens) == 1
    assert len(tokenizer._backend.encode("ballxmoves").tokens) > 1


def test_round_trip_through_json(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json())
    again = Tokenizer.load(path)
    assert again.vocab_size == tokenizer.vocab_size
    np.testing.assert_array_equal(again(CAPTIONS, 12)[0], tokenizer(CAPTIONS, 12)[0])


def test_a_published_files_own_padding_and_specials_are_not_doubled(tokenizer):
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import TemplateProcessing

    backend = Backend.from_str(tokenizer.to_json())
    pairs = [(t, backend.token_to_id(t)) for t in (START, END)]
    backend.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=pairs)
    backend.enable_padding(length=12)
    backend.enable_truncation(5)
    text = ["a red ball moves left"]
    for ours, theirs in zip(tokenizer(text, 12), Tokenizer(backend)(text, 12), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_learning_is_the_same_in_every_process(tokenizer):
    code = (
        "import sys, json; from ncl_jax.data.tokenizer import Tokenizer;"
        "print(Tokenizer.train(json.load(sys.stdin), 600).to_json())"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(CAPTIONS), text=True,
            capture_output=True, check=True, cwd=pathlib.Path(__file__).parents[1],
        )  # fmt: skip
        assert done.stdout.strip() == tokenizer.to_json()


def test_bad_input_is_named(tokenizer):
    with pytest.raises(ValueError, match="at least 514, got 100"):
        Tokenizer.train(CAPTIONS, 100)
    with pytest.raises(ValueError, match="length of at least 2"):
        tokenizer(["a"], 1)
    with pytest.raises(ValueError, match=r"expected the text of a tokenizer\.json"):
        Tokenizer.from_json("{")
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    with pytest.raises(ValueError, match="expected the special tokens"):
        Tokenizer(Backend(models.BPE()))
