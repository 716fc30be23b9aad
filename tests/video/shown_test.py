"""How a picture looks: turned and mirrored, in shape, in its colours; on files written here."""

import fractions
import itertools
import pathlib
import struct
from collections.abc import Callable

import av
import numpy as np
import pytest

from ncl_jax.video import colour, decode, orientation

CARD = np.zeros((48, 80, 3), np.uint8)
CARD[:24, :40], CARD[:24, 40:], CARD[24:, :40] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
"""Red, green, blue and black quarters: no two orientations look alike."""


def write(
    path: pathlib.Path,
    image: np.ndarray = CARD,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
    count: int = 3,
    convert: Callable[[av.VideoFrame], av.VideoFrame] = lambda frame: frame,
    **settings: object,
) -> pathlib.Path:
    """Frames of one image; `settings` are attributes of the codec."""
    options = {"libx264": {"crf": "1"}, "libx265": {"x265-params": "log-level=none:crf=1"}}
    form = "rgb24" if image.dtype == np.uint8 else "rgb48le"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options.get(codec, {}))
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = pix_fmt
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for number in range(count):
            frame = convert(av.VideoFrame.from_ndarray(image, format=form))
            frame.pts, frame.time_base = number, fractions.Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_matrix(path: pathlib.Path, *numbers: float) -> pathlib.Path:
    """Overwrites the display matrix (a, b, u, c, d, v, x, y, w) in the track header of an MP4."""
    data = bytearray(path.read_bytes())
    fixed = [round(n * (1 << (30 if i % 3 == 2 else 16))) for i, n in enumerate(numbers)]
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *fixed)
    path.write_bytes(data)
    return path


def matrix(a: float, b: float, c: float, d: float) -> bytes:
    numbers = np.array([a, b, 0, c, d, 0, 0, 0, 16384]) * 65536
    return numbers.round().astype(np.int32).tobytes()


def moved(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Every pixel put where the matrix says, one by one."""
    places = {
        (a * x + c * y, b * x + d * y): image[y, x]
        for y, x in itertools.product(*map(range, image.shape[:2]))
    }
    left, top = (min(place[i] for place in places) for i in (0, 1))
    right, bottom = (max(place[i] for place in places) for i in (0, 1))
    out = np.zeros((bottom - top + 1, right - left + 1, *image.shape[2:]), image.dtype)
    for (x, y), pixel in places.items():
        out[y - top, x - left] = pixel
    return out


EIGHT = [
    (a * first, b * second, b * first, a * second)
    for (a, b), first, second in itertools.product([(1, 0), (0, 1)], (1, -1), (1, -1))
]


@pytest.mark.parametrize("numbers", EIGHT)
@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
def test_the_eight_orientations(numbers: tuple[int, int, int, int], scale: float) -> None:
    image = np.arange(15).reshape(3, 5)
    turn = orientation.from_matrix(matrix(*(scale * n for n in numbers)))
    assert turn is not None
    np.testing.assert_array_equal(turn.apply(image), moved(image, *numbers))


def test_eight_orientations_differ() -> None:
    assert len({orientation.from_matrix(matrix(*numbers)) for numbers in EIGHT}) == 8


@pytest.mark.parametrize(
    "numbers",
    [(0, 0, 0, 0), (0.7071, 0.7071, -0.7071, 0.7071), (1, 0.5, 0, 1), (1, 0, 0, 0),
     (0, 1, 0, 0), (1, 1, 1, 1), (0.99, 0.1, -0.1, 0.99)],
)  # fmt: skip
def test_what_is_no_orientation(numbers: tuple[float, ...]) -> None:
    assert orientation.from_matrix(matrix(*numbers)) is None


def test_matrices_that_are_nearly_orientations_or_cut_short() -> None:
    assert orientation.from_matrix(matrix(1, 0.003, -0.003, -1)) == (False, False, True)
    assert orientation.from_matrix(matrix(1, 0, 0, 1)[:35]) is None


def near(image: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two images look alike; encoding blurs the edges of the quarters."""
    return image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("numbers", EIGHT)
def test_a_file_is_shown_by_its_matrix(
    tmp_path: pathlib.Path, numbers: tuple[int, int, int, int]
) -> None:
    a, b, c, d = numbers
    path = with_matrix(write(tmp_path / "a.mp4"), a, b, 0, c, d, 0, 0, 0, 1)
    clip = decode.decode_frames(path, short_side=None)
    expected = moved(CARD, *numbers)
    assert near(clip.frames[0], expected)
    assert (clip.height, clip.width) == expected.shape[:2]
    assert clip.remarks == ()
    probe = decode.probe(path)
    assert (probe.height, probe.width) == expected.shape[:2]
    preview = decode.decode_jpeg(decode.jpeg_at(path, 0.1, 48, 95))
    assert near(preview, expected)


@pytest.mark.parametrize("numbers", [[0.0] * 9, [0.7, 0.7, 0, -0.7, 0.7, 0, 0, 0, 1]])
def test_a_matrix_that_is_no_orientation_is_ignored_and_said(
    tmp_path: pathlib.Path, numbers: list[float]
) -> None:
    clip = decode.decode_frames(with_matrix(write(tmp_path / "a.mp4"), *numbers))
    assert near(clip.frames[0], CARD)
    assert clip.remarks == ("a display matrix that is no orientation is ignored",)


def test_an_orientation_in_a_jpeg_beside_kinds_of_data_that_pyav_does_not_know(
    tmp_path: pathlib.Path,
) -> None:
    entry = struct.pack("<HHHII", 1, 0x112, 3, 1, 2) + bytes(4)  # orientation 2: mirrored
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entry
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuvj444p"
        frame = av.VideoFrame.from_ndarray(CARD, format="rgb24")
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode()]:
            data = bytes(packet)
            copy = av.Packet(data[:2] + segment + data[2:])
            copy.pts = copy.dts = 0
            copy.time_base, copy.stream, copy.is_keyframe = packet.time_base, stream, True
            container.mux(copy)
    assert near(decode.decode_frames(path).frames[0], CARD[:, ::-1])


# -- the shape of pixels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aspect", "shown"), [((64, 45), (114, 48)), ((8, 9), (71, 48)), ((1, 1), (80, 48))]
)
def test_pixels_that_are_not_square(
    tmp_path: pathlib.Path, aspect: tuple[int, int], shown: tuple[int, int]
) -> None:
    path = write(tmp_path / "a.mp4", sample_aspect_ratio=fractions.Fraction(*aspect))
    stored, made = decode.decode_frames(path), decode.decode_frames(path, look="shown")
    assert (stored.width, stored.height) == (80, 48)
    assert stored.frames[0].shape == (48, 80, 3)
    assert (made.width, made.height) == shown
    assert made.frames[0].shape == (*shown[::-1], 3)
    small = decode.decode_frames(path, short_side=24, look="shown")
    assert small.frames[0].shape == (24, 24 * shown[0] // shown[1], 3)


def test_a_turned_picture_keeps_the_shape_of_its_pixels(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mp4", sample_aspect_ratio=fractions.Fraction(3, 2))
    clip = decode.decode_frames(with_matrix(path, 0, 1, 0, -1, 0, 0, 0, 0, 1), look="shown")
    assert (clip.width, clip.height) == (48, 120)


def test_a_senseless_shape_of_pixels_is_ignored_and_said(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mp4", sample_aspect_ratio=fractions.Fraction(6, 1))
    clip = decode.decode_frames(path, look="shown")
    assert (clip.width, clip.height) == (80, 48)
    assert clip.remarks == ("a pixel aspect ratio of 6 is ignored",)
    assert decode.decode_frames(path).remarks == ()


def test_an_unknown_look_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="look: expected one of stored, shown, got 'pretty'"):
        decode.decode_frames(tmp_path / "a.mp4", look="pretty")  # type: ignore[arg-type]


# -- colours -------------------------------------------------------------------------------------


def by_709(frame: av.VideoFrame) -> av.VideoFrame:
    """To YUV by the matrix of BT.709, which the file then does not name."""
    return frame.reformat(format="yuv444p", dst_colorspace="ITU709")


@pytest.mark.parametrize(("height", "width", "is_hd"), [(720, 1280, True), (576, 720, False)])
def test_untagged_hd_is_bt_709_as_players_have_it(
    tmp_path: pathlib.Path, height: int, width: int, is_hd: bool
) -> None:
    image = np.full((height, width, 3), (200, 60, 30), np.uint8)
    path = write(tmp_path / "a.mp4", image, convert=by_709, count=1)
    stored = decode.decode_frames(path).frames[0].astype(int)
    shown = decode.decode_frames(path, look="shown").frames[0].astype(int)
    assert np.abs(stored - image).max() > 8  # FFmpeg's scaler takes BT.601 at any size
    if is_hd:
        assert np.abs(shown - image).max() <= 3
    else:
        np.testing.assert_array_equal(shown, stored)


def test_a_matrix_that_the_file_names_counts_in_both_looks(tmp_path: pathlib.Path) -> None:
    image = np.full((720, 1280, 3), (200, 60, 30), np.uint8)
    path = write(tmp_path / "a.mp4", image, convert=by_709, count=1, colorspace=1)
    for look in ("stored", "shown"):
        frame = decode.decode_frames(path, look=look).frames[0]
        assert np.abs(frame.astype(int) - image).max() <= 3


# Light to codes, in float64, by the definitions: SMPTE ST 2084, ITU-R BT.2100 and BT.1886.

TO_2020 = np.linalg.inv(
    np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
)


def screen(codes: np.ndarray) -> np.ndarray:
    """cd/m2 of 8-bit codes on a screen of gamma 2.4 and 203 cd/m2."""
    return 203 * (np.asarray(codes) / 255) ** 2.4


def pq(light: np.ndarray) -> np.ndarray:
    y = np.asarray(light) / 10000
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    return ((c1 + c2 * y**m1) / (1 + c3 * y**m1)) ** m2


def hlg(light: np.ndarray) -> np.ndarray:
    y = np.asarray(light) / 1000
    luma = (y @ [0.2627, 0.6780, 0.0593])[..., None]
    scene = y * np.maximum(luma, 1e-12) ** (1 / 1.2 - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        high = 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


COLOURS = np.array(
    [(16, 16, 16), (64, 64, 64), (128, 128, 128), (190, 190, 190), (220, 220, 220), (200, 60, 30),
     (30, 120, 60), (40, 60, 180), (210, 180, 150), (5, 9, 3), (0, 0, 0)]
)  # fmt: skip


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_tone_mapping_keeps_what_a_common_screen_shows(transfer: str) -> None:
    light = np.maximum(screen(COLOURS) @ TO_2020.T, 0)
    codes = np.round({"pq": pq, "hlg": hlg}[transfer](light) * 65535).astype(np.uint16)
    shown = colour.tone_mapped(codes, transfer == "hlg").astype(int)
    assert np.abs(shown - COLOURS).max() <= 1


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_tone_mapping_bends_bright_light_and_keeps_its_order(transfer: str) -> None:
    grey = np.repeat(np.geomspace(1, 1000, 40)[:, None], 3, 1)
    codes = np.round({"pq": pq, "hlg": hlg}[transfer](grey) * 65535).astype(np.uint16)
    shown = colour.tone_mapped(codes, transfer == "hlg").astype(int)
    levels = shown[:, 0]
    assert (np.abs(shown - levels[:, None]) <= 1).all()  # grey stays grey
    assert (np.diff(levels) >= 0).all()
    linear = 255 * (grey[:, 0] / 203) ** (1 / 2.4)
    dark = grey[:, 0] <= 203 * colour.KNEE
    assert np.abs(levels - linear)[dark].max() <= 1
    assert levels[-1] == 255
    white = np.abs(grey[:, 0] - 203).argmin()
    assert 240 <= levels[white] <= 250


def test_tone_mapping_keeps_hues() -> None:
    light = np.array([[900.0, 300.0, 100.0]])  # in BT.709's colours, brighter than white
    shown = colour.tone_mapped(
        np.round(pq(light) * 65535).astype(np.uint16), hlg=False, wide=False
    )
    ratios = screen(shown)[0] / screen(shown)[0, 0]
    np.testing.assert_allclose(ratios, light[0] / 900, rtol=0.03)


@pytest.mark.parametrize(("transfer", "number"), [("pq", 16), ("hlg", 18)])
@pytest.mark.parametrize("short_side", [None, 24])
def test_hdr_video_looks_like_the_common_picture_of_it(
    tmp_path: pathlib.Path, transfer: str, number: int, short_side: int | None
) -> None:
    light = np.maximum(screen(CARD // 2 + 60) @ TO_2020.T, 0)
    codes = np.round({"pq": pq, "hlg": hlg}[transfer](light) * 65535).astype(np.uint16)
    path = write(
        tmp_path / "a.mkv", np.kron(codes, np.ones((3, 3, 1), np.uint16)), codec="libx265",
        pix_fmt="gbrp10le", count=2, color_trc=number, color_primaries=9,
    )  # fmt: skip
    expected = np.kron(CARD // 2 + 60, np.ones((3, 3, 1), np.uint8))
    if short_side:
        expected = expected[3::6, 3::6]
    shown = decode.decode_frames(path, short_side=short_side, look="shown").frames[0]
    assert near(shown, expected)
    stored = decode.decode_frames(path, short_side=short_side).frames[0]
    assert np.abs(stored.astype(int) - expected).mean() > 8  # washed out
