"""B8, second half: clips per second of the training input.

12 frames of 224 pixels on two cores, from records to batches, beside other ways to the same
frames: decoding the video file each time, in the same pipeline, and two floors on as many threads,
which find the chosen JPEGs in memory. "bare JPEG decode" is the pipeline's own decoder: every JPEG
to RGB pixels, the central square of them into one uint8 array a clip, and that thrown away;
nothing is read, shuffled, padded or batched. "Pillow, not to an array" is `Image.load` alone, whose
pixels nobody could use yet. The real clips are those below NCL_REAL_DATA, if it is set.
"""

import concurrent.futures
import contextlib
import io
import itertools
import json
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import grain
import numpy as np
from PIL import Image

import tfds_builders
from benchmarks.common import Row, at_least, interleave, note, ratio
from benchmarks.input_build import GOPS, real_clips, write_clip
from ncl_jax.data import clips, frames, pipeline, records, transforms
from ncl_jax.data.clips import Shapes, View
from ncl_jax.data.prefetch import Ahead
from ncl_jax.data.tokenizer import Tokenizer

SHAPES, VIEW = Shapes(max_frames=12, image_size=224, max_tokens=32), View()
CLIPS, BATCH, THREADS = 48, 16, 4  # records in a set; config.data.threads
FPS = 2.0  # so that clips of 10 s have more than 12 frames


def run(quick: bool) -> Iterator[Row]:
    """Clips per second, and the ratios to the other two ways."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        sets = {
            f"H.264 10 s 320x240, GOP {gop}": [write_clip(root / f"{gop}.mp4", gop)]
            for gop in (GOPS[-1:] if quick else GOPS)
        }
        if real := real_clips():
            sets[f"{len(real)} real clips"] = real
        for number, (name, files) in enumerate(sets.items()):
            yield from _rows(name, files, root / str(number), blocks=2 if quick else 9)


def _rows(name: str, files: list[pathlib.Path], folder: pathlib.Path, blocks: int) -> Iterator[Row]:
    paths = list(itertools.islice(itertools.cycle(files), CLIPS))
    split = _write(paths, folder)
    tokenizer = Tokenizer.train(split.captions, 600)
    file_of = {f"clip{number}": path for number, path in enumerate(paths)}

    def training() -> float:
        return _steady(
            pipeline.train_batches(
                split, tokenizer, SHAPES, VIEW, batch_size=BATCH, seed=0, threads=THREADS
            )
        )

    def from_files() -> float:
        pairs = grain.MapDataset.range(CLIPS).repeat()
        examples = pairs.map(lambda clip: _decode_file(file_of[split.video_ids[clip]]))
        return _steady(Ahead(pipeline._batches(examples, BATCH, THREADS)))

    jpegs = [_chosen(split.jpegs(clip)) for clip in range(CLIPS)]

    def floor(decode: Callable[[list[bytes]], object]) -> float:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            start = time.perf_counter()
            list(pool.map(decode, jpegs))
            return (time.perf_counter() - start) / CLIPS

    _check(split, file_of)
    calls: dict[str, Callable[[], float | None]] = {
        "training input": training,
        "video files": from_files,
        "bare JPEG decode": lambda: floor(_bare),
        "Pillow, not to an array": lambda: floor(_load),
    }
    seconds = interleave(calls, blocks)
    for call, spent in seconds.items():
        yield note("B8", f"{name}: {call}, clips/s", 1 / np.median(spent))
    faster = ratio(seconds, "video files", "training input")
    yield at_least("B8", f"{name}: training input over video files", faster, 5)
    share = ratio(seconds, "bare JPEG decode", "training input")
    yield at_least("B8", f"{name}: training input over bare JPEG decode", share, 0.8)


def _steady(batches: Ahead[Any]) -> float:
    """Seconds per clip once the threads are at work."""
    with contextlib.closing(batches):
        for _ in range(2):
            next(batches)
        start = time.perf_counter()
        for _ in range(CLIPS // BATCH):
            next(batches)
        spent = time.perf_counter() - start
    time.sleep(0.2)  # what was begun ends outside the next measurement
    return spent / CLIPS


def _chosen(jpegs: Sequence[bytes]) -> list[bytes]:
    return [jpegs[i] for i in frames.choose_frames(len(jpegs), SHAPES.max_frames)]


def _bare(jpegs: list[bytes]) -> np.ndarray:
    out = np.empty((len(jpegs), SHAPES.image_size, SHAPES.image_size, 3), np.uint8)
    for place, jpeg in enumerate(jpegs):
        out[place] = transforms.resize_and_crop(clips._decode(jpeg, place), SHAPES.image_size)
    return out


def _load(jpegs: list[bytes]) -> None:
    for jpeg in jpegs:
        Image.open(io.BytesIO(jpeg)).load()


def _decode_file(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The same frames from the file: forward once, only chosen ones resized and cropped."""
    ticks: dict[int, av.VideoFrame] = {}
    tick, start = 0, None
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        for frame in container.decode(video=0):
            start = frame.time if start is None else start
            reached = math.floor((frame.time - start + 1e-6) * FPS)
            if reached >= tick:
                ticks[len(ticks)], tick = frame, reached + 1
    out = np.zeros((SHAPES.max_frames, SHAPES.image_size, SHAPES.image_size, 3), np.uint8)
    chosen = frames.choose_frames(len(ticks), SHAPES.max_frames)
    for place, index in enumerate(chosen):
        pixels = ticks[index].to_ndarray(format="rgb24")
        out[place] = transforms.resize_and_crop(pixels, SHAPES.image_size)
    return out, np.arange(SHAPES.max_frames) < len(chosen)


def _check(split: records.Split, file_of: dict[str, pathlib.Path]) -> None:
    """All show the same pictures, the files up to JPEG's loss and the stored size."""
    for clip in range(min(6, CLIPS)):
        one, mask = pipeline._look(split, SHAPES, VIEW, clip, ())
        other, other_mask = _decode_file(file_of[split.video_ids[clip]])
        assert mask.sum() == other_mask.sum(), (clip, mask.sum(), other_mask.sum())
        assert np.abs(one.astype(float) - other).mean() < 12, clip
        np.testing.assert_array_equal(one[mask], _bare(_chosen(split.jpegs(clip))))


def _write(paths: list[pathlib.Path], folder: pathlib.Path) -> records.Split:
    """Records of the files, as the builders make them."""
    files = folder / "manual/msvd"
    (files / "videos").mkdir(parents=True)
    names = [f"clip{number}" for number in range(len(paths))]
    for name, path in (*zip(names, paths, strict=True), ("val", paths[0]), ("test", paths[0])):
        (files / f"videos/{name}{path.suffix}").symlink_to(path)
    every = [*names, "val", "test"]
    captions = {name: [f"caption {n} of {name}" for n in range(3)] for name in every}
    (files / "captions.json").write_text(json.dumps(captions))
    for split, ids in (("train", names), ("val", ["val"]), ("test", ["test"])):
        (files / f"{split}_list.txt").write_text("\n".join(ids))
    directory = tfds_builders.prepare("msvd", folder / "manual", folder / "tfds", fps=FPS)
    return records.load_split(directory, "train")
