"""A head that scores pairs: its step and its evaluation against plain loops over the scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ncl_jax import losses
from ncl_jax.distributed import sharding
from ncl_jax.evaluation.banks import bank_of
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.evaluation.evaluate import evaluate
from ncl_jax.evaluation.scorers import PairScorer
from ncl_jax.models import clip
from ncl_jax.training.step import init_state, make_step
from tests import tiny

RNG = np.random.default_rng(0)


def table_score(text, video):
    """A score that is no cosine: both sides carry one feature of their own."""
    return np.sin(3 * text @ np.moveaxis(video, 0, -1)[0]) + video[:, 1, 0]


def split(texts, videos, seed):
    rng = np.random.default_rng(seed)
    of = np.concatenate([np.arange(videos), rng.integers(0, videos, texts - videos)])
    text = rng.normal(size=(texts, 3)).astype(np.float32)
    video = rng.normal(size=(videos, 2, 3)).astype(np.float32)
    return Embedded(text, video, of, [str(v) for v in range(videos)])


def test_blocks_are_the_whole_matrix():
    shapes = set()

    def score(text, video):
        shapes.add((text.shape, video.shape))
        return table_score(text, video)

    test = split(11, 7, 0)
    test.text[1] = test.text[0]  # the same caption twice
    got = PairScorer(score, 4).scores(test.text, test.video)
    np.testing.assert_allclose(got, table_score(test.text, test.video), atol=1e-5)
    assert shapes == {((4, 3), (4, 2, 3))}  # one shape: compiled once
    np.testing.assert_array_equal(got[0], got[1])


def sinkhorn(scores, iterations):
    """Biases of the columns, by loops."""
    queries, items = scores.shape
    b = np.array([np.log(queries / items) - np.log(np.exp(c).sum()) for c in scores.T])
    for _ in range(iterations):
        a = [-np.log(np.exp(row + b).sum()) for row in scores]
        b = np.array([np.log(queries / items) - np.log(np.exp(c + a).sum()) for c in scores.T])
    return b


def test_biases_come_from_the_head_s_scores_of_the_bank():
    test, bank = split(9, 6, 1), split(20, 8, 2)
    found, biases = evaluate(test, bank_of(bank), PairScorer(table_score, 100), iterations=3)
    assert biases is None
    scores = table_score(test.text, test.video)
    for row, to_video, to_text in (
        ("plain", np.zeros(6), np.zeros(9)),
        ("inductive", sinkhorn(table_score(bank.text, test.video), 3),
         sinkhorn(table_score(test.text, bank.video).T, 3)),
        ("transductive", sinkhorn(scores, 3), sinkhorn(scores.T, 3)),
    ):
        biased = scores + to_video
        ranks = [1 + (r > r[v]).sum() for r, v in zip(biased, test.video_of_text, strict=True)]
        assert found["text_to_video"][row]["MnR"] == pytest.approx(np.mean(ranks))
        biased = scores + to_text[:, None]
        groups = np.array([biased[test.video_of_text == v].max(axis=0) for v in range(6)])
        ranks = [1 + (groups[:, v] > groups[v, v]).sum() for v in range(6)]
        assert found["video_to_text"][row]["MnR"] == pytest.approx(np.mean(ranks))
    assert found["fit"]["inductive"]["video"]["bank"] == 20


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("mapper", ["shard_map", "pmap"])
def test_the_step_differentiates_the_head_s_scores(mapper):
    """On four devices, against autodiff of InfoNCE on the whole score matrix."""
    sizes = dataclasses.replace(tiny.SIZES, temporal="tightTransf")
    towers, params = clip.functional(clip.VideoClip(sizes, rngs=nnx.Rngs(0)))
    b = tiny.batch(0, 8)

    def whole(params):
        text = towers.encode_text(params, b.tokens, b.token_mask)
        scores = towers.score(params, text, towers.encode_video(params, b.video, b.frame_mask))
        rows, columns = (jax.nn.log_softmax(scores, axis) for axis in (1, 0))
        return -(jnp.diag(rows) + jnp.diag(columns)).mean() / 2

    want, grads = jax.jit(jax.value_and_grad(whole))(params)
    optimizer, mesh = optax.sgd(1.0), sharding.data_mesh(jax.devices()[:4])

    def loss(*pairs):
        return losses.infonce(*pairs, axis_name=sharding.AXIS, positives="diagonal"), {}

    state = init_state(params, optimizer, 0)
    shardings = sharding.state_sharding(state, mesh, "replicated")
    step = sharding.map_step(make_step(towers, loss, optimizer), mesh, mapper, shardings)
    after, metrics = step.run(sharding.place_state(state, shardings), step.place(b))
    assert float(metrics["loss"]) == pytest.approx(float(want), rel=1e-5)
    moved = tiny.leaves(params) - tiny.leaves(after.params)
    assert np.linalg.norm(moved) > 1e-3
    assert np.linalg.norm(moved - tiny.leaves(grads)) < 1e-4 * np.linalg.norm(moved)
