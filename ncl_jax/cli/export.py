"""A trained model as files that run without ncl_jax: StableHLO for JAX, or ONNX.

    ncl-jax export runs/demo out                                  text.stablehlo, video.stablehlo
    ncl-jax export runs/demo out --format onnx --index runs/demo/index    and search.onnx

Each file is run after it is written and compared with JAX. docs/export.md shows how to call them.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from ncl_jax.cli import exits
from ncl_jax.cli.parsing import Parser
from ncl_jax.progress import announced


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; its exit code, see `exits`."""
    parser = Parser(prog="ncl-jax export", description=__doc__)
    parser.add_argument("checkpoint", help="a run, weights, or a hub name")
    parser.add_argument("out", type=pathlib.Path, help="folder to write, new or empty")
    parser.add_argument("--format", metavar="stablehlo|onnx", default="stablehlo")
    parser.add_argument("--index", help="index whose search is exported too, biases included")
    parser.add_argument("--k", type=int, default=10, help="items that a search finds (10)")
    args = parser.parse_args(argv)
    return exits.run_cli(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """The model -> a folder, and what was found by comparing."""
    with announced("importing JAX", sys.stderr):
        from ncl_jax.export import folder, formats
        from ncl_jax.index import RetrievalIndex
        from ncl_jax.pretrained.checkpoint import read
    formats.find(args.format)
    index = RetrievalIndex.load(args.index, check=True) if args.index else None
    with announced(f"reading {args.checkpoint}", sys.stderr):
        model = read(args.checkpoint)
    given = model.preprocessing
    with announced("writing each file, running it and comparing with JAX", sys.stderr):
        written = list(folder.write(
            args.out, model.towers, model.params, model.sizes, given.shapes, model.tokenizer,
            view=given.view, format=args.format, fps=given.frames.fps, index=index, k=args.k,
        ))  # fmt: skip
    for file, error in written:
        size = file.stat().st_size / 1e6
        print(f"{file}: {size:.1f} MB; differs from JAX by at most {error:.1g}")
    print(f"{args.checkpoint} -> {args.out}; docs/export.md says how to call it")


if __name__ == "__main__":
    sys.exit(main())
