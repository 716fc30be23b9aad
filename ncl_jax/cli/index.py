"""Build, extend and search a gallery of embeddings.

    python -m ncl_jax.cli.index build [INDEX] --videos FOLDER --checkpoint MODEL [--window 10]
                                      [--bank captions.txt] [--learn-bank]
    python -m ncl_jax.cli.index search [INDEX] "a red ball moves left" [-k 10] [--json|--csv]
    python -m ncl_jax.cli.index build INDEX --video V.npy [--ids ids.txt] [--bank-text T.npy]
    python -m ncl_jax.cli.index add INDEX --video MORE.npy [--ids more.txt]
    python -m ncl_jax.cli.index search INDEX --query Q.npy [-k 10]

`INDEX` is a folder, `video_index` if none is named; that of a training run is WORKDIR/index.
Embeddings come as `.npy`, or as `.npz` with an array `video`, `text`
or `embedding`, or another that is named as `FILE.npz:NAME`, and, if there is one, `ids`. Without
ids, items are numbered. `MODEL` is a training run, a folder or file of CLIP weights, or a name on
the Hugging Face hub; it embeds the videos of `FOLDER`, one item per window of each file, and
queries in words.
Building again embeds only new and changed files and resumes an interrupted build, whose embeddings
are saved in `index.partial` in its folder. Commands that write one index take turns and give
up after a minute. A bank of texts that look like queries gives every item its normalising bias: the
file of --bank, the queries that `serve --learn-bank` has kept, or else the captions that the model
was trained on; without one the search ranks by the plain cosine.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from ncl_jax import arrays
from ncl_jax.biases import MAX_SCALE
from ncl_jax.cli import exits, hits
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError, blame_input
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.readers import npy, text

DEFAULT = "video_index"
ARRAYS = ("video", "text", "embedding")
QUERIES = ("query", "text", "embedding", "video")
BANK = ("bank_text", "text", "embedding")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code, see `exits`."""
    args = _parser().parse_args(argv)

    def run() -> None:
        for line in args.run(args):
            print(line, flush=True)

    return exits.run_cli(run)


def build(args: argparse.Namespace) -> Iterator[str]:
    """Embeddings (and a bank), or a folder of videos and a trained run -> an index file."""
    if args.videos is not None:
        yield from _build_from_videos(args)
        return
    storage.folder_of(args.index)  # a wrong name is known before anything is read
    video, ids = read_embeddings(args.video, args.ids)
    bank = None if args.bank_text is None else read_embeddings(args.bank_text, usual=BANK)[0]
    if args.scale is None:
        yield f"scale: {MAX_SCALE:g} (not given; pass the model's --scale if you know it)"
    scale = MAX_SCALE if args.scale is None else args.scale
    index = RetrievalIndex.build(
        ids, video, bank, scale=scale, iterations=args.iterations, strength=args.strength
    )
    index.save(args.index)
    yield f"{len(index)} items, bank of {len(index.bank_text)} texts -> {args.index}"


def _build_from_videos(args: argparse.Namespace) -> Iterator[str]:
    from ncl_jax.video_search import build as of_videos

    for name in ("ids", "bank_text", "scale"):
        if getattr(args, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} goes with --video; with --videos the files and the "
                "model of --checkpoint give it"
            )
    names = ("index", "videos", "checkpoint", "bank", "learn_bank", "window", "timeout",
             "give_up_after", "iterations", "strength")  # fmt: skip
    options = of_videos.VideoIndexOptions(**{name: getattr(args, name) for name in names})
    yield from of_videos.build(options)


def add(args: argparse.Namespace) -> Iterator[str]:
    """More embeddings -> the same file; says when it should be built again."""
    with storage.changed(args.index):  # two at once: the second adds to what the first has written
        yield from _add(args)


def _add(args: argparse.Namespace) -> Iterator[str]:
    index = RetrievalIndex.load(args.index)
    if "gallery" in index.meta:
        raise InputError(
            f"{args.index} was built from videos, and embeddings cannot be added to it; put the "
            f"files into its folder and run `build {args.index} --videos FOLDER --checkpoint "
            "WORKDIR` again"
        )
    video, ids = read_embeddings(args.video, args.ids, first=len(index))
    index = index.add(ids, video)
    index.save(args.index)
    yield f"{len(ids)} items added, {len(index)} in all; drift {index.drift:.3f}"
    if index.refit_due:
        yield "the biases no longer fit the gallery: build the index again"


def search(args: argparse.Namespace) -> Iterator[str]:
    """Query embeddings or words -> one line per hit, or JSON, or CSV; see `cli.hits`."""
    path, words = index_and_words(args.words, in_words=args.query is None)
    index = RetrievalIndex.load(path)
    if words:
        query, names = embed_words(words, index, path), words
    else:
        query, names = read_embeddings(args.query, args.ids, usual=QUERIES)
    if args.scores is None and index.prefers_plain:
        print("plain scores: on its training pairs the run found no gain from the biases "
              "(--scores normalised for the others)", file=sys.stderr)  # fmt: skip
    plain = index.prefers_plain if args.scores is None else args.scores == "plain"
    result = index.search(query, args.k, use_bias=not plain)
    yield from hits.lines(hits.found(result, names, index), args.format)


def index_and_words(given: Sequence[str], in_words: bool) -> tuple[str, list[str]]:
    """What `search` was given -> the index, and the queries if these are words.

    One text alone is a query of the default index; of several the first is the index.

    Raises:
      ValueError: no words or an empty text where words are expected, words beside embeddings, or
        the first of several names no index.
    """
    if in_words and len(given) == 1:
        path, words = DEFAULT, list(given)
        if storage.exists(given[0]):
            raise InputError(f"search: expected words or --query EMBEDDINGS after {given[0]}")
    else:
        path, *words = given or [DEFAULT]
    if in_words == (not words):
        raise InputError("search: expected either words or --query EMBEDDINGS")
    if not all(text.strip() for text in words):
        raise InputError("search: expected words, got an empty text")
    if in_words and not storage.exists(path):
        raise InputError(
            f"{path}: expected an index; build one, or name yours before the query, and put the "
            "query in quotes"
        )
    return path, words


def embed_words(words: list[str], index: RetrievalIndex, path: str) -> np.ndarray:
    """Embeddings of the words by the run that embedded the index's items.

    Raises:
      ValueError: the run was trained on since.
    """
    from ncl_jax.pretrained import load
    from ncl_jax.video_search.manifest import KEY, manifest_of

    if KEY not in index.meta and "bank_captions" not in index.meta:
        raise InputError(
            f"{path} was built from embeddings and has no text model; embed the query with the "
            "model that made them, and give it by --query Q.npy"
        )
    if KEY not in index.meta:
        return load(pathlib.Path(path).parent).encode_text(words)
    manifest = manifest_of(index)
    model = load(manifest.run)
    if model.fingerprint != manifest.model:
        raise InputError(
            f"{manifest.run} was trained on after {path} was built; build the index again"
        )
    return model.encode_text(words)


def read_embeddings(
    path: str, ids: str | None = None, first: int = 0, usual: Sequence[str] = ARRAYS
) -> tuple[np.ndarray, list[str]]:
    """Rows and their names, from `.npy`, or `.npz` with its own ids; see the module's top.

    Without ids they are numbered from `first`.
    """
    file, name = npy.split_name(path)
    stored = npy.read(file, f"cannot read embeddings from {file}", "name another file")
    names = None
    if isinstance(stored, dict) and "ids" in stored:
        names = _names(stored.pop("ids"), path)
    rows = npy.pick(stored, file, name, usual)
    rows = arrays.single(rows, path)
    if rows.ndim != 2:
        raise InputError(f"{path} must hold numbers [row, dim], got shape {rows.shape}")
    if ids is not None:
        names = text.read_text(ids).split("\n")
        names = names[:-1] if names[-1] == "" else names
    if names is not None and len(names) != len(rows):
        raise InputError(f"{len(names)} ids for {len(rows)} rows of {path}; give one per row")
    return rows, names or [str(first + number) for number in range(len(rows))]


def _names(ids: np.ndarray, path: str) -> list[str]:
    """As text; bytes, as HDF5 keeps them, are UTF-8."""
    if ids.ndim != 1 or ids.dtype.kind not in "USiu":
        raise InputError(f"{path}: expected ids [row], texts or integers, got {ids.dtype}")
    with blame_input(f"{path}: expected ids in UTF-8", "save them as text"):
        names = np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids
    return [str(name) for name in names]


def _parser() -> Parser:
    parser = Parser(prog="python -m ncl_jax.cli.index", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="build|add|search")
    for name, run in (("build", build), ("add", add), ("search", search)):
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        if name != "search":
            command.add_argument("index", help=f"folder of the index (build: default {DEFAULT})",
                                 nargs="?" if name == "build" else None, default=DEFAULT)
        command.add_argument("--ids", help="text file, one id per line")
        if name == "search":
            command.add_argument("words", nargs="*", metavar="[INDEX] WORDS",
                                 help="queries in words, for an index of videos or of a run")
            command.add_argument("--query", help="embeddings of the queries")
            command.add_argument("--scores", choices=("normalised", "plain"),
                                 help="with the items' biases or without (default: normalised, "
                                 "or plain where a run found no gain from its biases)")
            command.add_argument("--json", dest="format", action="store_const", const="json",
                                 default="lines", help="all that is known of each hit")
            command.add_argument("--csv", dest="format", action="store_const", const="csv",
                                 help="the same as a table")
            command.add_argument("-k", type=int, default=10, help="hits per query (default 10)")
        elif name == "add":
            command.add_argument("--video", required=True, help="embeddings of the items")
        else:
            items = command.add_mutually_exclusive_group(required=True)
            items.add_argument("--video", help="embeddings of the items")
            items.add_argument("--videos", metavar="FOLDER", help="video files, any depth")
            command.add_argument("--checkpoint", metavar="MODEL",
                                 help="what embeds --videos: a run, a folder or file of CLIP "
                                 "weights, or a name on the Hugging Face hub")
            command.add_argument("--bank", default="", metavar="FILE",
                                 help="texts that look like queries (.txt, .csv, .npy), against "
                                 "which --videos are normalised (default: the model's training "
                                 "captions, where it has them)")
            command.add_argument("--learn-bank", action="store_true",
                                 help="add the queries that `serve --learn-bank` has kept")
            command.add_argument("--window", type=float, default=10.0,
                                 help="seconds of a video per item (default 10)")
            command.add_argument("--timeout", type=float, default=900.0,
                                 help="seconds that decoding one video may take (default 900)")
            command.add_argument("--give-up-after", type=int, default=20, metavar="N",
                                 help="stop when the first N videos all fail for one reason; "
                                 "0: never (default 20)")
            command.add_argument("--bank-text", help="embeddings of training captions")
            command.add_argument("--scale", type=float, help="logits per cosine (default 100)")
            command.add_argument("--iterations", type=int, default=4)
            command.add_argument("--strength", type=float, default=1.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
