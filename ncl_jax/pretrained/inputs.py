"""What callers of a model may give it, checked, and files turned into clips for its towers."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ncl_jax import arrays
from ncl_jax.errors import InputError, check_text
from ncl_jax.pretrained.encoders import Frames
from ncl_jax.pretrained.preprocessing import StoredFrames
from ncl_jax.pretrained.reading import read_videos
from ncl_jax.video.decode import VideoError


class Windows(NamedTuple):
    """Parts of videos.

    Attributes:
      embedding: [window, dim], unit norm.
      video: which of the given videos each window is of, int64 [window].
      start: of each window in seconds from the video's first frame, [window].
      end: likewise.
    """

    embedding: Float[np.ndarray, "window dim"]
    video: np.ndarray
    start: np.ndarray
    end: np.ndarray


class _Part(NamedTuple):
    frames: Frames
    video: int
    start: float
    end: float


def checked_texts(texts: Any) -> list[str]:
    """A list of at least one text."""
    if isinstance(texts, str):
        raise InputError(f"texts: expected a list of texts, got one; give [{texts[:40]!r}]")
    texts = list(texts)
    if not texts:
        raise InputError("texts: expected at least one text, got none")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"texts[{place}]: expected a text, got {type(text).__name__}; convert it by str()"
            )
        check_text(text, f"texts[{place}]")
    return texts


def checked_videos(videos: Any, window: float | None) -> list[Any]:
    """A list of files and of uint8 arrays, at least one."""
    if window is not None and not 1 <= window < float("inf"):
        raise InputError(f"window: expected a number of seconds from 1, got {window!r}")
    one = isinstance(videos, str | os.PathLike) or (
        isinstance(videos, np.ndarray) and videos.ndim == 4
    )
    if one:
        raise InputError("videos: expected a list of videos, got one; give [video]")
    videos = list(videos)
    if not videos:
        raise InputError("videos: expected at least one video, got none")
    return [_checked_video(video, place, window) for place, video in enumerate(videos)]


def _checked_video(video: Any, place: int, window: float | None) -> Any:
    if isinstance(video, str | os.PathLike):
        path = pathlib.Path(video).expanduser()
        if not path.is_file():
            raise InputError(f"videos[{place}]: expected a video file, there is no file {path}")
        return path
    if not hasattr(video, "__array__"):
        raise InputError(
            f"videos[{place}]: expected a path or an array, got {type(video).__name__}; give RGB "
            "pixels uint8 [frame, height, width, 3]"
        )
    frames = np.asarray(video)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise InputError(
            f"videos[{place}]: expected RGB pixels uint8 [frame, height, width, 3], got "
            f"{frames.dtype} {list(frames.shape)}; convert them to 0 ... 255 and this order of axes"
        )
    if window is not None:
        raise InputError(
            f"videos[{place}]: a window needs times, which an array does not have; give the file, "
            "or cut the array yourself"
        )
    return frames


def checked_size(given: int | None, usual: int) -> int:
    """Clips or captions at a time."""
    if given is not None and given < 1:
        raise InputError(f"batch_size: expected at least 1, got {given}")
    return usual if given is None else given


def checked_rows(rows: Any, what: str, dim: int) -> Float[np.ndarray, "row dim"]:
    """A matrix of finite numbers, `dim` wide, float32."""
    rows = arrays.single(rows, what)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise InputError(
            f"{what}: expected embeddings [row, {dim}] of this model, got {list(rows.shape)}"
        )
    if not np.isfinite(rows).all():
        raise InputError(f"{what}: expected finite numbers, got NaN or infinity; drop these rows")
    return rows


def encode(
    videos: Sequence[Any],
    frames: StoredFrames,
    window: float | None,
    seconds: float,
    batch_size: int,
    encode_clips: Callable[[Sequence[Frames]], np.ndarray],
) -> Float[np.ndarray, "video dim"] | Windows:
    """Reads files while earlier ones are encoded, a batch of clips at a time.

    Raises:
      VideoError: of the first file that cannot be read.
    """
    rows, read = [], list[_Part]()
    with contextlib.closing(_parts(videos, frames, window, seconds)) as parts:
        while batch := list(itertools.islice(parts, batch_size)):
            rows.append(encode_clips([part.frames for part in batch]))
            read += [part._replace(frames=()) for part in batch]
    embedded = np.concatenate(rows)
    if window is None:
        return embedded
    return Windows(
        embedded, np.array([part.video for part in read]),
        np.array([part.start for part in read]), np.array([part.end for part in read]),
    )  # fmt: skip


def _parts(
    videos: Sequence[Any], frames: StoredFrames, window: float | None, seconds: float
) -> Generator[_Part, None, None]:
    """The clips of all videos, in order."""
    files = {str(place): v for place, v in enumerate(videos) if isinstance(v, pathlib.Path)}
    reading = read_videos(files, frames, window=window, seconds=seconds, give_up_after=0)
    with contextlib.closing(reading):
        for place, video in enumerate(videos):
            if not isinstance(video, pathlib.Path):
                yield _Part(video, place, 0.0, 0.0)
                continue
            _, found = next(reading)
            if isinstance(found, VideoError):
                raise VideoError(video, found.reason)
            for clip, (start, end) in zip(found.windows, found.times, strict=True):
                yield _Part(clip, place, start, end)
