"""Writes the demo corpus in the MSVD layout: videos, captions, split lists, order pairs."""

import json
import math
import uuid
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
from etils import epath

from ncl_jax.locks import locked
from tfds_builders import video_records
from tfds_builders.demo import captions, render, scenes

_WORKERS = 2
# The same pictures must give the same bytes: one thread, and no macroblock tree, with which a few
# clips in a thousand came out differently from run to run.
_ENCODER = {"crf": "16", "preset": "veryfast", "threads": "1", "mbtree": "0"}


class Size(NamedTuple):
    """Clips per split."""

    train: int = 1200
    val: int = 100
    test: int = 400


class _Member(NamedTuple):
    """One clip of a group."""

    clip: str
    split: str
    scene: scenes.Scene


def write_corpus(
    folder: epath.PathLike,
    size: Size,
    seed: int = 0,
    progress: Callable[[int], None] = lambda clips: None,
) -> None:
    """Renders the corpus; the same arguments give the same bytes.

    The folder appears in one step when it is complete. One that is there already stays if it was
    made with the same arguments, and is replaced otherwise.

    Args:
      folder: gets videos/, captions.json, the three lists, order_pairs.txt and corpus.json.
      size: clips per split; half of each are order pairs.
      seed: of everything random.
      progress: called with the number of clips just finished.

    Raises:
      FileExistsError: the folder holds something else, which is left alone.
    """
    folder = epath.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder, math.inf):
        for left in folder.parent.glob(f"{folder.name}.partial-*"):  # by a process that was killed
            left.rmtree()
        _write_corpus(folder, size, seed, progress)


def _write_corpus(
    folder: epath.Path, size: Size, seed: int, progress: Callable[[int], None]
) -> None:
    made_of = {"seed": seed, **size._asdict(), "format": 2}
    stamp = folder / "corpus.json"
    if folder.exists() and not stamp.exists():
        raise FileExistsError(f"{folder}: expected a corpus with {stamp.name}, got other files")
    if stamp.exists() and json.loads(stamp.read_text()) == made_of:
        return
    partial = folder.parent / f"{folder.name}.partial-{uuid.uuid4().hex[:8]}"
    (partial / "videos").mkdir(parents=True)
    try:
        groups = _draw(size, seed)
        _write_texts(partial, groups, seed)
        for done in video_records.ordered_map(_writer(partial / "videos"), groups, _WORKERS):
            progress(done)
        (partial / stamp.name).write_text(json.dumps(made_of))
        if folder.exists():
            folder.rmtree()
        partial.rename(folder)
    finally:
        if partial.exists():
            partial.rmtree()


def _draw(size: Size, seed: int) -> list[list[_Member]]:
    """Draws every split from the same world; clip numbers say nothing about the content."""
    rng = np.random.default_rng(seed)
    numbers = iter(rng.permutation(sum(size)))
    seen: set[object] = set()
    return [
        [_Member(f"clip{next(numbers):05d}", split, scene) for scene in group]
        for split, clips in size._asdict().items()
        for group in scenes.draw_groups(rng, clips, seen)
    ]


def _write_texts(folder: epath.Path, groups: list[list[_Member]], seed: int) -> None:
    members = sorted(member for group in groups for member in group)
    rng = np.random.default_rng([seed, 1])
    sentences = {m.clip: captions.write_captions(m.scene, rng) for m in members}
    (folder / "captions.json").write_text(json.dumps(sentences, indent=0))
    for split in Size._fields:
        clips = [f"{member.clip}\n" for member in members if member.split == split]
        (folder / f"{split}_list.txt").write_text("".join(clips))
    pairs = [group for group in groups if group[0].scene.paired]
    lines = sorted(f"{first.clip} {second.clip}\n" for first, second in pairs)
    (folder / "order_pairs.txt").write_text("".join(lines))


def _writer(folder: epath.Path) -> Callable[[list[_Member]], int]:
    def write(group: list[_Member]) -> int:
        for member in group:
            encode_video(folder / f"{member.clip}.mp4", render.render(member.scene), render.FPS)
        return len(group)

    return write


def encode_video(path: epath.PathLike, frames: np.ndarray, fps: int) -> None:
    """Writes uint8 [frame, row, column, 3] RGB as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=_ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
