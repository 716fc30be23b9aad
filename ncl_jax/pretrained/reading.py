"""Video files as windows of frames, read in processes with a time limit."""

import contextlib
import itertools
import os
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ncl_jax.data.frames import length_of
from ncl_jax.pretrained.preprocessing import StoredFrames
from ncl_jax.video.decode import Clip, VideoError
from ncl_jax.video.pool import GIVE_UP_AFTER, read_files
from ncl_jax.video.worker import VideoWorker, unpack

SECONDS = 900.0
"""That decoding one file may take."""


class ReadVideo(NamedTuple):
    """A decoded file.

    Attributes:
      windows: JPEG frames of each window.
      times: (start, end) of each window in seconds from the first frame.
      remarks: a sentence for everything of the file that was ignored, set right or left out.
    """

    windows: list[Sequence[bytes]]
    times: list[tuple[float, float]]
    remarks: tuple[str, ...]


def read_videos(
    paths: Mapping[str, str | os.PathLike[str]],
    frames: StoredFrames,
    *,
    window: float | None = None,
    seconds: float = SECONDS,
    give_up_after: int = GIVE_UP_AFTER,
) -> Generator[tuple[str, ReadVideo | VideoError], None, None]:
    """Decodes files in processes; yields (name, video or why there is none), in order.

    Close it when leaving early: the processes live as long as it does.

    Args:
      paths: by name.
      frames: rate, size and quality.
      window: seconds per window, >= 1; None for one window over the whole file.
      seconds: that decoding one file may take.
      give_up_after: files; see `pool.GiveUp`.
    """

    def read(worker: VideoWorker, name: str, path: str | os.PathLike[str]) -> ReadVideo:
        del name
        clip = unpack(worker.decode(
            path, fps=frames.fps, short_side=frames.short_side,
            jpeg_quality=frames.jpeg_quality, look=frames.look,
        ))  # fmt: skip
        parts = [slice(0, len(clip.frames))] if window is None else cut(clip.times, window)
        times = [(float(clip.times[part.start]), _end(clip, part)) for part in parts]
        return ReadVideo([clip.frames[part] for part in parts], times, clip.remarks)

    results = read_files(
        read, paths, seconds=seconds, in_order=True, give_up_after=give_up_after
    )
    with contextlib.closing(results):
        yield from results


def cut(times: Float[np.ndarray, " frame"], length: float) -> list[slice]:
    """Frames of each window of `length` seconds; a short rest joins the window before it.

    Example:
      >>> cut(np.arange(24.0), 10.0)  # 4 seconds are left over
      [slice(0, 10, None), slice(10, 24, None)]
    """
    number = np.floor(times / length + 1e-9).astype(int)
    starts = [0, *(np.flatnonzero(np.diff(number)) + 1)]
    rest = times[-1] - number[-1] * length
    if len(starts) > 1 and rest < length / 2:
        starts.pop()
    return [slice(int(a), int(b)) for a, b in itertools.pairwise([*starts, len(times)])]


def _end(clip: Clip, part: slice) -> float:
    """A window lasts to the next one, the last window to one frame's time after its last frame."""
    if part.stop < len(clip.times):
        return float(clip.times[part.stop])
    return length_of(clip.times)
