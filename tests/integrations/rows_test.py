"""What both packages hand over, without either of them."""

import numpy as np
import pytest

from ncl_jax.errors import InputError
from ncl_jax.integrations.rows import paired_ids, rows_of, unit


def test_a_clip_and_its_captions_have_one_id_whichever_searches():
    captions, clips = ["a1", "a2", "b1", "c1"], ["a", "b", "c"]
    relevant = {"a1": {"a": 1}, "a2": {"a": 1}, "b1": {"b": 1}, "c1": {"c": 1}}
    of_captions, of_clips = paired_ids(captions, clips, relevant)
    assert [of_captions.tolist().index(i) for i in of_clips] == [0, 2, 3]
    assert of_captions[0] == of_captions[1]
    turned = {"a": {"a1", "a2"}, "b": {"b1"}, "c": {"c1"}}
    of_clips, of_captions = paired_ids(clips, captions, turned)
    assert [np.flatnonzero(of_captions == i).tolist() for i in of_clips] == [[0, 1], [2], [3]]


def test_grade_zero_and_unknown_names_connect_nothing():
    relevant = {"q": {"x": 0, "y": 1}, "s": {"x": 1}, "r": ["z"]}
    query, item = paired_ids(["q", "r"], ["x", "y"], relevant)
    assert query[0] == item[1]
    assert len({*query.tolist(), *item.tolist()}) == 3


def test_no_relevance_gives_every_name_an_id_of_its_own():
    query, item = paired_ids(["q"], ["x"], {})
    assert query[0] != item[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [(np.zeros((2, 3, 4)), "one vector per row"), (np.zeros(3), "one vector per row"),
     (np.array([["a"]]), "real numbers")],
)  # fmt: skip
def test_other_shapes_and_types_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        rows_of(given, "queries")


def test_a_row_of_zeros_stays_one():
    assert unit(np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_tensors_of_torch_are_read(dtype):
    torch = pytest.importorskip("torch", reason="needs requirements-mteb.txt")
    rows = rows_of(torch.eye(2, dtype=getattr(torch, dtype)).requires_grad_(), "queries")
    np.testing.assert_array_equal(rows, np.eye(2, dtype=np.float32))


def test_sparse_tensors_are_refused():
    torch = pytest.importorskip("torch", reason="needs requirements-mteb.txt")
    with pytest.raises(InputError, match="expected dense embeddings"):
        rows_of(torch.eye(2).to_sparse(), "queries")
