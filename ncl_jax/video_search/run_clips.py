"""The test clips of a finished run in the place of a folder of videos: its index, on the page.

The index that a run leaves names clips and no files; files and captions come from its dataset.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

from ncl_jax.experiment.original_clips import OriginalClip, original_clips
from ncl_jax.index import RetrievalIndex
from ncl_jax.video_search.manifest import KEY, FileRecord, GalleryManifest, Stamp

_GONE = Stamp(0, 0)


@dataclasses.dataclass(frozen=True)
class RunClips:
    """What the page shows of a run, row by row of its index.

    Attributes:
      run: its name.
      manifest: of the clips as if they were a folder of videos, one window each.
      captions: the test captions of each clip.
      missing: how many clips have no video file any more.
      remark: a sentence about these; "" for none.
      frame: row -> its middle stored frame as JPEG, or None.
    """

    run: str
    manifest: GalleryManifest
    captions: list[list[str]]
    missing: int
    remark: str
    frame: Callable[[int], bytes | None]


def clips_of(workdir: pathlib.Path, index: RetrievalIndex, model: str) -> RunClips | None:
    """The test clips of a run; None for an index that names its own files.

    Args:
      workdir: of the run.
      index: its index.
      model: fingerprint of its model.

    Raises:
      ValueError: the run has not finished, or its results are damaged.
    """
    if KEY in index.meta:
        return None
    found = original_clips(workdir, index.ids)
    here = [clip.file for clip in found.clips.values() if clip.file is not None]
    folder = pathlib.Path(os.path.commonpath([f.parent for f in here])) if here else found.folder
    manifest = GalleryManifest(
        folder=str(folder), run=os.path.abspath(workdir), model=model, window=0.0, frames=0,
        files=dict(_record(name, clip, folder) for name, clip in found.clips.items()),
    )  # fmt: skip
    missing = len(found.clips) - len(here)
    return RunClips(
        workdir.resolve().name, manifest, [clip.captions for clip in found.clips.values()],
        missing, _remark(missing, index.ids, folder, found.stored is not None),
        lambda row: found.frame(index.ids[row]),
    )  # fmt: skip


def _record(name: str, clip: OriginalClip, folder: pathlib.Path) -> tuple[str, FileRecord]:
    """The file below the folder, or the clip's name in its place."""
    whole = [(0.0, clip.seconds)]
    if clip.file is None:
        return name, FileRecord(_GONE, whole)
    status = clip.file.stat()
    stamp = Stamp(status.st_size, status.st_mtime_ns)
    return clip.file.relative_to(folder).as_posix(), FileRecord(stamp, whole)


def _remark(missing: int, ids: Sequence[str], folder: pathlib.Path, stored: bool) -> str:
    if not missing:
        return ""
    instead = "their stored frames are shown instead" if stored else "and their dataset is gone too"
    return f"The video files of {missing:,} of {len(ids):,} clips are not in {folder}; {instead}."
