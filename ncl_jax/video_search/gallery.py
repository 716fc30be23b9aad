"""A folder of videos as windows with embeddings: read in processes, embedded in batches."""

import contextlib
import hashlib
import os
import pathlib
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex
from ncl_jax.pretrained.preprocessing import StoredFrames
from ncl_jax.pretrained.reading import SECONDS, ReadVideo, read_videos
from ncl_jax.video import decode
from ncl_jax.video.decode import VideoError
from ncl_jax.video.pool import GIVE_UP_AFTER
from ncl_jax.video_search.manifest import FileRecord, Stamp, Window, manifest_of

_SAMPLE = 1 << 16
Encode = Callable[[list[Sequence[bytes]]], np.ndarray]


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


def embed_files(
    folder: str | os.PathLike[str],
    files: Mapping[str, Stamp],
    encode: Encode,
    frames: StoredFrames,
    batch: int,
    *,
    window: float = 10.0,
    seconds: float = SECONDS,
    give_up_after: int = GIVE_UP_AFTER,
) -> Generator[tuple[str, Entry], None, None]:
    """Decodes files in processes, embeds windows in batches across files, yields each file once.

    Close it when leaving early: the processes live as long as it does.

    Args:
      folder: where the files are.
      files: names and stamps.
      encode: JPEG frames of each clip -> unit-norm rows.
      frames: how files are read.
      batch: windows per call of `encode`; a file of more windows makes a larger call.
      window: seconds per item, >= 1.
      seconds: that decoding one file may take.
      give_up_after: files; see `video.pool.GiveUp`.

    Yields:
      (name, entry) in the order of `files`; a file that cannot be read carries its reason.
    """
    root, waiting = pathlib.Path(folder), dict[str, ReadVideo | VideoError]()
    results = read_videos(
        {name: root / name for name in files}, frames, window=window, seconds=seconds,
        give_up_after=give_up_after,
    )  # fmt: skip
    with contextlib.closing(results):
        for name, result in results:
            waiting[name] = result
            if sum(len(_windows(read)) for read in waiting.values()) >= batch:
                yield from _embed(root, waiting, files, encode)
                waiting = {}
    yield from _embed(root, waiting, files, encode)


def _windows(read: ReadVideo | VideoError) -> list[Sequence[bytes]]:
    return read.windows if isinstance(read, ReadVideo) else []


def _embed(
    root: pathlib.Path,
    waiting: Mapping[str, ReadVideo | VideoError],
    files: Mapping[str, Stamp],
    encode: Encode,
) -> Iterator[tuple[str, Entry]]:
    clips = [window for read in waiting.values() for window in _windows(read)]
    rows = encode(clips) if clips else np.zeros((0, 1), np.float32)
    first = 0
    for name, read in waiting.items():
        if isinstance(read, VideoError):
            yield name, Entry(files[name], [], rows[:0], read.reason)
            continue
        own = rows[first : first + len(read.windows)]
        first += len(read.windows)
        sample = sample_of(root / name)
        yield name, Entry(files[name], read.times, own, remarks=read.remarks, sample=sample)


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
