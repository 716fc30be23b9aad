"""Build, extend and search a gallery of embeddings.

    python -m ncl_jax.cli.index build [INDEX] --videos FOLDER --checkpoint MODEL [--window 10]
                                      [--bank captions.txt] [--learn-bank]
    python -m ncl_jax.cli.index search [INDEX] "a red ball moves left" [-k 10] [--json|--csv]
                                       [--sheet hits.jpg]
    python -m ncl_jax.cli.index search [INDEX] --picture FILE | --clip FILE
    python -m ncl_jax.cli.index build INDEX --video V.npy [--ids ids.txt] [--bank-text T.npy]
    python -m ncl_jax.cli.index add INDEX --video MORE.npy [--ids more.txt]
    python -m ncl_jax.cli.index search INDEX --query Q.npy [-k 10]
    python -m ncl_jax.cli.index check [INDEX]

`INDEX` is a folder, `video_index` if none is named; that of a training run is WORKDIR/index, or
WORKDIR for `search` and `check`. Embeddings come as `.npy`, or as `.npz` with an array `video`,
`text` or `embedding`, or another that is named as `FILE.npz:NAME`, and, if there is one, `ids`.
Without ids, items are numbered. `MODEL` is a training run, a folder or file of CLIP weights, or a
name on the Hugging Face hub; it embeds the videos of `FOLDER`, one item per window of each file,
and queries: words, a picture (a clip of one frame) or a clip as a whole.
Building again embeds only new and changed files and resumes an interrupted build, whose embeddings
are saved in `index.partial` in its folder. Commands that write one index take turns and give
up after a minute. A bank of texts that look like queries gives every item its normalising bias: the
file of --bank, the queries that `serve --learn-bank` has kept, or else the captions that the model
was trained on; without one the search ranks by the plain cosine.
"""

import importlib
import sys
from collections.abc import Sequence

from ncl_jax.cli import exits
from ncl_jax.cli.parsing import Parser

DEFAULT = "video_index"
_COMMANDS = {
    "build": ("ncl_jax.cli.index_build", "embeddings, or a folder of videos -> an index"),
    "add": ("ncl_jax.cli.index_build", "more embeddings -> the same index"),
    "search": ("ncl_jax.cli.index_search", "words, embeddings, a picture or a clip -> hits"),
    "check": ("ncl_jax.cli.index_check", "reads all of an index: whether it is sound"),
}
"""Name -> the module that does it by a function of this name, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code, see `exits`."""
    args = _parser().parse_args(argv)

    def run() -> None:
        command = importlib.import_module(_COMMANDS[args.command][0])
        for line in getattr(command, args.command)(args):
            print(line, flush=True)

    return exits.run_cli(run)


def _parser() -> Parser:
    parser = Parser(prog="python -m ncl_jax.cli.index", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="build|add|search|check")
    for name, (_, what) in _COMMANDS.items():
        command = commands.add_parser(name, help=what)
        command.set_defaults(command=name)
        if name != "search":
            given, default = (None, "") if name == "add" else ("?", f" (default {DEFAULT})")
            command.add_argument("index", help=f"folder of the index{default}", nargs=given,
                                 default=DEFAULT)
        if name == "check":
            continue
        command.add_argument("--ids", help="text file, one id per line")
        if name == "search":
            command.add_argument("words", nargs="*", metavar="[INDEX] WORDS",
                                 help="queries in words, for an index of videos or of a run")
            queries = command.add_mutually_exclusive_group()
            queries.add_argument("--query", help="embeddings of the queries")
            queries.add_argument("--picture", metavar="FILE", help="a picture to find the like of")
            queries.add_argument("--clip", metavar="FILE", help="a video to find the like of")
            command.add_argument("--sheet", metavar="FILE.jpg", help="a sheet of thumbnails of the "
                                 "hits, rank and id under each")
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
