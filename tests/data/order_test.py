"""The order of training pairs: complete epochs, and batches without a clip twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncl_jax.data.order import DistinctClips, shuffled


def stream(order, count, start=0):
    return np.array([order[i] for i in range(start, start + count)])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 9), st.data())
@settings(max_examples=80, deadline=None)
def test_distinct_clips_keeps_its_promises(captions, seed, data):
    """Any numbers of captions, any batch size that is allowed, across many edges of epochs."""
    clip = np.repeat(np.arange(len(captions)), captions)
    pairs, most = len(clip), max(captions)
    size = data.draw(st.integers(1, (pairs + 1) // (most + 1)))
    order = DistinctClips(clip, size, seed)
    epochs = 5
    seen = stream(order, epochs * pairs)
    for epoch in range(epochs):
        np.testing.assert_array_equal(
            np.sort(seen[epoch * pairs : (epoch + 1) * pairs]), np.arange(pairs)
        )
    for first in range(0, len(seen) - size + 1, size):
        shown = clip[seen[first : first + size]]
        assert len(set(shown)) == size
    # A resumed run does not go through the epochs before.
    again = DistinctClips(clip, size, seed)
    np.testing.assert_array_equal(stream(again, pairs, 4 * pairs), seen[4 * pairs :])
    largest = (pairs + 1) // (most + 1)
    with pytest.raises(ValueError, match=f"train.batch_size of at most {largest}, because"):
        DistinctClips(clip, (pairs + 1) // (most + 1) + 1, seed)


def test_distinct_clips_mixes_well():
    """All captions of a clip, and all clips, meet about as often as in a plain shuffle."""
    clip = np.repeat(np.arange(100), 5)
    order = DistinctClips(clip, 20, seed=0)
    met = np.zeros((100, 100))
    place = np.zeros(500)
    for epoch in range(200):
        pairs = stream(order, 500, epoch * 500)
        place[pairs] += np.arange(500) / 200
        for shown in clip[pairs].reshape(25, 20):
            met[np.ix_(shown, shown)] += 1
    away = met[~np.eye(100, dtype=bool)]
    assert met.diagonal().tolist() == [1000] * 100
    expected = 200 * 5 * 19 / 99
    assert abs(away.mean() / expected - 1) < 1e-9
    assert away.std() < 2 * expected**0.5
    assert abs(place / 249.5 - 1).max() < 0.2


def test_orders_differ_by_seed_and_epoch():
    clip = np.arange(64)
    for make in (lambda s: shuffled(64, s), lambda s: DistinctClips(clip, 8, s)):
        first, second = stream(make(0), 64), stream(make(0), 64, 64)
        assert (first != second).any()
        assert (first != stream(make(1), 64)).any()
        assert sorted(first) == sorted(second) == list(range(64))


@pytest.mark.slow
def test_full_size_sets_are_ordered_quickly_enough_to_use():
    """MSR-VTT 9k at CLIP4Clip's batch and at the largest one there can be."""
    clip = np.repeat(np.arange(9000), 20)
    for size in (128, 8571):
        order = DistinctClips(clip, size, 0)
        start = 180_000 // size * size
        assert len(set(clip[stream(order, size, start)])) == size
