"""B8, first half: how fast the builders turn video files into JPEG frames.

Set NCL_DECODE_PYTHON to a Python that has av, numpy, pillow and any of opencv-python-headless,
decord and torchcodec; without it only PyAV, which is always there, is compared. The real clips are
those below NCL_REAL_DATA, if it is set.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

from benchmarks.common import Row, at_least, note

ROOT = pathlib.Path(__file__).parents[1]
GOPS = (12, 60, 250)


def run(quick: bool) -> Iterator[Row]:
    """Clips per second and core, and the ratio to the fastest other decoder."""
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            f"H.264 10 s 320x240, GOP {gop}": [write_clip(pathlib.Path(folder, f"{gop}.mp4"), gop)]
            for gop in (GOPS[::2] if quick else GOPS)
        }
        if real := real_clips():
            sets[f"{len(real)} real clips"] = real
        for name, paths in sets.items():
            yield from _rows(name, _measure(paths, blocks=3 if quick else 15))


def _rows(name: str, seconds: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    """A set's time is the sum over its files, for the decoders that did all of them."""
    decoders = set.intersection(*(set(times) for times in seconds.values()))
    sums = {d: sum(np.array(times[d]) for times in seconds.values()) for d in decoders}
    for decoder, times in sorted(sums.items()):
        yield note("B8", f"{name}: {decoder}, clips/s/core", len(seconds) / np.median(times))
    others = [decoder for decoder in sums if decoder != "ours"]
    best = min(others, key=lambda decoder: np.median(sums[decoder]))
    ratio = float(np.median(sums[best] / sums["ours"]))
    yield at_least("B8", f"{name}: speed of ours over {best}", ratio, 0.9)


def _measure(paths: list[pathlib.Path], blocks: int) -> dict[str, dict[str, list[float]]]:
    python = os.environ.get("NCL_DECODE_PYTHON")
    if not python:
        print("B8: NCL_DECODE_PYTHON is not set, only PyAV is compared", flush=True)
    command = [python or sys.executable, "-m", "benchmarks.video_decoders", str(blocks)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *map(str, paths)], cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def real_clips() -> list[pathlib.Path]:
    if "NCL_REAL_DATA" not in os.environ:
        return []
    root = pathlib.Path(os.environ["NCL_REAL_DATA"])
    return sorted([*root.glob("msvd/videos/*"), *root.glob("msrvtt/videos/*")])


def write_clip(path: pathlib.Path, gop: int) -> pathlib.Path:
    """10 s at 25 frames per second: noise under a moving disc, x264's own settings but the GOP."""
    import av

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (240, 320, 3), np.uint8)
    rows, columns = np.mgrid[:240, :320]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(250):
            image = np.roll(noise, number, axis=1)
            disc = (rows - 120) ** 2 + (columns - 40 - number) ** 2 < 900
            image = np.where(disc[..., None], np.uint8(220), image)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path
