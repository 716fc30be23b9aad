"""What an index of videos says of the folder it was made from.

It lives in the index itself, as JSON in `RetrievalIndex.meta["gallery"]`, so that embeddings and
the account of files can never disagree. Rows of the index are in the order of the files' names,
windows in the order of time; the id of a row is "name 0:10.0-0:20.0".
"""

import dataclasses
import math
from typing import Any, NamedTuple

from ncl_jax.errors import InputError, reason
from ncl_jax.index import RetrievalIndex

KEY = "gallery"


class Stamp(NamedTuple):
    """Tells whether a file is the one that was embedded: bytes, and nanoseconds of its change."""

    size: int
    changed: int


class Window(NamedTuple):
    """The part of a file that a row of the index shows; seconds from its first frame."""

    file: str
    start: float
    end: float

    @property
    def id(self) -> str:
        return f"{self.file} {clock(self.start)}-{clock(self.end)}"


class FileRecord(NamedTuple):
    """A file of the folder.

    Attributes:
      stamp: of the file that was read.
      windows: (start, end) in seconds from the first frame.
      remarks: a sentence for everything of the file that was ignored, set right or left out.
      sample: `sample_of` the file; "" where it is not known.
    """

    stamp: Stamp
    windows: list[tuple[float, float]]
    remarks: tuple[str, ...] = ()
    sample: str = ""


@dataclasses.dataclass(frozen=True)
class GalleryManifest:
    """The folder, how it was read, and what of it is in the index.

    Attributes:
      folder: absolute.
      run: folder of the training run that embedded it, absolute.
      model: fingerprint of the model.
      window: seconds per window.
      frames: version of the rules by which frames were chosen (`video.decode.VERSION`).
      files: by name, relative to `folder`, with `/`, in the order of names; a file that could not
        be read is not among them, so that the next build tries it again.
    """

    folder: str
    run: str
    model: str
    window: float
    frames: int
    files: dict[str, FileRecord] = dataclasses.field(default_factory=dict)

    @property
    def windows(self) -> list[Window]:
        """What each row of the index shows."""
        return [
            Window(name, start, end)
            for name, record in self.files.items()
            for start, end in record.windows
        ]

    def embeds_as(self, other: "GalleryManifest") -> bool:
        """Whether a file gets the same rows under both."""
        mine, its = ((m.model, m.window, m.frames) for m in (self, other))
        return mine == its

    def as_meta(self) -> dict[str, Any]:
        """For `RetrievalIndex.build(meta=...)`; the inverse of `manifest_of`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        files = {
            name: record.stamp._asdict()
            | {"windows": record.windows, "remarks": record.remarks, "sample": record.sample}
            for name, record in self.files.items()
        }
        return {KEY: fields | {"files": files}}


def manifest_of(index: RetrievalIndex) -> GalleryManifest:
    """What an index of videos says of its folder.

    Raises:
      ValueError: the index was not made from a folder of videos, or by another program.
    """
    if KEY not in index.meta:
        raise InputError(
            "this index was not made from videos; make one with "
            "`python -m ncl_jax.cli.index build INDEX --videos FOLDER --checkpoint WORKDIR`"
        )
    meta = index.meta[KEY]
    try:
        files = {
            name: FileRecord(
                Stamp(known["size"], known["changed"]),
                [(float(start), float(end)) for start, end in known["windows"]],
                tuple(known.get("remarks", ())),
                str(known.get("sample", "")),
            )
            for name, known in meta["files"].items()
        }
        if not all(isinstance(meta[name], str) for name in ("folder", "run", "model")):
            raise TypeError("names that are no text")
        if not all(_is_record(name, record) for name, record in files.items()):
            raise TypeError("files that are described otherwise")
        float(meta["window"])
        named = {name: meta[name] for name in ("folder", "run", "model", "window")}
        manifest = GalleryManifest(**named, frames=meta.get("frames", 0), files=files)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            "the list of videos in this index is not as ncl_jax writes it "
            f"({reason(error)}); build the index again"
        ) from error
    if len(manifest.windows) != len(index):
        raise InputError(
            f"this index has {len(index)} rows and names {len(manifest.windows)} windows of "
            "videos; build it again"
        )
    return manifest


def _is_record(name: Any, record: FileRecord) -> bool:
    times = [time for window in record.windows for time in window]
    return (
        isinstance(name, str)
        and all(type(number) is int for number in record.stamp)
        and all(math.isfinite(time) and 0 <= time < 1e9 for time in times)
        and all(isinstance(remark, str) for remark in record.remarks)
    )


def clock(seconds: float) -> str:
    """
    Example:
      >>> clock(75.04), clock(3675.0)
      ('1:15.0', '1:01:15.0')
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{head}:{rest // 10:02d}.{rest % 10}"
