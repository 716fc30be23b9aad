"""A folder of videos as windows with embeddings: read in processes, embedded in batches."""

import contextlib
import hashlib
import itertools
import os
import pathlib
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex
from ncl_jax.video import decode
from ncl_jax.video.pool import GIVE_UP_AFTER, read_files
from ncl_jax.video.worker import VideoWorker, unpack
from ncl_jax.video_search.manifest import FileRecord, Stamp, Window, manifest_of

_SAMPLE = 1 << 16


class Entry(NamedTuple):
    """What is known of one file: rows of its windows, or why there are none.

    Attributes:
      stamp: of the file that was read.
      windows: (start, end) in seconds from the first frame.
      rows: embeddings, one per window.
      error: one line without the file's name, or "" for a file that was read.
      remarks: a sentence for everything of the file that was ignored, set right or left out.
      sample: `sample_of` the file, by which it is known again under another name.
    """

    stamp: Stamp
    windows: list[tuple[float, float]]
    rows: Float[np.ndarray, "window dim"]
    error: str = ""
    remarks: tuple[str, ...] = ()
    sample: str = ""


class Reading(NamedTuple):
    """How files are turned into what the model was trained on, their pictures as players show them.

    Attributes:
      window: seconds per window, >= 1.
      fps: frames read per second.
      short_side: pixels of the frames' shorter side.
      jpeg_quality: 1 to 95; training saw frames through JPEG, so these do too.
      timeout: seconds; a file that takes longer to decode counts as unreadable.
      give_up_after: the work stops when this many first files all fail for one and the same
        reason; 0 never stops it.
    """

    window: float
    fps: float
    short_side: int
    jpeg_quality: int
    timeout: float
    give_up_after: int = GIVE_UP_AFTER


def find_files(folder: str | os.PathLike[str]) -> dict[str, Stamp]:
    """Video files below `folder`, by name; hidden ones and those that vanish are left out.

    What is named like one and is no file (a pipe, say) is among them, so that its reader says so.

    Raises:
      ValueError: not a folder.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: expected a folder of videos")
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in pathlib.PurePosixPath(name).parts)
        if path.suffix.lower() in decode.SUFFIXES and not hidden:
            with contextlib.suppress(OSError):
                status = path.stat()
                if not stat.S_ISDIR(status.st_mode):
                    found[name] = Stamp(status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items()))


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


def embed_files(
    folder: str | os.PathLike[str],
    files: Mapping[str, Stamp],
    encode: Callable[[list[list[bytes]]], np.ndarray],
    reading: Reading,
    batch: int,
) -> Generator[tuple[str, Entry], None, None]:
    """Decodes files in processes, embeds windows in batches across files, yields each file once.

    Close it when leaving early: the processes live as long as it does.

    Args:
      folder: where the files are.
      files: names and stamps.
      encode: JPEG frames of each clip -> unit-norm rows.
      reading: how the files are read.
      batch: windows per call of `encode`; a file of more windows makes a larger call.

    Yields:
      (name, entry) in the order of `files`; a file that cannot be read carries its reason.
    """
    root, waiting = pathlib.Path(folder), list[_Read]()

    def read(worker: VideoWorker, name: str, path: pathlib.Path) -> _Read:
        clip = unpack(worker.decode(
            path, fps=reading.fps, short_side=reading.short_side,
            jpeg_quality=reading.jpeg_quality, look="shown",
        ))  # fmt: skip
        return _Read(name, clip, cut(clip.times, reading.window), sample_of(path))

    results = read_files(
        read, {name: root / name for name in files}, seconds=reading.timeout, in_order=True,
        give_up_after=reading.give_up_after,
    )  # fmt: skip
    with contextlib.closing(results):
        for name, result in results:
            if isinstance(result, decode.VideoError):
                result = _Read(name, result.reason, [])
            waiting.append(result)
            if sum(len(read.parts) for read in waiting) >= batch:
                yield from _embed(waiting, files, encode)
                waiting = []
    yield from _embed(waiting, files, encode)


class _Read(NamedTuple):
    """A decoded file and its windows, or the reason why there are none."""

    name: str
    clip: decode.Clip | str
    parts: list[slice]
    sample: str = ""


def _embed(
    waiting: Sequence[_Read],
    files: Mapping[str, Stamp],
    encode: Callable[[list[list[bytes]]], np.ndarray],
) -> Iterator[tuple[str, Entry]]:
    clips = [r.clip.frames[p] for r in waiting if isinstance(r.clip, decode.Clip) for p in r.parts]
    rows = encode(clips) if clips else np.zeros((0, 1), np.float32)
    first = 0
    for name, clip, parts, sample in waiting:
        if isinstance(clip, str):
            yield name, Entry(files[name], [], rows[:0], clip)
        else:
            windows = [(float(clip.times[part.start]), _end(clip, part)) for part in parts]
            own = rows[first : first + len(parts)]
            yield name, Entry(files[name], windows, own, remarks=clip.remarks, sample=sample)
            first += len(parts)


def _end(clip: decode.Clip, part: slice) -> float:
    """A window lasts to the next one, the last window to one frame's time after its last frame."""
    if part.stop < len(clip.times):
        return float(clip.times[part.stop])
    step = float(clip.times[-1] - clip.times[-2]) if len(clip.times) > 1 else 1.0
    return float(clip.times[-1]) + step


def rows_of(entries: Mapping[str, Entry]) -> tuple[list[str], Float[np.ndarray, "row dim"]]:
    """Ids and embeddings of all windows, in the order of the index."""
    ids = [Window(n, *w).id for n in sorted(entries) for w in entries[n].windows]
    parts = [entries[n].rows for n in sorted(entries) if len(entries[n].rows)]
    return ids, np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def files_of(entries: Mapping[str, Entry]) -> dict[str, FileRecord]:
    """The files that could be read, in the order of names."""
    return {
        name: FileRecord(entry.stamp, entry.windows, entry.remarks, entry.sample)
        for name, entry in sorted(entries.items())
        if not entry.error
    }


def entries_of(index: RetrievalIndex) -> dict[str, Entry]:
    """The inverse of `rows_of` and `files_of`: what an index knows of its files."""
    entries, first = {}, 0
    for name, known in manifest_of(index).files.items():
        rows = index.video[first : first + len(known.windows)]
        first += len(known.windows)
        entries[name] = Entry(
            known.stamp, known.windows, rows, remarks=known.remarks, sample=known.sample
        )
    return entries


def reusable_entries(
    known: Mapping[str, Entry], files: Mapping[str, Stamp], folder: str | os.PathLike[str]
) -> dict[str, Entry]:
    """What is known of files that are as they were, or that only go by another name now.

    Size and time can be those of another file (downloads and copies get times of their own making),
    so a file of a new name must look like the one that went away inside too.
    """
    gone = {(e.stamp, e.sample): e for name, e in known.items() if name not in files and e.sample}
    stamps = {stamp for stamp, _ in gone}
    found = {}
    for name, stamp in files.items():
        entry = known.get(name)
        if entry is None and stamp in stamps:
            entry = gone.get((stamp, sample_of(pathlib.Path(folder) / name)))
        if entry is not None and entry.stamp == stamp:
            found[name] = entry
    return found


def sample_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of beginning, middle and end of a file; of all of it up to 192 KiB. "" if unread."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            for place in (0, size // 2 - _SAMPLE // 2, size - _SAMPLE):
                file.seek(max(0, place))
                digest.update(file.read(_SAMPLE))
    except OSError:
        return ""
    return digest.hexdigest()
