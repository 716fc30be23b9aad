"""The heads over frames against loops in NumPy, written from their formulas."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ncl_jax.models import clip, layers, temporal
from tests import tiny

DIM, FRAMES, LAYERS, HEADS = 8, 4, 2, 2
RNG = np.random.default_rng(0)
VIDEO = RNG.normal(size=(3, FRAMES, DIM)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]], bool)
TEXT = RNG.normal(size=(5, DIM)).astype(np.float32)


def make(name, activation="quick_gelu"):
    head = temporal.TEMPORAL_HEADS[name](
        DIM, max_frames=FRAMES, layers=LAYERS, heads=HEADS, activation=activation,
        rngs=nnx.Rngs(1),
    )  # fmt: skip
    graph, state = nnx.split(head)  # weights far from zero, so that nothing cancels
    rng = np.random.default_rng(2)
    return nnx.merge(graph, jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), state))


def linear(module, x):
    return x @ np.asarray(module.kernel[...], np.float64) + np.asarray(module.bias[...])


def norm(module, x):
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return x * np.asarray(module.scale[...]) + np.asarray(module.bias[...])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(x):
    return x / np.linalg.norm(x)


def block(module, tokens):
    """One pre-norm block over the tokens of one clip, token by token."""
    normed = [norm(module.layer_norm1, x) for x in tokens]
    attn, size = module.self_attn, DIM // HEADS
    out = []
    for x in normed:
        parts = []
        for h in range(HEADS):
            of = slice(h * size, (h + 1) * size)
            q = linear(attn.q_proj, x)[of] / np.sqrt(size)
            w = np.exp([q @ linear(attn.k_proj, y)[of] for y in normed])
            values = [linear(attn.v_proj, y)[of] for y in normed]
            parts.append(sum(a * v for a, v in zip(w / w.sum(), values, strict=True)))
        out.append(linear(attn.out_proj, np.concatenate(parts)))
    tokens = [x + y for x, y in zip(tokens, out, strict=True)]
    inner = [linear(module.mlp.fc1, norm(module.layer_norm2, x)) for x in tokens]
    return [x + linear(module.mlp.fc2, y * sigmoid(1.702 * y)) for x, y in zip(tokens, inner,
                                                                              strict=True)]


def encode(module, tokens):
    for layer in module.layers:
        tokens = block(layer, tokens)
    return tokens


def pooled(frames):
    return unit(np.mean([unit(f) for f in frames], axis=0))


def lstm(head, frames):
    hidden, cell = np.zeros(DIM), np.zeros(DIM)
    for x in frames:
        gates = linear(head.input_proj, x) + linear(head.hidden_proj, hidden)
        i, f, g, o = gates.reshape(4, DIM)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        yield hidden


def valid_frames(clip_number):
    return list(VIDEO[clip_number][MASK[clip_number]].astype(np.float64))


def positions(head):
    return np.asarray(head.position_embedding.embedding[...])


def oracle(name, head, clip_number):
    frames = valid_frames(clip_number)
    if name == "seqLSTM":
        return pooled([x + h for x, h in zip(frames, lstm(head, frames), strict=True)])
    if name == "seqTransf":
        placed = [x + p for x, p in zip(frames, positions(head), strict=False)]
        seen = encode(head.encoder, placed)
        return pooled([x + y for x, y in zip(frames, seen, strict=True)])
    return pooled(frames)


@pytest.mark.parametrize(
    "name", ["meanP", "seqLSTM", pytest.param("seqTransf", marks=pytest.mark.slow)]
)
def test_head_is_its_formula(name):
    head = make(name)
    got = np.asarray(head(jnp.asarray(VIDEO), jnp.asarray(MASK)))
    want = np.stack([oracle(name, head, n) for n in range(3)])
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.slow
def test_tight_scores_are_their_formula(monkeypatch):
    """Also where the last chunk of captions is smaller than the others."""
    monkeypatch.setattr(temporal, "PAIRS", 6)
    head = make("tightTransf")
    got = np.asarray(head.score(jnp.asarray(TEXT), head(jnp.asarray(VIDEO), jnp.asarray(MASK))))
    assert got.shape == (5, 3)
    for t in range(5):
        for v in range(3):
            tokens = [TEXT[t].astype(np.float64), *valid_frames(v)]
            placed = [x + p for x, p in zip(tokens, positions(head), strict=False)]
            first = norm(head.pool_norm, encode(head.encoder, placed)[0])
            inner = linear(head.pool_proj, first)
            want = linear(head.similarity, inner * sigmoid(1.702 * inner))[0]
            assert got[t, v] == pytest.approx(want, abs=5e-5)


def test_activations_are_their_formulas():
    x = jnp.linspace(-4, 4, 41)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(layers.gelu(x), exact, atol=1e-6)
    np.testing.assert_allclose(layers.quick_gelu(x), x * sigmoid(1.702 * x), atol=1e-6)


def test_patches_over_frames_are_the_padded_convolution():
    module = layers.PatchEmbedding(4, 6, frames=3, rngs=nnx.Rngs(0))
    flat = layers.PatchEmbedding(4, 6, rngs=nnx.Rngs(0))
    video = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8, 12, 3)), jnp.float32)
    np.testing.assert_allclose(module(video), flat(video), atol=1e-5)  # starts as the 2d kernel
    kernel = np.random.default_rng(1).normal(size=module.kernel.shape).astype(np.float32)
    module.kernel[...] = kernel
    want = jax.lax.conv_general_dilated(
        video, kernel, (1, 4, 4), [(1, 1), (0, 0), (0, 0)],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )  # fmt: skip
    np.testing.assert_allclose(module(video), want.reshape(2, 5, 6, 6), atol=1e-3)


@pytest.mark.slow
def test_half_precision_and_recomputing_change_only_rounding():
    b = tiny.batch(0, 4)
    _, params = tiny.towers()

    def video(**changes):
        towers, _ = clip.abstract(dataclasses.replace(tiny.SIZES, **changes))

        def loss(p):
            return (towers.encode_video(p, b.video, b.frame_mask)[:, 0] ** 2).sum()

        value, grads = jax.jit(jax.value_and_grad(loss))(params)
        return float(value), grads

    value, grads = video()
    again, same = video(remat=True)
    assert again == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(tiny.leaves(same), tiny.leaves(grads), atol=1e-6)
    half, half_grads = video(dtype="bfloat16")
    assert half != value
    assert half == pytest.approx(value, rel=0.1)
    difference = tiny.leaves(half_grads) - tiny.leaves(grads)
    assert np.linalg.norm(difference) < 0.1 * np.linalg.norm(tiny.leaves(grads))
    assert all(g.dtype == np.float32 for g in jax.tree.leaves(half_grads))
