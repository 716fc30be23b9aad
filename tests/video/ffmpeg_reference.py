"""FFmpeg's own command as the judge of what a file shows: which frames, when, what colour.

The program is the one that imageio-ffmpeg carries (requirements-test.txt), else the system's.
"""

import functools
import importlib.util
import math
import pathlib
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

SIDE = 64
OLDEST = 8
_SHOWN = re.compile(
    rb"showinfo[^\n]*\] n: *\d+ pts: *\S+ pts_time:(\S+) .*?sar:(\d+)/(\d+) s:(\d+)x(\d+)"
)


@functools.cache
def program() -> str | None:
    """The command's path, None where there is no FFmpeg of at least version `OLDEST`."""
    path = shutil.which("ffmpeg")
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
    if path is None:
        return None
    said = subprocess.run([path, "-version"], capture_output=True, text=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)\.", said)
    return path if version and int(version[1]) >= OLDEST else None


needs_ffmpeg = pytest.mark.skipif(
    program() is None,
    reason=f"no ffmpeg {OLDEST} or newer to compare with: pip install imageio-ffmpeg",
)


class Shown(NamedTuple):
    """What FFmpeg shows of a file at every tick.

    Attributes:
      all_times: seconds since the first frame, [frame].
      times: those of the chosen frames, [tick].
      pictures: uint8 [tick, SIDE, SIDE, 3], `squares` of the chosen frames.
      size: (width, height) of the first frame, upright, in stored pixels.
      aspect: (width, height) of a pixel, upright; (1, 1) where the file does not say.
    """

    all_times: np.ndarray
    times: np.ndarray
    pictures: np.ndarray
    size: tuple[int, int]
    aspect: tuple[int, int]


def squares(images: Iterable[np.ndarray]) -> np.ndarray:
    """Each image shrunk to SIDE x SIDE pixels by averaging, uint8 [image, SIDE, SIDE, 3]."""
    shrunk = (Image.fromarray(i).resize((SIDE, SIDE), Image.Resampling.BOX) for i in images)
    return np.array([np.asarray(image) for image in shrunk])


def run(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[bytes]:
    """Runs FFmpeg; an error of its own is an error here."""
    command = [str(program()), "-hide_banner", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done


def shown(
    path: pathlib.Path,
    fps: float,
    before: Sequence[str] = (),
    stream: str = "",
    filters: str = "",
    corrupt: Collection[float] = (),
) -> Shown:
    """Decodes a file twice: for the times of all frames, then for the pictures at the ticks.

    Args:
      path: the file.
      fps: ticks per second.
      before: options of the input.
      stream: which one, as "0:v:1"; the one FFmpeg chooses if empty.
      filters: of the pictures in their own size and format, each with a comma behind it.
      corrupt: seconds of frames that decoders flag as corrupt.
    """
    wanted = ["-map", stream] if stream else []
    command = ["-threads", "1", *before, "-i", path, *wanted, "-an", "-sn", "-dn",
               "-fps_mode", "passthrough", "-vf"]  # fmt: skip
    lines = _SHOWN.findall(run(*command, "showinfo=checksum=0", "-f", "null", "-").stderr)
    stamps = np.array([float(time) for time, *_ in lines])
    across, down, width, height = map(int, lines[0][1:])
    times = stamps - stamps[0]
    chosen = at_ticks(times, fps, corrupt)
    near = "+".join(f"lt(abs(t-({stamps[position]})),0.0005)" for position in chosen)
    done = run(*command, f"select='{near}',{filters}format=rgb24", "-f", "rawvideo", "-")
    images = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    if len(images) != len(chosen):
        raise RuntimeError(f"{path}: {len(images)} pictures for {len(chosen)} ticks")
    aspect = (across, down) if across and down else (1, 1)
    return Shown(times, times[chosen], squares(images), (width, height), aspect)


def at_ticks(times: np.ndarray, fps: float, corrupt: Collection[float] = ()) -> list[int]:
    """Positions of the first frame at or after each tick, by the rule of docs/datasets.md.

    Args:
      times: seconds, [frame].
      fps: ticks per second.
      corrupt: seconds of frames that are chosen only if no sound one comes before the next tick.
    """
    shown = [n for n, time in enumerate(times) if n == 0 or time > max(times[:n])]
    ticks: dict[int, list[int]] = {}
    for position in shown:
        ticks.setdefault(math.floor((times[position] + 1e-6) * fps), []).append(position)
    bad = {n for n in shown if any(abs(times[n] - second) < 0.002 for second in corrupt)}
    return [next((n for n in frames if n not in bad), frames[0]) for frames in ticks.values()]
