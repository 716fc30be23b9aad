"""Odd video files, made by FFmpeg's own command: every one a kind that real files are of."""

import pathlib
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.video.ffmpeg_reference import run

RATE = 25


class Made(NamedTuple):
    """A file and how FFmpeg has to be asked for the picture that a good player shows.

    Attributes:
      name: of the file; what follows the last dot is its suffix.
      make: writes it, from its path and the folder of sources.
      before: options of FFmpeg's input for the comparison.
      stream: the stream that is due, where it is not FFmpeg's choice.
      filters: what a player does that FFmpeg does not.
      refused: a part of the sentence that refuses the file, where nothing can be shown.
      parts: files whose frames follow one another, where FFmpeg shows the first alone.
      remark: a part of the account's remark, "" for none.
    """

    name: str
    make: Callable[[pathlib.Path, "Sources"], object]
    before: Sequence[str] = ()
    stream: str = ""
    filters: str = ""
    refused: str = ""
    parts: Sequence[str] = ()
    remark: str = ""


class Sources:
    """Uncompressed pictures to encode: a test card beside a patch that tells the frame's number."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(exist_ok=True)
        self.folder = folder

    def pictures(self, size: str = "160x120", seconds: float = 4, rate: str = "25") -> pathlib.Path:
        """FFV1 in Matroska; neighbours differ by 41 levels over a quarter of the picture."""
        path = self.folder / f"{size}_{seconds:g}_{rate.replace('/', '-')}.mkv"
        if not path.exists():
            patch = "gt(X,W*0.55)*gt(Y,H*0.4)"
            run(
                "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}",
                "-vf", f"format=yuv444p,geq=lum='if({patch},16+mod(N*41,200),lum(X,Y))'"
                f":cb='if({patch},128,cb(X,Y))':cr='if({patch},128,cr(X,Y))'",
                "-c:v", "ffv1", path,
            )  # fmt: skip
        return path

    def sound(self, seconds: float = 4) -> pathlib.Path:
        path = self.folder / f"sound_{seconds:g}.wav"
        if not path.exists():
            run("-f", "lavfi", "-i", f"sine=duration={seconds}", path)
        return path

    def cover(self) -> pathlib.Path:
        path = self.folder / "cover.png"
        if not path.exists():
            run("-f", "lavfi", "-i", "color=red:size=320x320", "-frames:v", "1", path)
        return path

    def part(self, name: str, *options: str, **source: str | float) -> pathlib.Path:
        """One of several files that are joined later."""
        path = self.folder / name
        if not path.exists():
            run("-i", self.pictures(**source), "-pix_fmt", "yuv420p", *options, path)  # type: ignore[arg-type]
        return path


def encoded(*options: str, before: Sequence[str] = (), **source: str | float) -> Callable:
    """Encodes the source of `source` with FFmpeg's `options`."""

    def make(path: pathlib.Path, sources: Sources) -> None:
        fmt = () if "-pix_fmt" in options else ("-pix_fmt", "yuv420p")
        picture = sources.pictures(**source)  # type: ignore[arg-type]
        run(*before, "-i", picture, *fmt, *options, path)

    return make


def joined(*parts: tuple[str, Sequence[str]], **source: str | float) -> Callable:
    """Joins files byte by byte, as `cat` does."""

    def make(path: pathlib.Path, sources: Sources) -> None:
        files = [sources.part(name, *options, **source) for name, options in parts]
        path.write_bytes(b"".join(file.read_bytes() for file in files))

    return make


def with_matrix(*numbers: float) -> Callable:
    """An MP4 whose track header holds this display matrix (a, b, u, c, d, v, x, y, w)."""

    def make(path: pathlib.Path, sources: Sources) -> None:
        encoded("-c:v", "libx264")(path, sources)
        data = bytearray(path.read_bytes())
        fixed = [round(n * (1 << (30 if i % 3 == 2 else 16))) for i, n in enumerate(numbers)]
        struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *fixed)
        path.write_bytes(data)

    return make


def damaged(make: Callable, start: float, stop: float, flip: bool = False) -> Callable:
    """Leaves out the bytes between two fractions of the file, or overwrites them."""

    def damage(path: pathlib.Path, sources: Sources) -> None:
        make(path, sources)
        data = path.read_bytes()
        a, b = int(len(data) * start), int(len(data) * stop)
        path.write_bytes(data[:a] + (bytes(b - a) if flip else b"") + data[b:])

    return damage
