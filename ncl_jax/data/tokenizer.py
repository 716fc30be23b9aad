"""CLIP's text cleaning and byte-pair tokens, through the `tokenizers` library."""

import html
import json
from collections.abc import Iterable, Sequence

import ftfy
import numpy as np
from etils import epath
from jaxtyping import Bool, Int
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's word pattern: contractions, runs of letters, single digits, runs of anything else.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clean(text: str) -> str:
    """Repair encoding, unescape HTML twice, fold white space, lower-case, as CLIP does.

    Example:
      >>> clean("A  dog &amp;amp; a CAT")
      'a dog & a cat'
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class Tokenizer:
    """Turns captions into fixed-length id arrays: start, words, end, then padding.

    A caption too long for `length` loses words but keeps its end token.
    """

    def __init__(self, backend: Backend):
        start, end = (backend.token_to_id(name) for name in (START, END))
        if start is None or end is None:
            raise ValueError(
                f"tokenizer: expected the special tokens {START} and {END} in the vocabulary"
            )
        # What a published file does on top (padding, cutting, specials) is done here instead.
        backend.no_padding()
        backend.no_truncation()
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
            raise ValueError(f"expected a vocabulary of at least {smallest}, got {vocab_size}")
        backend = Backend(models.BPE(end_of_word_suffix="</w>"))
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
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
    def from_json(cls, text: str) -> "Tokenizer":
        """From the text of a `tokenizer.json`; ValueError where it is none."""
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"expected the text of a tokenizer.json: {error}") from error
        return cls(backend)

    @classmethod
    def load(cls, path: epath.PathLike) -> "Tokenizer":
        """From a `tokenizer.json` file."""
        return cls.from_json(epath.Path(path).read_text())

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
            raise ValueError(f"expected a length of at least 2 (start and end), got {length}")
        ids = np.zeros((len(captions), length), np.int32)
        mask = np.zeros((len(captions), length), bool)
        encoded = self._backend.encode_batch(
            [clean(c) for c in captions], add_special_tokens=False
        )
        for row, words in enumerate(encoded):
            tokens = [self._start, *words.ids[: length - 2], self._end]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask
