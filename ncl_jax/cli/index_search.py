"""`index search`: words, embeddings, a picture or a clip to items; see `cli.index`."""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from ncl_jax.cli import hits
from ncl_jax.cli.embedding_files import QUERIES, read_embeddings
from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.progress import announced
from ncl_jax.video_search.run_folder import index_of

DEFAULT = "video_index"


def search(args: argparse.Namespace) -> Iterator[str]:
    """Queries -> one line per hit, or JSON, or CSV; see `cli.hits`."""
    if args.sheet:
        check_place(args.sheet)
    given = [args.query, args.picture, args.clip]
    path, words = index_and_words(args.words, in_words=given == [None] * 3)
    index = RetrievalIndex.load(path)
    query, names = _embedded(args, words, index, path)
    if args.scores is None and index.prefers_plain:
        print("plain scores: on its training pairs the run found no gain from the biases "
              "(--scores normalised for the others)", file=sys.stderr)  # fmt: skip
    plain = index.prefers_plain if args.scores is None else args.scores == "plain"
    result = index.search(query, args.k, use_bias=not plain)
    if args.sheet:
        with announced(f"drawing {args.sheet}", sys.stderr):
            from ncl_jax.video_search import sheet
            from ncl_jax.video_search.opening import snapshot_of

            sheet.write(args.sheet, snapshot_of(index, path), names, result)
    yield from hits.lines(hits.found(result, names, index), args.format)


def _embedded(
    args: argparse.Namespace, words: list[str], index: RetrievalIndex, path: str
) -> tuple[np.ndarray, list[str]]:
    """Rows of the queries, and what they are called."""
    if args.query is not None:
        return read_embeddings(args.query, args.ids, usual=QUERIES)
    with announced("importing JAX and loading the model of the index", sys.stderr):
        from ncl_jax.video_search.opening import frames_of, model_of

        model = model_of(index, path)
    if words:
        return model.encode_text(words), words
    from ncl_jax.pretrained.reading import SECONDS
    from ncl_jax.video_search.examples import Examples

    file = args.clip if args.picture is None else args.picture
    if not os.path.isfile(file):
        option = "--clip" if args.picture is None else "--picture"
        raise InputError(f"{option}: expected a file, there is no file {file}")
    with (
        announced(f"embedding {file}", sys.stderr),
        contextlib.closing(Examples(model, frames_of(index, model), SECONDS)) as examples,
    ):
        return examples.embed([file], "clip" if args.picture is None else "picture"), [file]


def index_and_words(given: Sequence[str], in_words: bool) -> tuple[str, list[str]]:
    """What `search` was given -> the index, and the queries if these are words.

    One text alone is a query of the default index; of several the first is the index.

    Raises:
      ValueError: no words or an empty text where words are expected, words beside embeddings, or
        the first of several names no index.
    """
    if in_words and len(given) == 1:
        path, words = DEFAULT, list(given)
        if storage.exists(index_of(given[0])):
            raise InputError(
                f"search: expected words, --query, --picture or --clip after {given[0]}"
            )
    else:
        path, *words = given or [DEFAULT]
    path = index_of(path)
    if in_words == (not words):
        raise InputError("search: expected one of words, --query, --picture and --clip")
    if not all(text.strip() for text in words):
        raise InputError("search: expected words, got an empty text")
    if in_words and not storage.exists(path):
        raise InputError(
            f"{path}: expected an index; build one, or name yours before the query, and put the "
            "query in quotes"
        )
    return path, words


def check_place(path: str) -> None:
    """Whether a sheet can be written there; known before anything is embedded.

    Raises:
      ValueError: the name is not that of a JPEG, or its folder is not there.
    """
    place = pathlib.Path(path)
    if place.suffix.lower() not in (".jpg", ".jpeg"):
        raise InputError(f"--sheet: expected a name that ends in .jpg, got {place}")
    if not place.absolute().parent.is_dir() or place.is_dir():
        raise InputError(f"--sheet: expected a file in a folder that exists, got {place}")
