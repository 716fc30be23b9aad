#!/usr/bin/env bash
# Pillow reports a format of a picture that it refuses as a format to open.
#
# `Image.open(file, formats=[...])` limits what may be opened, and one expects every name that `image.format`
# reports to be accepted there. The pictures of many phones and stereo cameras are MPO, several JPEGs in one
# file. Pillow 13.0.0 opens one and reports "MPO", but `formats=["MPO"]` ends with a bare KeyError, before the
# file is looked at; allowed as "JPEG" it opens, and reports "MPO" again. So a list of allowed formats that is
# made of reported names fails, and one of ["JPEG"] lets MPO in.
#
# Seen with Python 3.11:
#   Pillow 13.0.0: format reported: MPO
#   Pillow 13.0.0: formats=["MPO"]: KeyError: 'MPO'
#   Pillow 13.0.0: formats=["JPEG"]: MPO, 2 frames
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q pillow==13.0.0
"$folder/env/bin/python" - << 'PYTHON'
import io

import PIL
from PIL import Image

said = f"Pillow {PIL.__version__}"
stream = io.BytesIO()
left, right = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
left.save(stream, "MPO", save_all=True, append_images=[right])


def opened(*formats):
    return Image.open(io.BytesIO(stream.getvalue()), formats=formats or None)


print(f"{said}: format reported: {opened().format}")
assert opened().format == "MPO"
try:
    opened("MPO")
except KeyError as error:
    print(f'{said}: formats=["MPO"]: KeyError: {error}')
else:
    raise SystemExit("the reported format was accepted")
jpeg = opened("JPEG")
print(f'{said}: formats=["JPEG"]: {jpeg.format}, {jpeg.n_frames} frames')
assert (jpeg.format, jpeg.n_frames) == ("MPO", 2)
PYTHON
