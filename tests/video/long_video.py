"""Videos of hours, written in a moment: what takes long to read."""

import fractions
import pathlib

import av
import numpy as np


def repeat(path: pathlib.Path, size: tuple[int, int], seconds: int, group: int) -> None:
    """A long file from one encoded group of pictures, one picture a second."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (size[1] // 120, size[0] // 120, 3), np.uint8)
    image = np.kron(coarse, np.ones((120, 120, 1), np.uint8))
    options = {"preset": "ultrafast", "g": str(group), "bf": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        packets = []
        for pts in range(group):
            picture = av.VideoFrame.from_ndarray(np.roll(image, pts, axis=1), format="rgb24")
            picture.pts, picture.time_base = pts, fractions.Fraction(1, 1)
            packets += stream.encode(picture)
        packets += stream.encode()
        for start in range(0, seconds, group):
            for pts, packet in enumerate(packets):
                copy = av.Packet(bytes(packet))
                copy.pts = copy.dts = start + pts
                copy.time_base, copy.stream = fractions.Fraction(1, 1), stream
                copy.is_keyframe = packet.is_keyframe
                container.mux(copy)
