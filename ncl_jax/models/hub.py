"""Weights of the Hugging Face hub: from its cache where they are whole there, else fetched.

Which files a repository lacks is kept in the cache as well (by the hub's own library), so that a
cache can be known to be complete without a network.
"""

import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ncl_jax.errors import InputError, blame_input

CONFIGS = ("config.json", "open_clip_config.json")


class Wanted(NamedTuple):
    """What is needed of a repository.

    Attributes:
      weights: names of which the first that is there is taken.
      beside: taken too, as far as they are there.
      parts: a file of weights -> names of the further ones that it stands for.
    """

    weights: Sequence[str]
    beside: Sequence[str]
    parts: Callable[[pathlib.Path], Sequence[str]]


def fetch(name: str, wanted: Wanted) -> pathlib.Path:
    """Folder with files of a repository; asks the hub only for what its cache may lack.

    A cached repository is used as it is: a later revision is not looked for.

    Raises:
      FileNotFoundError: this is no name of a repository.
      InputError: it can neither be read from the cache nor fetched.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(
            f"{name}: expected a file or folder of weights, or a name such as "
            "openai/clip-vit-base-patch32"
        )
    try:
        import huggingface_hub as hub
    except ImportError:
        raise InputError(
            f"{name}: there is no such folder, and fetching it takes a package more: "
            "pip install huggingface_hub"
        ) from None
    cached = _cached(hub, name, wanted)
    if cached and cached.complete:
        return cached.folder
    try:
        return _download(hub, name, wanted)
    except InputError as error:
        if not (cached and cached.usable):
            raise
        print(f"{error}; what its cache holds is used: {cached.folder}", file=sys.stderr)
        return cached.folder


class _Cached(NamedTuple):
    folder: pathlib.Path
    complete: bool  # nothing else is there to be fetched
    usable: bool  # all weights and a config


def _cached(hub: Any, name: str, wanted: Wanted) -> _Cached | None:
    """What the cache holds; None where a file of weights is missing."""

    def look(file: str) -> str | None:
        """Its place; "" where the repository has no such file, None where that is not known."""
        found = hub.try_to_load_from_cache(name, file)
        return found if found is None or isinstance(found, str) else ""

    places = {file: look(file) for file in wanted.weights}
    best = next((place for place in places.values() if place), None)
    if best is None:
        return None
    first = next(place for place in places.values() if place != "")
    path = pathlib.Path(best)
    if not all(look(file) for file in wanted.parts(path)):
        return None
    beside = {file: look(file) for file in wanted.beside}
    return _Cached(
        path.parent,
        complete=first == best and None not in beside.values(),
        usable=any(beside.get(config) for config in CONFIGS),
    )


def _download(hub: Any, name: str, wanted: Wanted) -> pathlib.Path:
    """All of it at one revision; what the repository lacks, the library notes in its cache."""

    def get(file: str, revision: str | None = None) -> pathlib.Path | None:
        # Its network library raises many kinds.
        advice = "where there is no network, give the path of a downloaded folder"
        with blame_input(f"{name}: cannot be fetched from the Hugging Face hub", advice):
            try:
                return pathlib.Path(hub.hf_hub_download(name, file, revision=revision))
            except hub.errors.EntryNotFoundError as error:
                if isinstance(error, hub.errors.LocalEntryNotFoundError):  # no network
                    raise
                return None

    best = next(filter(None, map(get, wanted.weights)), None)
    if best is None:
        raise InputError(
            f"{name}: expected one of {', '.join(wanted.weights)}, found none of them"
        )
    for file in (*wanted.parts(best), *wanted.beside):
        if get(file, best.parent.name) is None and file not in wanted.beside:
            raise InputError(f"{name}: expected {file}, which its index names, found none")
    return best.parent
