"""The column `video` of a dataset as files and frames, without a decoder of torch."""

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np

from ncl_jax.errors import InputError

CHUNK = 256
"""Videos handed over at a time; those that are no files lie on the disk for so long."""


def videos(dataset: datasets.Dataset, size: int) -> Iterator[list[str | np.ndarray]]:
    """The videos of a dataset, `size` at a time; files made for them last until the next ones.

    Args:
      dataset: its column `video` holds files (`datasets.Video`), their paths, or frames.
      size: videos at a time.

    Yields:
      Paths, and frames as uint8 [frame, height, width, 3].

    Raises:
      ValueError: a video that is missing, or neither a file nor frames.
    """
    if isinstance(dataset.features.get("video"), datasets.Video):
        dataset = dataset.cast_column("video", datasets.Video(decode=False))
    for first in range(0, len(dataset), size):
        rows = dataset[first : first + size]["video"]
        with tempfile.TemporaryDirectory(prefix="ncl_jax-") as folder:
            yield [
                _video(row, pathlib.Path(folder) / str(number), f"video {first + number}")
                for number, row in enumerate(rows)
            ]


def _video(row: Any, place: pathlib.Path, what: str) -> str | np.ndarray:
    if isinstance(row, dict) and row.get("bytes") is not None:
        path = place.with_suffix(pathlib.Path(row.get("path") or "").suffix)
        path.write_bytes(row["bytes"])
        return str(path)
    row = row.get("path") if isinstance(row, dict) else row
    if row is None:
        raise InputError(f"{what}: expected a video, got nothing; drop the row")
    return row if isinstance(row, str) else _frames(row, what)


def _frames(row: Any, what: str) -> np.ndarray:
    """Frames with their channels last, as ours, or first, as those of torch."""
    frames = np.asarray(row)
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[3] != 3 or not np.issubdtype(frames.dtype, np.integer):
        raise InputError(
            f"{what}: expected a file or frames of whole numbers [frame, height, width, 3], got "
            f"{frames.dtype} of shape {frames.shape}"
        )
    if frames.min(initial=0) < 0 or frames.max(initial=0) > 255:
        raise InputError(f"{what}: expected frames from 0 to 255, got others")
    return frames.astype(np.uint8)
