"""Odd files show what FFmpeg's command shows: the same frames, times, sides, shapes and colours.

    python -m tests.video.reference_test [FOLDER OF VIDEOS ...]

prints the table of all made files and of those in the folders.
"""

import os
import pathlib
import sys
import tempfile
from typing import NamedTuple

import numpy as np
import pytest

from ncl_jax.video import decode, packets
from ncl_jax.video.clock import Clock
from ncl_jax.video.container import opened
from ncl_jax.video.times import timed
from tests.video import ffmpeg_reference as ffmpeg
from tests.video.made_cases import all_cases
from tests.video.made_videos import RATE, Made, Sources

FPS = 2.0
SECONDS_OFF, COLOURS_OFF = 0.01, 4.0
"""Bounds: a rounding of time stamps; the chroma of pictures with odd sides (0.0 elsewhere)."""
PREVIEWS = 7
QUICK = {
    "h264_b3.avi", "xvid_b.avi", "mirrored.mp4", "transposed.mp4", "zeros.mp4", "45_degrees.mp4",
    "sei_mirrored.ts", "joined.ts", "joined.mpg", "ahead.ts", "programmes.ts", "wrap.ts",
    "two.mp4", "cover_first.mp4", "song.m4a", "unknown.mp4", "anamorphic.webm",
}  # fmt: skip

pytestmark = ffmpeg.needs_ffmpeg


class Row(NamedTuple):
    """What we keep of a file beside what FFmpeg shows of it.

    Attributes:
      name: of the file.
      frames: kept and due.
      seconds: largest difference of times.
      size: (width, height) kept and due, upright.
      shape: width over height as shown, ours and due.
      colour: largest mean difference of a frame, in levels of 255.
      previews: wrong ones, of `PREVIEWS`.
      wrong: what is not as it should be.
      said: remarks, or the sentence that refuses the file.
    """

    name: str
    frames: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    size: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    shape: tuple[float, float] = (0.0, 0.0)
    colour: float = 0.0
    previews: int = 0
    wrong: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def compare(case: Made, path: pathlib.Path, sources: Sources, real: bool = False) -> Row:
    """A file as it is decoded here and by FFmpeg; any remark is right if it is `real`."""
    try:
        clip = decode.decode_frames(path, FPS)
    except decode.VideoError as error:
        fine = case.refused and case.refused in str(error)
        return Row(case.name, wrong=() if fine else ("refused",), said=(error.reason,))
    if case.refused:
        return Row(case.name, wrong=("not refused",), said=("",))
    corrupt = _corrupt_seconds(path)
    due = _due(case, path, sources, corrupt)
    count = min(len(clip.frames), len(due.times))
    off = np.abs(clip.times[:count] - due.times[:count]).max()
    kept = ffmpeg.squares(clip.frames[:count]).astype(int)
    colour = np.abs(kept - due.pictures[:count]).mean((1, 2, 3)).max()
    as_shown = decode.decode_frames(path, FPS, short_side=16, look="shown")
    shape = (due.size[0] * due.aspect[0]) / (due.size[1] * due.aspect[1])
    ours = as_shown.width / as_shown.height
    size, previews = (clip.width, clip.height), _wrong_previews(path, clip, corrupt)
    expected = [case.remark] if case.remark else []
    wrong = {
        "frames": len(clip.frames) != len(due.times),
        "times": off > SECONDS_OFF,
        "size": size != due.size,
        "shape": abs(ours / shape - 1) > 0.01,
        "picture": colour > COLOURS_OFF,
        "previews": previews > 0,
        "remarks": not real and not _match(clip.remarks, expected),
    }
    return Row(
        case.name, (len(clip.frames), len(due.times)), float(off), (size, due.size), (ours, shape),
        float(colour), previews, tuple(what for what, is_so in wrong.items() if is_so),
        clip.remarks,
    )  # fmt: skip


def _due(
    case: Made, path: pathlib.Path, sources: Sources, corrupt: list[float]
) -> ffmpeg.Shown:
    if not case.parts:
        return ffmpeg.shown(path, FPS, case.before, case.stream, case.filters, corrupt)
    parts = [ffmpeg.shown(sources.folder / part, FPS) for part in case.parts]
    times, begin = list[np.ndarray](), 0.0
    for part in parts:
        times.append(part.times + begin)
        begin += part.all_times[-1] + 1 / RATE
    pictures = np.concatenate([part.pictures for part in parts])
    return parts[0]._replace(times=np.concatenate(times), pictures=pictures)


def _corrupt_seconds(path: pathlib.Path) -> list[float]:
    with opened(path) as stream:
        pictures = timed(stream, packets.decode_all(stream, Clock()), [])
        return [time for time, picture in pictures if picture.is_corrupt]


def _match(said: tuple[str, ...], expected: list[str]) -> bool:
    return bool(said) == bool(expected) and all(any(e in s for s in said) for e in expected)


def _wrong_previews(path: pathlib.Path, clip: decode.Clip, corrupt: list[float]) -> int:
    """How many of some seconds, asked for one by one, give another picture than is stored.

    Seconds of which nothing but a corrupt frame is stored do not count.
    """
    stored = decode.decode_frames(path, FPS, short_side=32, jpeg_quality=90).frames
    asked = np.unique(np.linspace(0, len(clip.frames) - 1, PREVIEWS).astype(int)).tolist()
    asked = [n for n in asked if all(abs(clip.times[n] - second) > 1e-3 for second in corrupt)]
    got = {n: decode.jpeg_at(path, float(clip.times[n]), 32, 90, look="stored") for n in asked}
    return sum(jpeg != stored[n] for n, jpeg in got.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("made")


def _cases() -> list:
    return [
        pytest.param(case, id=case.name, marks=[] if case.name in QUICK else [pytest.mark.slow])
        for case in all_cases()
    ]


@pytest.mark.parametrize("case", _cases())
def test_a_made_file_shows_what_ffmpeg_shows(case: Made, folder: pathlib.Path) -> None:
    sources = Sources(folder / "sources")
    case.make(folder / case.name, sources)
    row = compare(case, folder / case.name, sources)
    assert not row.wrong, row


def test_hdr_shows_the_common_picture_that_it_was_made_of(folder: pathlib.Path) -> None:
    sources = Sources(folder / "sources")
    tags = "color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    common, hdr = folder / "common.mp4", folder / "hdr.mp4"
    lossless = ("-c:v", "libx265", "-x265-params", "log-level=none:lossless=1")
    ffmpeg.run(
        "-i", sources.pictures(), "-frames:v", "2", "-vf",
        f"scale=out_color_matrix=bt709:out_range=tv,lutyuv=y='60+val/3':u='64+val/2':v='64+val/2',format=yuv420p,"
        f"setparams={tags}", *lossless, common,
    )  # fmt: skip
    ffmpeg.run(
        "-i", common, "-vf", "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt2020:"
        "t=smpte2084:m=bt2020nc:r=tv:npl=203,format=yuv420p10le", "-color_primaries", "bt2020",
        "-color_trc", "smpte2084", "-colorspace", "bt2020nc", *lossless, hdr,
    )  # fmt: skip
    due = ffmpeg.squares(decode.decode_frames(common).frames).astype(int)
    shown = ffmpeg.squares(decode.decode_frames(hdr, look="shown").frames)
    stored = ffmpeg.squares(decode.decode_frames(hdr).frames)
    assert np.abs(shown - due).mean() < 3
    assert np.abs(stored - due).mean() > 12


def test_untagged_hd_shows_what_bt_709_gives(folder: pathlib.Path) -> None:
    sources = Sources(folder / "sources")
    path = folder / "hd.mp4"
    ffmpeg.run("-i", sources.pictures("1280x720", 1, "1"), "-pix_fmt", "yuv420p", path)
    for look, filters in (("stored", ""), ("shown", "scale=in_color_matrix=bt709,")):
        due = ffmpeg.shown(path, 1.0, filters=filters).pictures.astype(int)
        kept = ffmpeg.squares(decode.decode_frames(path, look=look).frames)
        assert np.abs(kept - due).mean() < 1, look


def _real_files() -> list[pathlib.Path]:
    root = pathlib.Path(os.environ.get("NCL_REAL_DATA", "/nowhere"))
    folders = ("videos", "msvd/videos", "msrvtt/videos")
    return sorted(p for f in folders for p in (root / f).rglob("*.*") if p.is_file())


@pytest.mark.slow
@pytest.mark.skipif(not _real_files(), reason="set NCL_REAL_DATA to the folder of real videos")
def test_real_files_show_what_ffmpeg_shows(folder: pathlib.Path) -> None:
    sources = Sources(folder / "sources")
    rows = [compare(_real(path), path, sources, real=True) for path in _real_files()]
    assert len(rows) >= 30
    assert [row for row in rows if row.wrong] == []


def _real(path: pathlib.Path) -> Made:
    return Made(path.name, lambda path, sources: None)


def main(folders: list[str]) -> int:
    """Prints the table; returns the number of files that are not as they should be."""
    print("| file | frames | of | s off | size | of | shape | of | colour off | previews | wrong |")
    print("|" + 11 * "---|")
    wrong = rows = 0
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        sources = Sources(root / "sources")
        files = [p for f in folders for p in sorted(pathlib.Path(f).rglob("*.*")) if p.is_file()]
        for case, path in [(_real(p), p) for p in files] + [
            (case, root / case.name) for case in all_cases()
        ]:
            case.make(path, sources)
            row = compare(case, path, sources, real=path in files)
            print(_line(row), flush=True)
            wrong, rows = wrong + bool(row.wrong), rows + 1
    print(f"{rows} files, {wrong} wrong")
    return wrong


def _line(row: Row) -> str:
    if not row.frames[0]:
        return f"| {row.name} | {row.said[0]} {9 * '| '}| {', '.join(row.wrong)} |"
    sizes = (f"{width}x{height}" for width, height in row.size)
    cells = [
        row.name, *row.frames, f"{row.seconds:.3f}", *sizes, *(f"{s:.3f}" for s in row.shape),
        f"{row.colour:.1f}", row.previews, ", ".join(row.wrong),
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
