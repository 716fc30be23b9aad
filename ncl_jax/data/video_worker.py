"""Decoding in a process of its own: whatever a file does to a decoder, the caller goes on.

A `VideoWorker` hands files to `python -m ncl_jax.data.video_worker`, which answers with packed
clips. A file that takes too long, crashes the decoder or wants too much memory costs that process,
which is replaced, and becomes a `VideoError` like any other bad file.
"""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from typing import Any, BinaryIO

import numpy as np

from ncl_jax.data import video

# Address space of a worker: enough for 8K pictures, too little to freeze a laptop.
_MEMORY = 8 << 30
_ROOT = pathlib.Path(__file__).parents[2]


class VideoWorker:
    """One decoding process, started at the first use and again after it was lost.

    Use it from one thread at a time, and `close` it. Example:

        with contextlib.closing(VideoWorker(seconds=900)) as worker:
            clip = unpack(worker.decode("a.mp4", fps=1.0, short_side=224, jpeg_quality=90))
    """

    def __init__(self, seconds: float):
        """`seconds`: time limit for each call."""
        if not seconds > 0:
            raise ValueError(f"seconds: expected a time limit > 0, got {seconds}")
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._closed, self._starting = False, threading.Lock()

    def decode(
        self, path: str | os.PathLike[str], *, fps: float, short_side: int, jpeg_quality: int
    ) -> bytes:
        """`video.decode_frames` to JPEG frames, packed for `unpack`.

        Raises:
          VideoError: also for a file that takes too long or ends the process.
        """
        request = {"fps": fps, "short_side": short_side, "jpeg_quality": jpeg_quality}
        return self._ask(path, request)

    def probe(self, path: str | os.PathLike[str], deep: bool = False) -> video.Probe:
        """`video.probe`, with the same limits."""
        return video.Probe(*json.loads(self._ask(path, {"deep": deep})))

    def close(self) -> None:
        """Ends the process for good, from any thread; a call under way raises `VideoError`."""
        with self._starting:
            self._closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _ask(self, path: str | os.PathLike[str], request: dict[str, Any]) -> bytes:
        with self._starting:
            if self._closed:
                raise video.VideoError(f"{video.file_name(path)}: not read, reading was stopped")
            process = self._process = self._process or _start()
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._seconds, stop)
        timer.start()
        try:
            answer = _exchange(process, {"path": os.path.abspath(path), **request})
        finally:
            timer.cancel()
        if answer is not None and not late.is_set():
            kind, data = answer
            if kind == "error":
                raise video.VideoError(data.decode())
            return data
        code = process.wait()
        self._end()
        reason = f"more than {self._seconds:g} s of work" if late.is_set() else _ending(code)
        raise video.VideoError(f"{video.file_name(path)}: expected a readable video, got {reason}")


def _start() -> subprocess.Popen[bytes]:
    """A list of arguments, so no shell ever sees a name."""
    return subprocess.Popen(
        [sys.executable, "-m", "ncl_jax.data.video_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *_python_path()])},
    )


def _python_path() -> list[str]:
    return list(filter(None, [os.environ.get("PYTHONPATH")]))


def _exchange(
    process: subprocess.Popen[bytes], request: dict[str, Any]
) -> tuple[str, bytes] | None:
    """(kind, data) of the answer, None if the process ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        header = process.stdout.readline().split()
        if len(header) != 2:
            return None
        data = process.stdout.read(int(header[1]))
    except (BrokenPipeError, ValueError):  # it ended, or another thread has closed the pipes
        return None
    return (header[0].decode(), data) if len(data) == int(header[1]) else None


def _ending(code: int) -> str:
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"a decoder that ended with {name}"


def pack(clip: video.Clip) -> bytes:
    """A clip of JPEG frames as plain NumPy arrays in one block of bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        jpegs=np.frombuffer(b"".join(clip.frames), np.uint8),
        lengths=np.array([len(frame) for frame in clip.frames], np.int64),
        times=clip.times,
        source=np.array([clip.source_fps, clip.width, clip.height], np.float64),
    )
    return buffer.getvalue()


def unpack(data: bytes) -> video.Clip:
    """The inverse of `pack`.

    Raises:
      ValueError: the block is cut short or another one.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            jpegs, ends = arrays["jpegs"].tobytes(), np.cumsum(arrays["lengths"]).tolist()
            times, (fps, width, height) = arrays["times"], arrays["source"].tolist()
    except Exception as error:  # zipfile and NumPy raise many kinds
        raise ValueError(f"packed clip: expected arrays, got {error}") from error
    frames = [jpegs[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return video.Clip(frames, times, fps, int(width), int(height))


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    for line in requests:
        try:
            kind, data = "done", _answer(json.loads(line))
        except video.VideoError as error:
            kind, data = "error", str(error).encode()
        answers.write(f"{kind} {len(data)}\n".encode() + data)
        answers.flush()


def _answer(request: dict[str, Any]) -> bytes:
    if "deep" in request:
        return json.dumps(video.probe(**request)).encode()
    return pack(video.decode_frames(**request))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what an interrupt means
    _limit_memory()
    _serve(sys.stdin.buffer, sys.stdout.buffer)
