#!/usr/bin/env bash
# PyAV: an MP4 that is written into a buffer with movflags=faststart fails when it is closed.
#
# A `BytesIO` can be read and sought, so one would expect that the index can be moved to its front,
# as in a file. FFmpeg's muxer opens the output a second time, by its name, to do that; a Python
# object has no name, and the error says only that a file is missing. Every packet was accepted
# before. A fragmented MP4 (frag_keyframe+empty_moov), which needs no second pass, is written.
#
# Seen with Python 3.13:
#   av 17.1.0: faststart: FileNotFoundError [Errno 2] No such file or directory; fragmented: 10 frames
#   av 19.0.2: faststart: FileNotFoundError [Errno 2] No such file or directory; fragmented: 10 frames
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 17.1.0 19.0.2; do
  "${PYTHON:-python3.13}" -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q "av==$version" "numpy>=2,<3"
  (cd "$folder" && "$folder/$version/bin/python" - "$version" << 'PYTHON')
import io
import sys

import av
import numpy as np


def write(flags: str) -> io.BytesIO:
    buffer = io.BytesIO()
    with av.open(buffer, "w", "mp4", options={"movflags": flags}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    buffer.seek(0)
    return buffer


try:
    write("faststart")
except FileNotFoundError as error:
    seen = f"FileNotFoundError {str(error).partition(':')[0].strip()}"
else:
    raise AssertionError("faststart is written into a buffer now")
with av.open(write("frag_keyframe+empty_moov")) as container:
    frames = sum(1 for _ in container.decode(video=0))
print(f"av {sys.argv[1]}: faststart: {seen}; fragmented: {frames} frames")
assert frames == 10
PYTHON
done
