#!/usr/bin/env bash
# PyAV makes up presentation times that the file does not state.
#
# An AVI keeps the order of decoding only. FFmpeg's command therefore shows frames in the order in
# which the decoder hands them out. PyAV opens every file with AVFMT_FLAG_GENPTS, and libavformat
# then derives the presentation times of H.264 with B-frames from the order of decoding: the frames
# come in the right order with times that jump. Code that chooses frames by `frame.pts` takes wrong
# ones. Clearing the flag after opening leaves `pts` None and the usable time in `frame.dts`.
#
# Seen with av 18.1.0 (FFmpeg 8.1) and av 19.0.2 (FFmpeg 9.0), Python 3.13:
#   as opened:    pts [1, 2, 3, 6, 5, 7, 4, 10]
#   flag cleared: pts [None, None, None, None, None, None, None, None] dts [2, 3, 4, 5, 6, 7, 8, 9]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 18.1.0 19.0.2; do
  "${PYTHON:-python3.13}" -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q "av==$version" "numpy>=2,<3"
  (cd "$folder" && "$folder/$version/bin/python" - << 'PYTHON')
import av
import numpy as np

with av.open("b.avi", "w") as container:
    stream = container.add_stream("libx264", rate=25, options={"bf": "3", "threads": "1"})
    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
    y, x = np.mgrid[:240, :320]
    for number in range(50):  # a moving texture, so that the encoder has a use for B-frames
        image = np.stack([(x + 3 * number) % 256, (y + number) % 256, (x * y // 64) % 256], -1)
        frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def stamps(cleared: bool) -> tuple[list, list]:
    with av.open("b.avi") as container:
        if cleared:
            container.flags &= ~1  # AVFMT_FLAG_GENPTS
        container.streams.video[0].thread_type = "NONE"
        frames = list(container.decode(video=0))[:8]
    return [f.pts for f in frames], [f.dts for f in frames]


made_up, stated = stamps(cleared=False)[0], stamps(cleared=True)
print(f"av {av.__version__}: as opened: pts {made_up}")
print(f"av {av.__version__}: flag cleared: pts {stated[0]} dts {stated[1]}")
assert made_up != sorted(made_up), "the times are in order now"
assert stated[0] == [None] * 8, "the file states times now"
assert stated[1] == list(range(stated[1][0], stated[1][0] + 8)), "the order of decoding is gone"
PYTHON
done
