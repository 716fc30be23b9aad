"""Cleaning, coverage and truncation of the tokenizer."""

import gzip
import json
import os
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


def write_tables(folder, vocab, merges):
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocab))
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_vocab_and_merges_are_the_same_tokenizer(tokenizer, tmp_path):
    content = json.loads(tokenizer.to_json())
    folder = write_tables(tmp_path / "t", content["model"]["vocab"], content["model"]["merges"])
    for path in (folder, folder / "vocab.json"):
        again = Tokenizer.load(path)
        assert again.vocab_size == tokenizer.vocab_size
        text = [*CAPTIONS, "unseen W0RDS: ñ, 日本 <|endoftext|>"]
        np.testing.assert_array_equal(again(text, 40)[0], tokenizer(text, 40)[0])
    (folder / "vocab.json").rename(folder / "other.json")
    (folder / "tokenizer.json").write_text(tokenizer.to_json())
    assert Tokenizer.load(folder).to_json() == tokenizer.to_json()


def test_a_caption_ends_at_its_first_end_token(tokenizer):
    """Where OpenAI's and Hugging Face's CLIP read its vector; scraped text holds such tokens."""
    captions = ["a dog <|endoftext|> a cat", "a dog", "<|endoftext|><|endoftext|>", ""]
    ids, mask = tokenizer(captions, 12)
    np.testing.assert_array_equal(ids[0], ids[1])
    np.testing.assert_array_equal(ids[2], ids[3])
    length = ids[0].tolist().index(ids[2, 1]) + 1
    assert mask.sum(axis=1).tolist() == [length, length, 2, 2]
    assert length > 3
    ids, mask = tokenizer(["a <|startoftext|> dog"], 12)
    assert list(ids[0][mask[0]]).count(ids[0, 0]) == 2


def test_unusable_vocabularies_are_named(tokenizer, tmp_path):
    def refused(path, message):
        with pytest.raises(ValueError, match=f"{path}.*: .*{message}"):
            Tokenizer.load(path)

    content = json.loads(tokenizer.to_json())["model"]
    vocab, merges = content["vocab"], content["merges"]
    refused(write_tables(tmp_path / "a", list(vocab), merges), "expected an object of tokens")
    refused(write_tables(tmp_path / "b", vocab, [["a"]]), "expected a version line and then two")
    refused(write_tables(tmp_path / "c", vocab, [["q", "zz"]]), "merges of tokens in the vocab")
    plain = {token: number for token, number in vocab.items() if token not in (START, END)}
    refused(write_tables(tmp_path / "d", plain, merges), "expected the special tokens")
    short = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    short.write_bytes(gzip.compress(b"#version: 0.2\na b\nc d\n"))
    refused(short, "expected 48,894 pairs of tokens, got 2")
    short.write_bytes(short.read_bytes()[:-9])
    refused(short, "end-of-stream")
    short.write_bytes(b"not zipped")
    refused(short, "Not a gzipped file")
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "nowhere")


needs_real_data = pytest.mark.skipif(
    "NCL_REAL_DATA" not in os.environ, reason="set NCL_REAL_DATA for OpenAI's vocabulary"
)
# As openai/clip-vit-base-patch32 is published: cleaning, padding and specials of its own.
PUBLISHED = {
    "version": "1.0",
    "truncation": {
        "direction": "Right", "max_length": 77, "strategy": "LongestFirst", "stride": 0,
    },
    "padding": None,
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        {"type": "Lowercase"},
    ]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex":
            "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},
         "behavior": "Removed", "invert": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
    ]},
    "post_processor": {
        "type": "RobertaProcessing", "sep": [END, 49407], "cls": [START, 49406],
        "trim_offsets": False, "add_prefix_space": False,
    },
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
}  # fmt: skip


def openai_files(folder):
    """OpenAI's file, and what Hugging Face's converter makes of it, by our own short way."""
    source = pathlib.Path(os.environ["NCL_REAL_DATA"]) / "tokenizer/bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(source.read_bytes()).decode().split("\n")
    merges = [line.split() for line in lines[1 : 49152 - 256 - 2 + 1]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(c) for c in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    words = [*letters, *(c + "</w>" for c in letters), *map("".join, merges), START, END]
    vocab = {word: number for number, word in enumerate(words)}
    added = [
        {"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True} for t in (START, END)
    ]  # fmt: skip
    model = {
        "type": "BPE", "dropout": None, "unk_token": END, "continuing_subword_prefix": "",
        "end_of_word_suffix": "</w>", "fuse_unk": False, "vocab": vocab,
        "merges": [" ".join(pair) for pair in merges],
    }  # fmt: skip
    published = folder / "tokenizer.json"
    published.write_text(json.dumps(PUBLISHED | {"added_tokens": added, "model": model}))
    return source, write_tables(folder / "tables", vocab, merges), published


@pytest.mark.slow
@needs_real_data
def test_every_public_form_gives_the_ids_of_openais_tokenizer(tmp_path):
    golden = pathlib.Path(os.environ["NCL_REAL_DATA"]) / "tokenizer/golden.jsonl"
    rows = [json.loads(line) for line in golden.read_text().split("\n") if line]
    assert len(rows) == 2775
    for path in openai_files(tmp_path):
        tokenizer = Tokenizer.load(path)
        assert tokenizer.vocab_size == 49408
        ids, mask = tokenizer([row["text"] for row in rows], 300)
        for row, own, real in zip(rows, ids, mask, strict=True):
            assert own[real].tolist() == [49406, *row["ids"], 49407], row["text"]
        ids, mask = tokenizer([row["text"] for row in rows], 32)
        for row, own, real in zip(rows, ids, mask, strict=True):
            assert own[real].tolist() == [49406, *row["ids"][:30], 49407], row["text"]
        kept = tmp_path / "kept.json"
        kept.write_text(tokenizer.to_json())
        np.testing.assert_array_equal(
            Tokenizer.load(kept)([row["text"] for row in rows], 32)[0], ids
        )


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
            capture_output=True, check=True, cwd=pathlib.Path(__file__).parents[2],
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
