"""Decoding in a process of its own: whatever a file does to a decoder, the caller goes on.

A `VideoWorker` hands files to `python -m ncl_jax.video.worker`, which answers with packed
clips. A file that takes too long, crashes the decoder or wants too much memory costs that process,
which is replaced, and becomes a `VideoError` like any other bad file.

A process first decodes a file that is known to be good. So a reader that does not work on this
machine, with these versions, is a `ReaderFault`, and so is an exception that no file should cause:
neither is ever taken for a bad file.
"""

import contextlib
import io
import json
import os
import pathlib
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ncl_jax.errors import InputError
from ncl_jax.video.decode import Clip, Look, Probe, VideoError, decode_frames, file_name, probe
from ncl_jax.video.example import Kind, decode_example
from ncl_jax.video.process import Process
from ncl_jax.video.transcode import transcode

# Address space of a worker: enough for 8K pictures, too little to freeze a laptop.
_MEMORY = 8 << 30
_STARTING_SECONDS = 120.0
_KNOWN_GOOD = pathlib.Path(__file__).with_name("known_good.mp4")
"""48 x 32 pixels, two seconds of H.264 at 10 frames per second: one red, one blue."""


class ReaderFault(RuntimeError):
    """The reader itself is broken, or a library does not fit it; no file is to blame."""


class VideoWorker:
    """One decoding process, started at the first use and again after it was lost.

    Use it from one thread at a time, and `close` it. Example:

        with contextlib.closing(VideoWorker(seconds=900)) as worker:
            clip = unpack(worker.decode("a.mp4", fps=1.0, short_side=224, jpeg_quality=90))
    """

    def __init__(self, seconds: float):
        """`seconds`: time limit for each call."""
        if not seconds > 0:
            raise InputError(f"seconds: expected a time limit > 0, got {seconds}")
        self._seconds = seconds
        self._process: Process | None = None
        self._closed, self._starting = False, threading.Lock()

    def decode(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float,
        short_side: int,
        jpeg_quality: int,
        look: Look = "stored",
    ) -> bytes:
        """`video.decode_frames` to JPEG frames, packed for `unpack`.

        Raises:
          VideoError: also for a file that takes too long or ends the process.
          ReaderFault: the reader is broken.
          TimeoutError: the process did not start in time.
        """
        request = {"fps": fps, "short_side": short_side, "jpeg_quality": jpeg_quality}
        return self._ask(path, {**request, "look": look})

    def decode_example(
        self,
        path: str | os.PathLike[str],
        kind: Kind,
        *,
        fps: float,
        short_side: int,
        jpeg_quality: int,
        look: Look,
    ) -> bytes:
        """`video.example.decode_example`, packed for `unpack`, with the same limits."""
        request = {"fps": fps, "short_side": short_side, "jpeg_quality": jpeg_quality}
        return self._ask(path, {**request, "look": look, "kind": kind})

    def probe(self, path: str | os.PathLike[str], deep: bool = False) -> Probe:
        """`video.probe`, with the same limits."""
        return Probe(*json.loads(self._ask(path, {"deep": deep})))

    def transcode(self, path: str | os.PathLike[str], start: float, end: float) -> bytes:
        """`video.transcode`, with the same limits."""
        return self._ask(path, {"start": start, "end": end})

    def close(self) -> None:
        """Ends the process for good, from any thread; a call under way raises `VideoError`."""
        with self._starting:
            self._closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _ask(self, path: str | os.PathLike[str], request: dict[str, Any]) -> bytes:
        process = self._ready_process(path)
        answer = process.ask({"path": os.path.abspath(path), **request}, self._seconds)
        if answer.kind == "done":
            return answer.data
        if answer.kind == "error":
            raise VideoError(path, answer.text)
        self._end()
        if answer.kind == "late":
            self._bad(path, f"more than {self._seconds:g} s of work")
        if answer.kind == "killed":
            self._bad(path, f"a decoder that ended with {answer.text}")
        raise ReaderFault(
            f"the video reader failed on {file_name(path)}; whatever the file holds, this is a "
            f"fault of the program\n{answer.text}"
        )

    def _bad(self, path: str | os.PathLike[str], got: str) -> NoReturn:
        raise VideoError(path, f"expected a readable video, got {got}")

    def _ready_process(self, path: str | os.PathLike[str]) -> Process:
        """The process, which has shown that it can read."""
        with self._starting:
            if self._closed:
                raise VideoError(path, "not read, reading was stopped")
            if self._process is not None:
                return self._process
            process = self._process = Process("ncl_jax.video.worker")
        seconds = max(self._seconds, _STARTING_SECONDS)
        answer = process.first_answer(seconds)
        if answer.kind == "ready":
            return process
        self._end()
        if self._closed:
            raise VideoError(path, "not read, reading was stopped")
        if answer.kind == "late":
            raise TimeoutError(
                f"a video reading process did not start within {seconds:g} s; start the same "
                "command again when the machine is less busy"
            )
        raise ReaderFault(
            "the video reader cannot read a file that is known to be good, so it does not work "
            f"with this machine or these versions of its libraries\n{answer.account}"
        )


def pack(clip: Clip) -> bytes:
    """A clip of JPEG frames as plain NumPy arrays in one block of bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        jpegs=np.frombuffer(b"".join(clip.frames), np.uint8),
        lengths=np.array([len(frame) for frame in clip.frames], np.int64),
        times=clip.times,
        source=np.array([clip.source_fps, clip.width, clip.height], np.float64),
        remarks=np.frombuffer(json.dumps(clip.remarks).encode(), np.uint8),
    )
    return buffer.getvalue()


def unpack(data: bytes) -> Clip:
    """The inverse of `pack`.

    Raises:
      ValueError: the block is cut short or another one.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            jpegs, ends = arrays["jpegs"].tobytes(), np.cumsum(arrays["lengths"]).tolist()
            times, (fps, width, height) = arrays["times"], arrays["source"].tolist()
            remarks = _remarks(arrays)
    except Exception as error:  # zipfile and NumPy raise many kinds
        raise InputError(f"packed clip: expected arrays, got {error}") from error
    frames = [jpegs[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return Clip(frames, times, fps, int(width), int(height), remarks)


def remarks_of(packed: BinaryIO) -> tuple[str, ...]:
    """The remarks of a packed clip in an open file; its frames are not read."""
    with np.load(packed, allow_pickle=False) as arrays:
        return _remarks(arrays)


def _remarks(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(json.loads(arrays["remarks"].tobytes()))


# -- the process ---------------------------------------------------------------------------------


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _check_reader() -> None:
    """Reads the file that is known to be good.

    Raises:
      RuntimeError: it gives something else than it holds.
    """
    clip = decode_frames(_KNOWN_GOOD, fps=1.0)
    colours = [frame.mean((0, 1)).round() for frame in clip.frames]
    red_and_blue = np.array([(200, 30, 30), (30, 30, 200)])
    if np.shape(colours) != (2, 3) or np.abs(colours - red_and_blue).max() > 25:
        raise RuntimeError(f"expected one red and one blue frame, got the colours {colours}")


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    def answer(kind: str, data: bytes) -> None:
        answers.write(f"{kind} {len(data)}\n".encode() + data)
        answers.flush()

    try:
        _check_reader()
        answer("ready", b"")
        for line in requests:
            answer(*_answer(json.loads(line)))
    except Exception:
        answer("fault", traceback.format_exc().encode())


def _answer(request: dict[str, Any]) -> tuple[str, bytes]:
    try:
        if "deep" in request:
            return "done", json.dumps(probe(**request)).encode()
        if "start" in request:
            return "done", transcode(**request)
        if "kind" in request:
            return "done", pack(decode_example(**request))
        return "done", pack(decode_frames(**request))
    except VideoError as error:
        return "error", error.reason.encode()
    except MemoryError:
        wanted = f"expected a readable video, got one that needs over {_MEMORY >> 30} GB of memory"
        return "error", wanted.encode()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what an interrupt means
    _limit_memory()
    # What a library prints must not come between the answers.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, pipe)
