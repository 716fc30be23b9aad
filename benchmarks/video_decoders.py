"""Every decoder's way from a video file to JPEG frames, timed side by side in one process.

    PYTHON -m benchmarks.video_decoders BLOCKS FILE...

PYTHON needs av, numpy and pillow; decoders that do not import are left out. Prints one JSON object:
file -> decoder -> CPU seconds of each block. CPU seconds of all threads count, so clips per second
are per core. The frames are those of `ncl_jax.video.decode.decode_frames`, by their numbers;
resizing and JPEG are Pillow's for all.
"""

import importlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from ncl_jax.video import decode, packets
from ncl_jax.video.clock import Clock
from ncl_jax.video.container import opened
from ncl_jax.video.times import timed

os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
FPS, SHORT_SIDE, QUALITY = 1.0, 224, 90
Numbers = list[int]


def ours(path: str, numbers: Numbers) -> list[bytes]:
    """What the builders do; it finds the frames by itself."""
    return decode.decode_frames(path, FPS, SHORT_SIDE, QUALITY).frames


def pyav(path: str, numbers: Numbers) -> list[bytes]:
    """Decodes forward to the last wanted frame."""
    import av

    wanted, frames = set(numbers), []
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                frames.append(_jpeg(frame.to_ndarray(format="rgb24")))
            if number >= numbers[-1]:
                break
    return frames


def opencv(path: str, numbers: Numbers) -> list[bytes]:
    """Grabs forward, retrieves the wanted frames."""
    import cv2

    cv2.setNumThreads(1)
    wanted, frames = set(numbers), []
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    for number in range(numbers[-1] + 1):
        capture.grab()
        if number in wanted:
            frames.append(_jpeg(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)))
    capture.release()
    return frames


def decord(path: str, numbers: Numbers) -> list[bytes]:
    """Its batch reader, which seeks by itself."""
    import decord as library

    reader = library.VideoReader(path, num_threads=1)
    return [_jpeg(frame) for frame in reader.get_batch(numbers).asnumpy()]


def torchcodec(path: str, numbers: Numbers) -> list[bytes]:
    """Its batch reader in the faster of its two seek modes."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(
        path, num_ffmpeg_threads=1, seek_mode="approximate", dimension_order="NHWC"
    )
    return [_jpeg(frame) for frame in decoder.get_frames_at(numbers).data.numpy()]


def _jpeg(image: np.ndarray) -> bytes:
    height, width = image.shape[:2]
    short = min(height, width)
    size = (SHORT_SIDE * width // short, SHORT_SIDE * height // short)
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if short != SHORT_SIDE:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


DECODERS: dict[str, tuple[str, Callable[[str, Numbers], list[bytes]]]] = {
    "ours": ("av", ours),
    "PyAV": ("av", pyav),
    "OpenCV": ("cv2", opencv),
    "decord": ("decord", decord),
    "torchcodec": ("torchcodec", torchcodec),
}


def frame_numbers(path: str) -> Numbers:
    """Positions in the file of the frames that `decode_frames` keeps."""
    times = decode.decode_frames(path, FPS, 8).times
    with opened(path) as stream:
        pictures = timed(stream, packets.decode_all(stream, Clock()), [])
        shown = np.array([time for time, _ in pictures])
    return [int(np.abs(shown - time).argmin()) for time in times]


def _available() -> Iterator[tuple[str, Callable[[str, Numbers], list[bytes]]]]:
    for name, (module, function) in DECODERS.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError):
            print(f"B8: {name} does not import here and is left out", file=sys.stderr)
        else:
            yield name, function


def measure(path: str, blocks: int) -> dict[str, list[float]]:
    """CPU seconds per decoder and block, interleaved, after one warm-up that compares frames.

    A decoder that gives other frames is left out, by message.
    """
    numbers = frame_numbers(path)
    expected = [decode.decode_jpeg(data).astype(int) for data in ours(path, numbers)]
    decoders = {}
    for name, function in _available():
        try:
            got = [decode.decode_jpeg(data).astype(int) for data in function(path, numbers)]
        except Exception as error:  # a peer's own kinds
            print(f"B8: {name} fails on {os.path.basename(path)}: {error}", file=sys.stderr)
            continue
        off = max((np.abs(a - b).mean() for a, b in zip(got, expected, strict=False)), default=0)
        if len(got) != len(expected) or off > 6:
            print(f"B8: {name} gives other frames of {os.path.basename(path)}", file=sys.stderr)
            continue
        decoders[name] = function
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(blocks):
        for name, function in decoders.items():
            start = time.process_time()
            function(path, numbers)
            seconds[name].append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    print(json.dumps({path: measure(path, int(sys.argv[1])) for path in sys.argv[2:]}))
