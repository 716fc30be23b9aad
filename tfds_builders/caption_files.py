"""Readers of the public caption files of MSVD: clip id -> captions."""

import pickle
import reprlib
from collections.abc import Callable
from typing import NoReturn

from etils import epath

from ncl_jax.errors import InputError, blame_input, check_text
from ncl_jax.readers import limits, text
from ncl_jax.readers.plain_pickle import PlainUnpickler
from tfds_builders import text_files

Captions = dict[str, list[str]]


class _RefusedError(InputError):
    """The file asks for code."""


class _Unpickler(PlainUnpickler):
    """Refuses to import anything, so nothing can run."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _RefusedError(
            f"wants to load {module[:40]}.{name[:40]}; "
            "only dicts, lists, strings and numbers are accepted"
        )


def read_pickle(path: epath.Path) -> Captions:
    """Reads a dict clip id -> list of captions, each a string or a list of words.

    Raises:
      ValueError: the file asks for a class or function, which it names, or is damaged, or its
        content has another shape.
    """
    data = text.read_bytes(path, limits.PICKLE, path.name)
    problem, advice = f"{path.name}: expected a pickled dict of captions", "fetch it again"
    try:
        with blame_input(problem, advice, lambda: _Unpickler(pickle.dumps({"a": [["b"]]})).load()):
            content = _Unpickler(data).load()
    except _RefusedError as error:
        raise InputError(f"{path.name} {error}") from None
    return _checked(content, path.name)


def read_json(path: epath.Path) -> Captions:
    """Reads an object clip id -> list of captions, each a string or a list of words."""
    return _checked(text_files.read_json(path), path.name)


def read_lines(path: epath.Path) -> Captions:
    """Reads `<clip id> <sentence>` lines; empty lines and `#` comments are skipped."""
    captions: Captions = {}
    for line in text_files.read_text(path).split("\n"):
        clip, _, sentence = line.strip().partition(" ")
        if sentence and not line.startswith("#"):
            captions.setdefault(clip, []).append(sentence)
    return captions


def read_corpus_csv(path: epath.Path) -> Captions:
    """Reads the English rows of Microsoft's corpus; a clip is `<VideoID>_<Start>_<End>`."""
    columns = ("VideoID", "Start", "End", "Language", "Description")
    captions: Captions = {}
    for row in text_files.read_table(path, *columns):
        if row["Language"] == "English" and row["Description"]:
            clip = f"{row['VideoID']}_{row['Start']}_{row['End']}"
            captions.setdefault(clip, []).append(" ".join(row["Description"].split()))
    return captions


def _checked(content: object, name: str) -> Captions:
    if not isinstance(content, dict):
        raise InputError(f"{name}: expected a dict of clip id to captions, got {_kind(content)}")
    words, characters = _Budget(limits.WORDS, name), _Budget(limits.TEXT, name)
    captions: Captions = {}
    for clip, items in content.items():
        captions[_text(clip, name)] = [
            _sentence(item, name, words, characters) for item in _list(items, name)
        ]
    return captions


class _Budget:
    """One part of a pickle may stand in many places: what is read is counted."""

    def __init__(self, most: int, name: str):
        self._most, self._left, self._name = most, most, name

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise InputError(
                f"{self._name}: expected at most {self._most:,} words or letters of captions"
            )


def _list(items: object, name: str) -> list[object]:
    if not isinstance(items, list):
        raise InputError(f"{name}: expected a list of captions per clip, got {_kind(items)}")
    return items


def _text(clip: object, name: str) -> str:
    if not isinstance(clip, str):
        raise InputError(f"{name}: expected clip ids as text, got {_kind(clip)}")
    check_text(clip, name)
    return clip


def _sentence(item: object, name: str, words: _Budget, characters: _Budget) -> str:
    if isinstance(item, list):
        words.take(len(item))
        if all(isinstance(word, str) for word in item):
            characters.take(sum(map(len, item)))
            item = " ".join(item)
    if not isinstance(item, str):
        raise InputError(f"{name}: expected captions as text or lists of words, got {_kind(item)}")
    words.take(1)
    check_text(item, name)
    return item


def _kind(content: object) -> str:
    return f"{type(content).__name__} {reprlib.repr(content)[:40]}"


# The public forms of the same captions; the first one found is read.
READERS: dict[str, Callable[[epath.Path], Captions]] = {
    "raw-captions.pkl": read_pickle,
    "captions.json": read_json,
    "AllVideoDescriptions.txt": read_lines,
    "video_corpus.csv": read_corpus_csv,
    "MSR Video Description Corpus.csv": read_corpus_csv,
}


def read_captions(folder: epath.Path) -> Captions | None:
    """Reads whichever of `READERS` lies in `folder`; None if there is none."""
    for name, reader in READERS.items():
        if (folder / name).exists():
            return reader(folder / name)
    return None
