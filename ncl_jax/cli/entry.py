"""The command `ncl-jax`: one sub-command for each module of `ncl_jax.cli` and for the datasets."""

import importlib
import sys
from collections.abc import Sequence

from ncl_jax import __version__
from ncl_jax.errors import did_you_mean

COMMANDS = {
    "train": ("ncl_jax.cli.train", "train a config, evaluate it, and leave an index"),
    "sweep": ("ncl_jax.cli.sweep", "train the settings of a named sweep, and tabulate them"),
    "report": ("ncl_jax.cli.report", "a page, or tables, over finished runs"),
    "index": ("ncl_jax.cli.index", "build, extend and search an index of videos or embeddings"),
    "serve": ("ncl_jax.cli.serve", "a page that searches an index of videos and plays them"),
    "normalize": ("ncl_jax.cli.normalize", "compare all normalisers on your embeddings"),
    "metrics": ("ncl_jax.cli.metrics", "retrieval metrics of a score matrix by every tie rule"),
    "convert": ("ncl_jax.cli.convert", "write the weights of a run in a published layout"),
    "export": ("ncl_jax.cli.export", "write a model for StableHLO or ONNX, to run without ncl_jax"),
    "data check": ("tfds_builders.check", "compare the files of a dataset with its lists"),
    "data build": ("tfds_builders.build", "build a dataset from its files"),
}
"""Sub-command -> the module whose `main` runs it, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command with the rest of the arguments; returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if given else 2
    if given[0] == "--version":
        print(f"ncl_jax {__version__}")
        return 0
    for words in (2, 1):
        name = " ".join(given[:words])
        if name in COMMANDS:
            return _run(name, given[words:])
    if given[0] == "data" and given[1:] in (["-h"], ["--help"]):
        print(_help("data "))
        return 0
    name = " ".join(given[:2]) if given[0] == "data" else given[0]
    print(
        f"error: expected one of {', '.join(COMMANDS)}, got {name!r}{did_you_mean(name, COMMANDS)}",
        file=sys.stderr,
    )
    return 2


def _run(name: str, arguments: list[str]) -> int:
    module = importlib.import_module(COMMANDS[name][0])
    if name in ("train", "sweep"):
        module.start([f"ncl-jax {name}", *arguments])
        return 0
    return int(module.main(arguments))


def _help(beginning: str = "") -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()
             if name.startswith(beginning)]
    return "\n".join(
        ["usage: ncl-jax COMMAND [ARGUMENTS]", "", *lines, "", "ncl-jax COMMAND --help says more."]
    )


if __name__ == "__main__":
    sys.exit(main())
