#!/usr/bin/env bash
# FFmpeg's zscale filter (zimg) applies HLG's system gamma to each colour by itself.
#
# ITU-R BT.2100 defines the OOTF of HLG on luminance: every colour of a pixel is multiplied by one
# factor, luminance to the power of 0.2. zscale raises each of the three colours to the power of 1.2
# (and back). Greys agree with the standard to four digits; saturated colours do not: full red of
# BT.709 at 203 cd/m2 gets the red code 0.669 where BT.2100 gives 0.709. So HLG test pictures that
# are made with zscale tell a converter by the standard wrong by up to 40 of 255 levels.
#
# Seen with imageio-ffmpeg 0.8.1 (FFmpeg 9.0.2 with libzimg), Python 3.13:
#   grey of code 128: zscale 0.447, by BT.2100 0.447
#   red: zscale 0.669, by BT.2100 0.709, with the gamma of each colour 0.67
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q "imageio-ffmpeg==0.8.1" "numpy>=2,<3"
"$folder/env/bin/python" - << 'PYTHON'
import subprocess

import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
CHAIN = (
    "format=gbrp,setparams=color_primaries=bt709:color_trc=bt709:colorspace=gbr:range=pc,"
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt2020:t=arib-std-b67:npl=203,"
    "format=gbrp16le"
)


def zscale(colour: str) -> float:
    """The red code of a colour on a screen of 203 cd/m2, as HLG."""
    source = f"color={colour}:size=64x64:rate=25:duration=0.04"
    command = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", source, "-vf", CHAIN, "-f", "rawvideo"]
    out = subprocess.run([*command, "-"], capture_output=True, check=True).stdout
    return float(np.frombuffer(out, np.uint16).reshape(3, -1)[2, 0] / 65535)


def code(scene: float) -> float:
    if scene <= 1 / 12:
        return float(np.sqrt(3 * scene))
    return float(0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)


def standard(rgb: tuple[int, int, int], each: bool = False) -> float:
    light = TO_2020 @ (np.array(rgb) / 255) ** 2.4 * 203 / 1000
    luminance = np.array([0.2627, 0.6780, 0.0593]) @ light
    return code(light[0] ** (1 / 1.2) if each else light[0] * luminance ** (1 / 1.2 - 1))


grey, red = zscale("0x808080"), zscale("0xFF0000")
print(f"grey of code 128: zscale {grey:.3f}, by BT.2100 {standard((128, 128, 128)):.3f}")
print(
    f"red: zscale {red:.3f}, by BT.2100 {standard((255, 0, 0)):.3f}, "
    f"with the gamma of each colour {standard((255, 0, 0), each=True):.2f}"
)
assert abs(grey - standard((128, 128, 128))) < 0.001
assert abs(red - standard((255, 0, 0), each=True)) < 0.005
assert abs(red - standard((255, 0, 0))) > 0.03
PYTHON
