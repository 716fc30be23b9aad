"""The input pipeline on a small rendered corpus: order, position, padding."""

import io

import numpy as np
import pytest
from PIL import Image

import tfds_builders
from ncl_jax.data import pipeline, transforms
from ncl_jax.data.tokenizer import Tokenizer

SHAPES = pipeline.Shapes(max_frames=3, image_size=32, max_tokens=16)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    directory = tfds_builders.prepare(
        "demo", root / "manual", root / "tfds", short_side=32, train=8, val=4, test=4
    )
    return pipeline.load_split(directory, "train")


@pytest.fixture(scope="module")
def tokenizer(split):
    return Tokenizer.train(split.captions, 600)


def take(split, tokenizer, count, **options):
    options = {"batch_size": 4, "seed": 0} | options
    batches = pipeline.train_batches(split, tokenizer, SHAPES, **options)
    return [next(batches) for _ in range(count)]


def rows(batches):
    """(clip, tokens) of every sample, in order."""
    return [(int(v), tuple(t)) for b in batches for v, t in zip(b.video_id, b.tokens, strict=True)]


def test_every_pair_once_per_epoch_and_another_order_in_the_next(split, tokenizer):
    count = len(split.captions)
    batches = -(-2 * count // 4)
    seen = rows(take(split, tokenizer, batches))
    tokens, _ = tokenizer(split.captions, SHAPES.max_tokens)
    expected = sorted(
        (int(v), tuple(t)) for v, t in zip(split.video_of_text, tokens, strict=True)
    )
    first, second = seen[:count], seen[count : 2 * count]
    assert sorted(first) == sorted(second) == expected
    assert first != second
    assert first != expected


def test_position_is_all_that_resuming_needs(split, tokenizer):
    whole = take(split, tokenizer, 6)
    resumed = take(split, tokenizer, 3, start=12)
    for a, b in zip(whole[3:], resumed, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_processes_share_each_global_batch(split, tokenizer):
    whole = rows(take(split, tokenizer, 5))
    parts = [
        rows(take(split, tokenizer, 5, process_index=i, process_count=2)) for i in range(2)
    ]
    for step in range(5):
        together = parts[0][2 * step : 2 * step + 2] + parts[1][2 * step : 2 * step + 2]
        assert sorted(together) == sorted(whole[4 * step : 4 * step + 4])


def test_batches_do_not_depend_on_threads_or_cache(split, tokenizer):
    a = take(split, tokenizer, 4, threads=1)
    b = take(split, tokenizer, 4, threads=8, cache_clips=100)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.video, y.video)


def test_batch_has_the_promised_shapes(split, tokenizer):
    (batch,) = take(split, tokenizer, 1)
    assert batch.video.shape == (4, 3, 32, 32, 3)
    assert batch.video.dtype == np.uint8
    assert batch.frame_mask.shape == (4, 3)
    assert batch.tokens.shape == batch.token_mask.shape == (4, 16)
    assert batch.valid.all()
    assert batch.video.std() > 10  # pictures, not padding


def test_evaluation_batches_are_complete_and_padded(split, tokenizer):
    tokens = list(pipeline.text_batches(split.captions[:10], tokenizer, 16, 4))
    assert [len(t) for t, _ in tokens] == [4, 4, 4]
    expected, _ = tokenizer(split.captions[:10], 16)
    np.testing.assert_array_equal(np.concatenate([t for t, _ in tokens])[:10], expected)
    assert not np.concatenate([m for _, m in tokens])[10:].any()
    clips = list(pipeline.video_batches(split, SHAPES, 3))
    assert [len(v) for v, _ in clips] == [3, 3, 3]
    frames, mask = pipeline.clip_frames(split.records[7]["frames"], SHAPES)
    np.testing.assert_array_equal(clips[2][0][1], frames)
    assert not clips[2][1][2].any()
    assert mask.all()


def test_shuffled_frames_are_the_same_frames(split):
    plain = np.concatenate([v for v, _ in pipeline.video_batches(split, SHAPES, 4)])
    mixed = np.concatenate([v for v, _ in pipeline.video_batches(split, SHAPES, 4,
                                                                 shuffle_frames=0)])
    assert (plain != mixed).any()
    for a, b in zip(plain, mixed, strict=True):
        assert sorted(f.tobytes() for f in a) == sorted(f.tobytes() for f in b)


def jpeg(value):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_frames_are_evenly_chosen_or_padded():
    frames, mask = pipeline.clip_frames([jpeg(20 * i) for i in range(11)], SHAPES)
    np.testing.assert_allclose(frames[:, 5, 5, 0], [0, 100, 200], atol=6)
    assert mask.all()
    frames, mask = pipeline.clip_frames([jpeg(200)], SHAPES)
    assert mask.tolist() == [True, False, False]
    assert not frames[1:].any()


def test_resize_and_crop_takes_the_middle():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 25:35] = 255
    out = transforms.resize_and_crop(image, 10)
    assert out.shape == (10, 10, 3)
    assert out[:, 4:6].mean() > 250
    assert out[:, 0].mean() < 5
    same = transforms.resize_and_crop(image[:, 20:40], 20)
    np.testing.assert_array_equal(same, image[:, 20:40])


def test_missing_split_names_those_there_are(tmp_path):
    directory = tfds_builders.prepare(
        "demo", tmp_path / "manual", tmp_path / "tfds", short_side=32, train=2, val=2, test=2
    )
    with pytest.raises(ValueError, match=r"split 'dev': .* has \['test', 'train', 'val'\]"):
        pipeline.load_split(directory, "dev")
