"""Weights as Hugging Face writes them, from a training run or any published file.

    python -m ncl_jax.cli.convert runs/msvd out/          the last checkpoint of a run
    python -m ncl_jax.cli.convert ViT-B-32.pt out/        OpenAI, OpenCLIP, CLIP4Clip, Hugging Face

`out/` gets `model.safetensors` and `config.json`, which `transformers.CLIPModel.from_pretrained`
loads (except weights with patches over frames, which it does not support), `head.safetensors` if
there is a head over frames, and `tokenizer.json` if one is known. Start a run from it by
`--config.init.checkpoint=out`.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from etils import epath

from ncl_jax.cli import exits
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError
from ncl_jax.models import convert, weights


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; its exit code, see `exits`."""
    parser = Parser(prog="python -m ncl_jax.cli.convert", description=__doc__)
    parser.add_argument("source", help="workdir of a run, or weights")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    args = parser.parse_args(argv)
    return exits.run_cli(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Weights -> a folder that holds nothing else."""
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise InputError(f"{args.out}: expected a new or empty folder to write to")
    trained = (pathlib.Path(args.source) / "checkpoints").is_dir()
    print((of_run if trained else of_published)(args.source, args.out))


def of_run(workdir: str, out: pathlib.Path) -> str:
    """The last checkpoint -> `out`."""
    from ncl_jax.experiment.restore import restore

    run = restore(epath.Path(workdir))
    convert.save(out, convert.from_params(run.params), run.sizes, run.tokenizer.to_json())
    return f"step {run.step} of {workdir} -> {out}"


def of_published(checkpoint: str, out: pathlib.Path) -> str:
    """Weights under other names -> `out`."""
    published = weights.read(checkpoint)
    tokenizer = published.tokenizer.read_text() if published.tokenizer else None
    convert.save(out, published.arrays, convert.sizes_of(published), tokenizer)
    return f"{len(published.arrays)} arrays of {published.source} -> {out}"


if __name__ == "__main__":
    sys.exit(main())
