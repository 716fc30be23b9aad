"""CLIP's text cleaning and byte-pair tokens, through the `tokenizers` library."""

import gzip
import html
import io
import json
from collections.abc import Iterable, Sequence

import ftfy
import numpy as np
from etils import epath
from jaxtyping import Bool, Int
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from ncl_jax.errors import InputError, blame_input, check_text, reason
from ncl_jax.readers import limits, text

_TABLES = "vocab.json", "merges.txt"
# Of the pairs in OpenAI's file, CLIP uses as many as fill 49,408 ids with bytes and specials.
_OPENAI_MERGES = 49_408 - 2 * 256 - 2
START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's word pattern: contractions, runs of letters, single digits, runs of anything else.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clean(caption: str) -> str:
    """Repair encoding, unescape HTML twice, fold white space, lower-case, as CLIP does.

    Example:
      >>> clean("A  dog &amp;amp; a CAT")
      'a dog & a cat'
    """
    caption = html.unescape(html.unescape(ftfy.fix_text(caption)))
    return " ".join(caption.split()).lower()


class Tokenizer:
    """Turns captions into fixed-length id arrays: start, words, end, then padding.

    A caption too long for `length` loses words but keeps its end token. One that contains an end
    token, as scraped text may, ends there: a caption's vector is that of its first end token, as in
    OpenAI's and Hugging Face's code, and what follows does not move it.
    """

    def __init__(self, backend: Backend):
        start, end = (backend.token_to_id(name) for name in (START, END))
        if start is None or end is None:
            raise InputError(
                f"tokenizer: expected the special tokens {START} and {END} in the vocabulary"
            )
        # What a published file does on top (padding, cutting, specials) is done here instead.
        backend.no_padding()
        backend.no_truncation()
        if (largest := max(backend.get_vocab().values())) >= (size := backend.get_vocab_size()):
            raise InputError(f"tokenizer: expected ids from 0 to {size - 1}, got {largest}")
        self._backend, self._start, self._end = backend, start, end

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn byte pairs from captions.

        All 256 bytes are in the vocabulary, inside and at the end of a word, so no text is lost.

        Args:
          captions: training captions, at least one.
          vocab_size: upper limit of the vocabulary, at least 514 (bytes and specials).
        """
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        smallest = 2 * len(alphabet) + 2
        if vocab_size < smallest:
            raise InputError(f"expected a vocabulary of at least {smallest}, got {vocab_size}")
        backend = Backend(models.BPE(end_of_word_suffix="</w>"))
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = _words_to_bytes()
        # Word endings get their ids here, in order: the trainer would number them as its hash map
        # happens to list them, differently in every process.
        endings = [letter + "</w>" for letter in alphabet]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[START, END, *endings],
            end_of_word_suffix="</w>",
            initial_alphabet=alphabet,
            show_progress=False,
        )
        backend.train_from_iterator((clean(caption) for caption in captions), trainer)
        trained = json.loads(backend.to_str())
        trained["added_tokens"] = [
            token for token in trained["added_tokens"] if token["content"] in (START, END)
        ]
        return cls.from_json(json.dumps(trained))

    @classmethod
    def from_json(cls, content: str) -> "Tokenizer":
        """From the text of a `tokenizer.json`; ValueError where it is none."""
        advice = "take it from the model's own folder"
        with blame_input("expected the text of a tokenizer.json", advice):
            return cls(Backend.from_str(content))

    @classmethod
    def from_merges(cls, vocab: dict[str, int], merges: list[tuple[str, str]]) -> "Tokenizer":
        """From token -> id and the byte pairs in their order; both specials are in `vocab`."""
        problem = "expected merges of tokens in the vocabulary"
        with blame_input(problem, "take both files from one model"):
            model = models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=END)
        backend = Backend(model)
        backend.pre_tokenizer = _words_to_bytes()
        backend.add_special_tokens([token for token in (START, END) if token in vocab])
        return cls(backend)

    @classmethod
    def load(cls, path: epath.PathLike) -> "Tokenizer":
        """From any public form of CLIP's vocabulary.

        Args:
          path: a `tokenizer.json`; a `vocab.json` beside its `merges.txt`; a folder that holds
            either; or OpenAI's `bpe_simple_vocab_16e6.txt.gz`.

        Raises:
          ValueError: the file is none of these.
          FileNotFoundError: there is no such file, or the folder has none of these.
        """
        path = epath.Path(path)
        if path.is_dir():
            path = path / _TABLES[0] if (path / _TABLES[0]).exists() else path / "tokenizer.json"
        try:
            if path.name == _TABLES[0]:
                return cls.from_merges(*_read_tables(path.parent))
            if path.name.endswith((".txt.gz", ".txt")):
                return cls.from_merges(*_read_openai(path))
            return cls.from_json(text.read_text(path))
        except InputError as error:
            raise InputError(f"{path}: {reason(error)}") from error

    def to_json(self) -> str:
        """The text of a `tokenizer.json`."""
        return self._backend.to_str()

    @property
    def vocab_size(self) -> int:
        """Number of different ids."""
        return self._backend.get_vocab_size()

    def __call__(
        self, captions: Sequence[str], length: int
    ) -> tuple[Int[np.ndarray, "text token"], Bool[np.ndarray, "text token"]]:
        """Ids (padding is 0) and the mask of real tokens, both [text, length]; length >= 2."""
        if length < 2:
            raise InputError(f"expected a length of at least 2 (start and end), got {length}")
        for caption in captions:
            check_text(caption, "caption")
        ids = np.zeros((len(captions), length), np.int32)
        mask = np.zeros((len(captions), length), bool)
        encoded = self._backend.encode_batch(
            [clean(c) for c in captions], add_special_tokens=False
        )
        for row, words in enumerate(encoded):
            said = words.ids[: length - 2]
            said = said[: said.index(self._end)] if self._end in said else said
            tokens = [self._start, *said, self._end]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask


def _words_to_bytes() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def _read_tables(folder: epath.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt, as Hugging Face writes them."""
    vocab = text.read_json(folder / _TABLES[0])
    ids = vocab.values() if isinstance(vocab, dict) else [None]
    if not all(type(i) is int and 0 <= i < 1 << 32 for i in ids):
        raise InputError("expected an object of tokens and their ids")
    return vocab, _pairs(text.read_text(folder / _TABLES[1]).split("\n"))


def _read_openai(path: epath.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A version line and the pairs; ids are bytes, bytes that end a word, pairs, specials."""
    data = text.read_bytes(path, limits.VOCABULARY)
    with blame_input("expected OpenAI's vocabulary", "fetch it again"):
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(limits.VOCABULARY + 1)
        lines = data.decode().split("\n")
    if len(data) > limits.VOCABULARY:
        raise InputError(f"expected at most {limits.VOCABULARY:,} bytes, it has more")
    merges = _pairs(lines)[:_OPENAI_MERGES]
    if len(merges) < _OPENAI_MERGES:
        raise InputError(f"expected {_OPENAI_MERGES:,} pairs of tokens, got {len(merges):,}")
    # Printable bytes stand for themselves and come first; the others follow as 256, 257, ...
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [letter + "</w>" for letter in letters]
    tokens = [*letters, *endings, *map("".join, merges), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def _pairs(lines: Sequence[str]) -> list[tuple[str, str]]:
    rows = [line.split() for line in lines[1:] if line.strip()]  # the first tells a version
    if not rows or any(len(row) != 2 for row in rows):
        raise InputError("expected a version line and then two tokens on each line")
    return [(first, second) for first, second in rows]
