"""Weights of the Hugging Face hub, from its local cache if that is complete, else downloaded.

The hub's library also records in the cache which files a repository does not have, so a complete
cache can be recognized without a network.
"""

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ncl_jax.errors import InputError, blame_input, did_you_mean, reason

SECONDS = 10.0
"""Without an answer of the hub, after which it counts as out of reach."""
WEIGHTS = (".safetensors", ".bin")
_ADVICE = "without a network, give the path of a downloaded folder"
CONFIGS = ("config.json", "open_clip_config.json")


class Wanted(NamedTuple):
    """The files needed from a repository.

    Attributes:
      weights: names of weight files; the first that exists is used.
      beside: names of further files, used if they exist.
      parts: a weight file -> names of the files it is the index of.
    """

    weights: Sequence[str]
    beside: Sequence[str]
    parts: Callable[[pathlib.Path], Sequence[str]]


def fetch(name: str, wanted: Wanted) -> pathlib.Path:
    """Folder with the files of a repository; contacts the hub only if the cache may lack some.

    A complete cached repository is used without a check for later revisions. Before a download,
    size and licence are printed.

    Raises:
      FileNotFoundError: `name` does not have the form of a repository's name, or begins with a
        folder that is here.
      InputError: the repository is neither in the cache nor can it be downloaded.
    """
    expected = "expected a run, a file or folder of weights, or a name such as"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise FileNotFoundError(f"{name}: {expected} openai/clip-vit-base-patch32")
    try:
        import huggingface_hub as hub
    except ImportError:
        raise InputError(
            f"{name}: there is no such folder, and the hub's package, which could fetch it, is not "
            "installed; run pip install huggingface_hub"
        ) from None
    cached = _cached(hub, name, wanted)
    if cached and cached.complete:
        return cached.folder
    parent = pathlib.Path(name).parent
    if not cached and parent.is_dir():
        last = pathlib.Path(name).name
        near = did_you_mean(last, [path.name for path in parent.iterdir()])
        raise FileNotFoundError(
            f"{name}: the folder {parent} has no {last}{near or '; check the name'} (a model of "
            "that name on the hub can be fetched from another folder)"
        )
    try:
        if not cached:
            _announce(hub, name, wanted)
        return _download(hub, name, wanted)
    except InputError as error:
        if not (cached and cached.usable):
            raise
        print(f"{error}; using the files in its cache: {cached.folder}", file=sys.stderr)
        return cached.folder


class _Cached(NamedTuple):
    folder: pathlib.Path
    complete: bool  # the repository has no further files that are needed
    usable: bool  # it has all weights and a config


def _cached(hub: Any, name: str, wanted: Wanted) -> _Cached | None:
    """The state of the cache; None if a file of weights is missing from it."""

    def look(file: str) -> str | None:
        """Path in the cache; "" if the repository lacks the file, None if that is unknown."""
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


def _announce(hub: Any, name: str, wanted: Wanted) -> None:
    """Prints what a download will bring: size and licence.

    Raises:
      InputError: the hub cannot be reached, has no such repository, or does not show it.
    """
    with _reaching(hub, name):
        info = hub.model_info(name, files_metadata=True, timeout=SECONDS)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    best = next((file for file in wanted.weights if file in sizes), "")
    parts = [file for file in sizes if best.endswith(".index.json") and file.endswith(WEIGHTS)]
    total = sum(sizes.get(file, 0) for file in {best, *parts, *wanted.beside})
    licence = getattr(info.card_data, "license", None) or "not stated"
    print(f"{name}: downloading {total / 1e6:,.0f} MB; licence: {licence}", file=sys.stderr)


@contextlib.contextmanager
def _reaching(hub: Any, name: str) -> Iterator[None]:
    """Turns what the hub's library raises into one sentence with the advice that fits."""
    problem = f"{name}: cannot be fetched from the Hugging Face hub"
    try:
        yield
    except hub.errors.GatedRepoError as error:
        raise InputError(
            f"{problem}, because it is gated; accept its terms on its page there and log in by "
            "`hf auth login`"
        ) from error
    except hub.errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{problem}, which has no such public model; check the name, or log in by "
            "`hf auth login` if it is private"
        ) from error
    except hub.errors.EntryNotFoundError as error:
        if not isinstance(error, hub.errors.LocalEntryNotFoundError):  # no network
            raise
        raise InputError(f"{problem} ({reason(error)}); {_ADVICE}") from error
    except Exception as error:
        with blame_input(problem, _ADVICE):  # the network library raises many kinds
            raise error


def _download(hub: Any, name: str, wanted: Wanted) -> pathlib.Path:
    """Downloads the files at one revision; the library records missing files in its cache."""

    def get(file: str, revision: str | None = None) -> pathlib.Path | None:
        try:
            with _reaching(hub, name):
                return pathlib.Path(hub.hf_hub_download(name, file, revision=revision))
        except hub.errors.EntryNotFoundError:
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
