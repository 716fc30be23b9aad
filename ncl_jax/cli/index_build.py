"""`index build` and `index add`: embeddings or videos to an index file; see `cli.index`."""

import argparse
import sys
from collections.abc import Iterator

from ncl_jax.biases import MAX_SCALE
from ncl_jax.cli.embedding_files import BANK, read_embeddings
from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.progress import announced


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
    with announced("importing JAX", sys.stderr):
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
