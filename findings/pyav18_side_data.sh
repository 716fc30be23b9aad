#!/usr/bin/env bash
# PyAV 18.1 cannot read the side data of a frame that has EXIF beside it.
#
# FFmpeg 8.1, which av 18.1.0 carries, puts the EXIF block of a JPEG beside the decoded frame
# (AV_FRAME_DATA_EXIF, 31), together with the display matrix that follows from its orientation.
# PyAV 18.1 knows the kinds 0 to 27, and `VideoFrame.side_data` raises for the whole frame: the
# matrix cannot be read either. `VideoFrame.rotation` still works, but gives -180 for a picture that
# is to be mirrored. av 19.0.2 reads both. A way out on 18.1: FFmpeg's filter `sidedata` takes the
# unknown kind away by number.
#
# Seen with Python 3.13:
#   av 18.1.0: side_data: ValueError: 31 is not a valid Type; rotation -180
#   av 18.1.0: behind sidedata=mode=delete:type=31: kinds [6]
#   av 19.0.2: side_data: kinds [6, 31]; rotation -180
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 18.1.0 19.0.2; do
  "${PYTHON:-python3.13}" -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q "av==$version" "numpy>=2,<3"
  (cd "$folder" && "$folder/$version/bin/python" - "$version" << 'PYTHON')
import struct
import sys

import av
import numpy as np

entry = struct.pack("<HHHII", 1, 0x112, 3, 1, 2) + bytes(4)  # orientation 2: mirrored
exif = b"Exif\0\0II*\0\x08\0\0\0" + entry
segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
with av.open("camera.avi", "w") as container:
    stream = container.add_stream("mjpeg", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
    frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
    frame.pts = 0
    for packet in [*stream.encode(frame), *stream.encode()]:
        data = bytes(packet)
        copy = av.Packet(data[:2] + segment + data[2:])
        copy.pts = copy.dts = 0
        copy.time_base, copy.stream, copy.is_keyframe = packet.time_base, stream, True
        container.mux(copy)

with av.open("camera.avi") as container:
    frame = next(container.decode(video=0))


def kinds(frame: av.VideoFrame) -> list[int]:
    data = frame.side_data
    return sorted(data[position].type.value for position in range(len(data)))


version = sys.argv[1]
if version == "19.0.2":
    print(f"av {version}: side_data: kinds {kinds(frame)}; rotation {frame.rotation}")
    assert kinds(frame) == [6, 31]
else:
    try:
        kinds(frame)
    except ValueError as error:
        print(f"av {version}: side_data: ValueError: {error}; rotation {frame.rotation}")
        assert "31" in str(error)
    else:
        raise AssertionError("side_data can be read now")
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=64, height=48, format=frame.format, time_base=frame.time_base
    )
    without, sink = graph.add("sidedata", "mode=delete:type=31"), graph.add("buffersink")
    source.link_to(without)
    without.link_to(sink)
    graph.configure()
    graph.push(frame)
    behind = kinds(graph.pull())
    print(f"av {version}: behind sidedata=mode=delete:type=31: kinds {behind}")
    assert behind == [6]
assert frame.rotation == -180, "the rotation of a mirrored picture is something else now"
PYTHON
done
