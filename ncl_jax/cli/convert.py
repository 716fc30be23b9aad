"""Weights as Hugging Face writes them, from a training run or any published file.

    python -m ncl_jax.cli.convert runs/msvd out/          the last checkpoint of a run
    python -m ncl_jax.cli.convert ViT-B-32.pt out/        OpenAI, OpenCLIP, CLIP4Clip, Hugging Face

`out/` gets `model.safetensors` and `config.json`, which `transformers.CLIPModel.from_pretrained`
loads (except weights with patches over frames, which it does not support), `head.safetensors` if
there is a head over frames, and `tokenizer.json` if one is known. From a run it also gets how
videos are read, the training captions, and a model card with what the run measured; it is then what
`Model.save_pretrained` writes. Start a run from it by `--config.init.checkpoint=out`, load it by
`ncl_jax.load("out")`, search your videos with it by `index build --checkpoint out`.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from ncl_jax.cli import exits
from ncl_jax.cli.parsing import Parser
from ncl_jax.files import check_new_folder
from ncl_jax.progress import announced


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; its exit code, see `exits`."""
    parser = Parser(prog="python -m ncl_jax.cli.convert", description=__doc__)
    parser.add_argument("source", help="workdir of a run, or weights")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    args = parser.parse_args(argv)
    return exits.run_cli(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Weights -> a folder that holds nothing else."""
    check_new_folder(args.out)
    with announced("importing JAX", sys.stderr):
        from ncl_jax.pretrained.checkpoint import CHECKPOINTS
    trained = (pathlib.Path(args.source) / CHECKPOINTS).is_dir()
    with announced(f"{args.source}: reading and writing weights", sys.stderr):
        said = (of_run if trained else of_published)(args.source, args.out)
    print(said)


def of_run(workdir: str, out: pathlib.Path) -> str:
    """The last checkpoint -> `out`."""
    from ncl_jax.pretrained.checkpoint import read
    from ncl_jax.pretrained.saving import save

    checkpoint = read(workdir)
    save(checkpoint, out)
    return f"step {checkpoint.step} of {workdir} -> {out}"


def of_published(checkpoint: str, out: pathlib.Path) -> str:
    """Weights under other names -> `out`."""
    from ncl_jax.data.tokenizer import Tokenizer
    from ncl_jax.models import convert, weights

    published = weights.read(checkpoint)
    tokenizer = Tokenizer.load(published.tokenizer).to_json() if published.tokenizer else None
    convert.save(out, published.arrays, convert.sizes_of(published), tokenizer)
    return f"{len(published.arrays)} arrays of {published.source} -> {out}"


if __name__ == "__main__":
    sys.exit(main())
