"""The input pipeline on a small rendered corpus: order, position, views, padding, damage."""

import contextlib
import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

import tfds_builders
from ncl_jax.data import clips, pipeline, records
from ncl_jax.data.clips import View
from ncl_jax.data.tokenizer import Tokenizer

SHAPES = clips.Shapes(max_frames=3, image_size=32, max_tokens=16)
ORDINARY = View()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    directory = tfds_builders.prepare(
        "demo", root / "manual", root / "tfds", short_side=32, train=8, val=4, test=4
    )
    return records.load_split(directory, "train")


@pytest.fixture(scope="module")
def tokenizer(split):
    return Tokenizer.train(split.captions, 600)


def take(split, tokenizer, count, view=ORDINARY, **options):
    options = {"batch_size": 4, "seed": 0} | options
    batches = pipeline.train_batches(split, tokenizer, SHAPES, view, **options)
    with contextlib.closing(batches):
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


def together(parts):
    """What the processes hold in each step, put side by side in the order of positions."""
    return [r for step in zip(*map(rows_by_step, parts), strict=True)
            for r in np.stack(step, 1).reshape(-1, step[0].shape[-1]).tolist()]


def rows_by_step(batches):
    return [np.column_stack([b.video_id, b.tokens]) for b in batches]


@pytest.mark.parametrize("distinct_clips", [False, True])
def test_any_number_of_processes_goes_on_from_any_position(split, tokenizer, distinct_clips):
    """Steps on one process, then on two, then on four: the same samples in the same order."""
    options = {"batch_size": 4, "distinct_clips": distinct_clips}
    count = len(split.captions)
    steps = -(-2 * count // 4)
    whole = together([take(split, tokenizer, steps, **options)])
    legs = []
    for processes, first, last in ((1, 0, 5), (2, 5, 11), (4, 11, steps)):
        legs += together([
            take(split, tokenizer, last - first, start=4 * first, process_index=i,
                 process_count=processes, **options)
            for i in range(processes)
        ])
    assert legs == whole
    epoch = sorted(map(tuple, legs[:count]))
    tokens, _ = tokenizer(split.captions, SHAPES.max_tokens)
    assert epoch == sorted(
        (int(v), *map(int, t)) for v, t in zip(split.video_of_text, tokens, strict=True)
    )
    if distinct_clips:
        shown = np.array(legs)[:, 0].reshape(-1, 4)
        assert all(len(set(batch)) == 4 for batch in shown)


def test_batches_do_not_depend_on_threads_or_cache(split, tokenizer):
    a = take(split, tokenizer, 4, threads=1)
    b = take(split, tokenizer, 4, threads=8, cache_clips=100)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.video, y.video)


RANDOM = View("tsn_random", "random", "random_resized", 0.3, flip=True)


def test_random_views_are_a_function_of_seed_and_position(split, tokenizer):
    a = take(split, tokenizer, 6, RANDOM, threads=1)
    b = take(split, tokenizer, 3, RANDOM, threads=3, start=12, cache_clips=9)
    for x, y in zip(a[3:], b, strict=True):
        np.testing.assert_array_equal(x.video, y.video)
    halves = [take(split, tokenizer, 6, RANDOM, process_index=i, process_count=2) for i in (0, 1)]
    for x, *parts in zip(a, *halves, strict=True):
        np.testing.assert_array_equal(x.video[0::2], parts[0].video)
        np.testing.assert_array_equal(x.video[1::2], parts[1].video)
    other = take(split, tokenizer, 6, RANDOM, seed=1)
    assert any((x.video != y.video).any() for x, y in zip(a, other, strict=True))


def test_batch_has_the_promised_shapes(split, tokenizer):
    (batch,) = take(split, tokenizer, 1)
    assert batch.video.shape == (4, 3, 32, 32, 3)
    assert batch.video.dtype == np.uint8
    assert batch.frame_mask.shape == (4, 3)
    assert batch.tokens.shape == batch.token_mask.shape == (4, 16)
    assert batch.valid.all()
    assert batch.video.std() > 10  # pictures, not padding


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_batches_are_complete_and_padded(split, tokenizer, processes):
    """Side by side the processes hold every caption and clip once, in order, then padding."""
    share = {"process_count": processes}
    texts = [
        list(pipeline.text_batches(split.captions[:10], tokenizer, 16, 4, process_index=i, **share))
        for i in range(processes)
    ]
    ids, tokens, mask = (
        np.concatenate([part[k] for step in zip(*texts, strict=True) for part in step])
        for k in (0, 1, 2)
    )
    assert ids.tolist() == [*range(10), -1, -1]
    expected, expected_mask = tokenizer(split.captions[:10], 16)
    assert len(tokens) == 12
    np.testing.assert_array_equal(tokens[:10], expected)
    np.testing.assert_array_equal(mask[:10], expected_mask)
    assert not tokens[10:].any()
    assert not mask[10:].any()
    videos = [
        list(pipeline.video_batches(split, SHAPES, View(), 4 + processes % 4 // 2 * 2,
                                    process_index=i, **share))
        for i in range(processes)
    ]
    ids, frames, mask = (
        np.concatenate([part[k] for step in zip(*videos, strict=True) for part in step])
        for k in (0, 1, 2)
    )
    assert ids[:8].tolist() == list(range(8))
    assert (ids[8:] == -1).all()
    for video in range(8):
        expected, expected_mask = clips.clip_frames(split.jpegs(video), SHAPES, View(), None)
        np.testing.assert_array_equal(frames[video], expected)
        np.testing.assert_array_equal(mask[video], expected_mask)
    assert not mask[8:].any()


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 8))
def test_each_item_is_evaluated_exactly_once(count, share, processes):
    size = share * processes
    rows = [pipeline.evaluation_rows(count, size, i, processes) for i in range(processes)]
    assert {r.shape for r in rows} == {(-(-count // size), share)}
    whole = np.stack(rows, 1).ravel()
    assert whole[:count].tolist() == list(range(count))
    assert (whole[count:] == -1).all()
    assert len(whole) - count < size


def test_shuffled_frames_are_the_same_frames(split):
    plain, mixed, again = (
        np.concatenate([v for _, v, _ in pipeline.video_batches(split, SHAPES, view, 4, threads=t)])
        for view, t in ((View(), 4), (View(order="random"), 1), (View(order="random"), 2))
    )
    assert (plain != mixed).any()
    np.testing.assert_array_equal(mixed, again)
    for a, b in zip(plain, mixed, strict=True):
        assert sorted(f.tobytes() for f in a) == sorted(f.tobytes() for f in b)


def test_missing_split_names_those_there_are(tmp_path):
    directory = tfds_builders.prepare(
        "demo", tmp_path / "manual", tmp_path / "tfds", short_side=32, train=2, val=2, test=2
    )
    with pytest.raises(ValueError, match=r"split 'dev': .* has \['test', 'train', 'val'\]"):
        records.load_split(directory, "dev")


def test_impossible_batches_are_refused(split, tokenizer):
    with pytest.raises(ValueError, match=r"train\.batch_size: expected a multiple of the 3 proc"):
        take(split, tokenizer, 1, process_count=3)
    with pytest.raises(ValueError, match=r"data\.distinct_clips: expected train\.batch_size of"):
        take(split, tokenizer, 1, batch_size=9, distinct_clips=True)
    with pytest.raises(ValueError, match=r"eval\.batch_size: expected a multiple of the 2"):
        pipeline.evaluation_rows(5, 3, 0, 2)
    with pytest.raises(ValueError, match="seed: expected a number >= 0, got -1"):
        take(split, tokenizer, 1, seed=-1)


@pytest.mark.parametrize("threads", [0, 1, 8])
def test_a_batch_may_exceed_the_set(split, tokenizer, threads):
    one = dataclasses.replace(
        split, video_ids=split.video_ids[:1], captions=["ein Café 日本 🙂"],
        video_of_text=split.video_of_text[:1],
    )
    (batch,) = take(one, tokenizer, 1, batch_size=5, threads=threads)
    assert batch.video_id.tolist() == [0] * 5
    assert batch.valid.all()
    ((_, frames, mask),) = pipeline.video_batches(one, SHAPES, View(), 5, threads=threads)
    assert mask.any(1).tolist() == [True] + [False] * 4
    np.testing.assert_array_equal(frames[0], batch.video[0])


def test_a_damaged_picture_is_named(split, tokenizer):
    class Damaged:
        def __getitem__(self, video):
            record = split.records[video]
            return record | {"frames": [b"\xff\xd8broken"] * 3} if video == 2 else record

        def __len__(self):
            return len(split.records)

    damaged = dataclasses.replace(split, records=Damaged())
    with pytest.raises(ValueError, match=f"clip '{split.video_ids[2]}': frame 0: expected a JPEG"):
        list(pipeline.video_batches(damaged, SHAPES, View(), 4))
    with pytest.raises(ValueError, match=f"clip '{split.video_ids[2]}'"):
        take(damaged, tokenizer, 20)


def test_damaged_records_are_named(tmp_path):
    directory = tfds_builders.prepare(
        "demo", tmp_path / "manual", tmp_path / "tfds", short_side=32, train=2, val=2, test=2
    )
    split = records.load_split(directory, "train")
    (path,) = pathlib.Path(directory).glob("*-train.array_record*")
    whole = path.read_bytes()
    spoiled = bytearray(whole)
    spoiled[1000] ^= 255
    for content in (spoiled, whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        said = r"record 0 \(of split 'train'.* is damaged \(.*\); delete"
        with pytest.raises(ValueError, match=said):
            records.load_split(directory, "train")
    path.write_bytes(spoiled)
    source = tfds.builder_from_directory(directory).as_data_source("train")
    again = dataclasses.replace(split, records=source)
    name = split.video_ids[0]
    with pytest.raises(ValueError, match=rf"clip '{name}': record 0 is damaged \(.*\); delete"):
        list(pipeline.video_batches(again, SHAPES, View(), 2))
