"""Which frames, in which order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncl_jax.data.frames import choose_frames, order_frames


@pytest.mark.parametrize(
    ("count", "limit", "how", "expected"),
    [
        (3, 12, "uniform", [0, 1, 2]),
        (12, 12, "tail", list(range(12))),
        (10, 4, "uniform", [0, 3, 6, 9]),
        (11, 4, "uniform", [0, 3, 6, 10]),  # floor of 0, 3.33, 6.67, 10
        (10, 1, "uniform", [0]),
        (10, 4, "head", [0, 1, 2, 3]),
        (10, 4, "tail", [6, 7, 8, 9]),
        (0, 4, "uniform", []),
        (9, 3, "tsn_centre", [1, 4, 7]),
        (8, 3, "tsn_centre", [0, 3, 6]),  # segments 0-1, 2-4, 5-7
        (100, 4, "tsn_centre", [12, 37, 62, 87]),
        (2, 4, "tsn_random", [0, 1]),
    ],
)
def test_choose_frames(count, limit, how, expected):
    chosen = choose_frames(count, limit, how, np.random.default_rng(0))
    assert chosen.tolist() == expected
    assert np.issubdtype(chosen.dtype, np.integer)


@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 2**32))
def test_every_choice_is_increasing_and_in_range(count, limit, seed):
    for how in ("uniform", "head", "tail", "tsn_centre", "tsn_random"):
        chosen = choose_frames(count, limit, how, np.random.default_rng(seed))
        assert len(chosen) == min(count, limit)
        assert (np.diff(chosen) > 0).all()
        assert 0 <= chosen[0] <= chosen[-1] < count


def test_tsn_random_draws_every_frame_of_its_segment():
    draws = [choose_frames(7, 2, "tsn_random", np.random.default_rng(s)) for s in range(200)]
    assert {int(d[0]) for d in draws} == {0, 1, 2}
    assert {int(d[1]) for d in draws} == {3, 4, 5, 6}


def test_orders():
    chosen = np.array([0, 4, 8, 9])
    assert order_frames(chosen, "ordinary").tolist() == [0, 4, 8, 9]
    assert order_frames(chosen, "reverse").tolist() == [9, 8, 4, 0]
    mixed = [tuple(order_frames(chosen, "random", np.random.default_rng(s))) for s in range(200)]
    assert len(set(mixed)) == 24
    assert all(sorted(m) == chosen.tolist() for m in mixed)


def test_other_words_are_refused():
    with pytest.raises(ValueError, match=r"expected one of uniform, head, tail, .*, got 'middle'"):
        choose_frames(3, 2, "middle")
    with pytest.raises(ValueError, match="expected one of ordinary, reverse, random, got 'up'"):
        order_frames(np.arange(3), "up")
    with pytest.raises(ValueError, match="limit: expected"):
        choose_frames(3, 0)
    with pytest.raises(ValueError, match="needs a generator"):
        choose_frames(9, 3, "tsn_random")
    with pytest.raises(ValueError, match="needs a generator"):
        order_frames(np.arange(3), "random")
