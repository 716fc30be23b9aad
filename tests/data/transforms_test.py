"""Frames of a clip against independent versions of CLIP's preprocessing."""

import dataclasses
import io
import types

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ncl_jax.data import clips, transforms
from ncl_jax.data.clips import View
from ncl_jax.models import clip as clip_model

SHAPES = clips.Shapes(max_frames=3, image_size=32, max_tokens=16)
ORDINARY = View()
RNG = np.random.default_rng


def cubic(x):
    """Keys' kernel with a = -1/2, which Pillow calls BICUBIC."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resize_axis(image, size):
    """Antialiased bicubic along the first axis, in float64, one row at a time."""
    count = len(image)
    scale = count / size
    wide = max(scale, 1.0)
    rows = []
    for out in range(size):
        centre = (out + 0.5) * scale
        weights = np.array([cubic((i + 0.5 - centre) / wide) for i in range(count)])
        rows.append(np.tensordot(weights / weights.sum(), image, 1))
    return np.clip(np.round(rows), 0, 255)


def clip_preprocessing(image, size):
    """Short side to `size`, the long one cut to whole pixels, the middle; uint8."""
    height, width = image.shape[:2]
    short = min(height, width)
    new = [size if side == short else int(size * side / short) for side in (height, width)]
    wide = resize_axis(image.astype(float).swapaxes(0, 1), new[1]).swapaxes(0, 1)
    out = resize_axis(wide, new[0])
    top, left = (round((side - size) / 2.0) for side in new)
    return out[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(40, 71), (71, 40), (33, 32), (32, 32), (20, 33), (57, 57)])
def test_resize_and_crop_is_clips_preprocessing(shape):
    image = RNG(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    image[5:20, 5:20] = 255  # a hard edge, where a wrong kernel rings differently
    ours = transforms.resize_and_crop(image, 32)
    assert np.abs(ours.astype(float) - clip_preprocessing(image, 32)).max() <= 1


def test_pixels_are_normalised_as_clip_does(unchecked):
    """On the device, from uint8: (x / 255 - mean) / std by channel."""
    video = RNG(0).integers(0, 256, (2, 3, 4, 4, 3)).astype(np.uint8)
    parts = types.SimpleNamespace(frame_features=lambda x: x, temporal=lambda x, mask: x)
    seen = clip_model.VideoClip.encode_video(parts, video, np.ones((2, 3), bool))
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    for channel in range(3):
        expected = (video[..., channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(
            np.reshape(seen, video.shape)[..., channel], expected, atol=1e-5
        )


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.05, 1), st.integers(0, 2**32))
def test_random_boxes_lie_inside(width, height, least, seed):
    box = transforms.random_box(width, height, least, RNG(seed))
    if box is None:
        return
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    wide, high = box.right - box.left, box.bottom - box.top
    # Rounding a side moves it by half a pixel at most.
    assert (wide + 0.5) * (high + 0.5) >= least * width * height
    assert (wide - 0.5) / (high + 0.5) <= 4 / 3
    assert (wide + 0.5) / (high - 0.5) >= 3 / 4


def test_random_boxes_reach_everywhere():
    boxes = [transforms.random_box(60, 40, 0.2, RNG(s)) for s in range(300)]
    boxes = [b for b in boxes if b]
    assert len(boxes) > 290
    assert min(b.left for b in boxes) == min(b.top for b in boxes) == 0
    assert max(b.right for b in boxes) == 60
    assert max(b.bottom for b in boxes) == 40
    areas = [(b.right - b.left) * (b.bottom - b.top) / 2400 for b in boxes]
    assert min(areas) < 0.25
    assert max(areas) > 0.75


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def grey(value, shape=(32, 40)):
    return np.full((*shape, 3), value, np.uint8)


def show(images, view=ORDINARY, seed=0):
    return clips.clip_frames([jpeg(i) for i in images], SHAPES, view, RNG(seed))


def test_frames_are_chosen_ordered_and_padded():
    images = [grey(20 * i) for i in range(11)]
    for view, expected in (
        (View(), [0, 100, 200]),
        (View("head"), [0, 20, 40]),
        (View("tail", "reverse"), [200, 180, 160]),
        (View("tsn_centre"), [20, 80, 160]),
    ):
        frames, mask = show(images, view)
        np.testing.assert_allclose(frames[:, 5, 5, 0], expected, atol=2)
        assert mask.all()
    frames, mask = show([grey(200)])
    assert mask.tolist() == [True, False, False]
    assert not frames[1:].any()


def test_pictures_of_different_sizes_do_not_touch_each_other():
    rng = RNG(0)
    sizes = [(40, 60), (90, 70), (40, 40)]
    jpegs = [jpeg(rng.integers(0, 255, (*size, 3)).astype(np.uint8)) for size in sizes]
    shapes = dataclasses.replace(SHAPES, max_frames=3)
    together, _ = clips.clip_frames(jpegs, shapes, View(), RNG(0))
    for picture, alone in zip(together, jpegs, strict=True):
        expected, _ = clips.clip_frames([alone], shapes, View(), RNG(0))
        np.testing.assert_array_equal(picture, expected[0])


def test_only_the_chosen_jpegs_are_decoded(monkeypatch):
    decoded = []
    original = simplejpeg.decode_jpeg

    def counting(jpeg, **options):
        decoded.append(jpeg)
        return original(jpeg, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counting)
    jpegs = [jpeg(grey(i)) for i in range(100)]
    clips.clip_frames(jpegs, SHAPES, View(), RNG(0))
    assert decoded == [jpegs[0], jpegs[49], jpegs[99]]
    jpegs[1:49] = [b"never looked at"] * 48
    clips.clip_frames(jpegs, SHAPES, View(), RNG(0))


@pytest.mark.parametrize(
    ("mode", "subsampling"), [("RGB", 0), ("RGB", 1), ("RGB", 2), ("L", -1)]
)
def test_pictures_are_decoded_as_pillow_decodes_them(mode, subsampling):
    image = RNG(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    picture = Image.fromarray(image).resize((32, 32)).convert(mode)
    picture.save(buffer, "JPEG", quality=90, subsampling=subsampling)
    frames, _ = clips.clip_frames([buffer.getvalue()], SHAPES, View(), RNG(0))
    np.testing.assert_array_equal(frames[0], np.asarray(Image.open(buffer).convert("RGB")))


def test_one_crop_and_one_flip_for_all_frames_of_a_clip():
    """The same picture three times gives the same view three times, another in each clip."""
    y, x = np.mgrid[:40, :60]
    image = np.stack([4 * x, 6 * y, x + y], -1).astype(np.uint8)
    seen, flips = set(), []
    for seed in range(40):
        frames, _ = show([image] * 3, View(crop="random_resized", flip=True), seed)
        np.testing.assert_array_equal(frames[0], frames[1])
        np.testing.assert_array_equal(frames[0], frames[2])
        seen.add(frames[0].tobytes())
        flips.append(frames[0, 16, 0, 0] > frames[0, 16, -1, 0])
    assert len(seen) == 40
    assert 8 < sum(flips) < 32
    plain = show([image], View())[0][0]
    mirrored = {show([image], View(flip=True), s)[0][0].tobytes() for s in range(20)}
    assert mirrored == {plain.tobytes(), plain[:, ::-1].tobytes()}


def test_the_box_is_what_is_shown():
    image = RNG(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    box = transforms.Box(10, 4, 42, 36)
    shown = transforms.cut_and_resize(image, box, 32)
    np.testing.assert_array_equal(shown, image[4:36, 10:42])


def test_other_pictures_and_words_are_refused():
    with pytest.raises(ValueError, match="frame 0: expected a JPEG image"):
        clips.clip_frames([b"x"], SHAPES, View(), RNG(0))
    with pytest.raises(ValueError, match="frame 0: expected a JPEG image"):
        clips.clip_frames([jpeg(grey(9))[:300]], SHAPES, View(), RNG(0))
    with pytest.raises(ValueError, match="crop: expected one of centre, random_resized, got 'x'"):
        View(crop="x")
    with pytest.raises(ValueError, match=r"least area: expected a share in \(0, 1\], got 0"):
        View(least_area=0)
    with pytest.raises(ValueError, match="frame choice: expected one of uniform"):
        View("some")
    with pytest.raises(ValueError, match="frame order: expected one of ordinary"):
        View(order="some")


def test_a_random_crop_shows_the_same_part_of_pictures_of_other_sizes():
    rows, columns = np.mgrid[:48, :64]
    small = np.stack([4 * rows, 3 * columns, rows + columns], -1).astype(np.uint8)
    large = np.kron(small, np.ones((2, 2, 1), np.uint8))
    tall = np.asarray(Image.fromarray(small).resize((40, 90), Image.Resampling.BICUBIC))
    for seed in range(20):
        shown, _ = show([small, large, tall], View(crop="random_resized", least_area=0.1), seed)
        for other in shown[1:]:
            assert np.abs(other.astype(int) - shown[0]).mean() < 6
