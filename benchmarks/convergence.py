"""B4: pairs of updates to 1e-3, over-relaxed against plain."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from benchmarks.common import Row, at_least, at_most, embeddings, note
from ncl_jax import sinkhorn


def cosines() -> Iterator[tuple[str, np.ndarray]]:
    """Score matrices of trained models where NCL_REAL_DATA has them, and a synthetic one."""
    text, video = embeddings(1000, 64)
    yield "synthetic", np.asarray(text @ video.T)
    if "NCL_REAL_DATA" not in os.environ:
        print("B4: NCL_REAL_DATA is not set, real matrices are left out", flush=True)
        return
    data = pathlib.Path(os.environ["NCL_REAL_DATA"])
    yield "MSR-VTT 1k-A", np.load(data / "sims" / "msrvtt_video_matrix.npy")
    image, caption = np.load(data / "embeddings" / "features_clip.npy").astype(np.float32)
    image, caption = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, caption))
    yield "CLIP on COCO", caption @ image.T


def run(quick: bool) -> Iterator[Row]:
    for name, cosine in cosines():
        for shape, matrix in (("", cosine), (", half the videos", cosine[:, ::2])):
            for scale in (20, 50, 100) if quick else (5, 10, 20, 30, 50, 70, 100):
                yield from _compare(f"{name}{shape}, scale {scale}", scale * matrix)


def _compare(what: str, scores: np.ndarray) -> Iterator[Row]:
    rows, cols = scores.shape
    r, c = np.ones(rows, np.float32), np.full(cols, rows / cols, np.float32)
    plain, relaxed = (
        sinkhorn.solve(scores, r, c, iterations=5000, tolerance=1e-3, overrelaxation=x)[1]
        for x in (False, True)
    )
    one, two = int(plain.iterations), int(relaxed.iterations)
    yield note("B4", f"{what}: plain", one)
    yield at_most("B4", f"{what}: over-relaxed", two, one + 2)
    yield at_most("B4", f"{what}: error reached, over-relaxed", float(relaxed.error), 1e-3)
    if one > 50:
        yield at_least("B4", f"{what}: plain over over-relaxed", one / two, 2)
