"""The model: masks, names, limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ncl_jax.models import clip, layers, temporal
from tests import tiny

BLOCK = [
    *(f"self_attn.{p}_proj.{w}" for p in ("q", "k", "v", "out") for w in ("weight", "bias")),
    *(f"layer_norm{n}.{w}" for n in (1, 2) for w in ("weight", "bias")),
    *(f"mlp.fc{n}.{w}" for n in (1, 2) for w in ("weight", "bias")),
]
# The state dict of transformers.CLIPModel with one layer a tower.
HF_NAMES = {
    "logit_scale",
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    "text_model.final_layer_norm.weight",
    "text_model.final_layer_norm.bias",
    "vision_model.embeddings.class_embedding",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight",
    "vision_model.pre_layrnorm.weight",
    "vision_model.pre_layrnorm.bias",
    "vision_model.post_layernorm.weight",
    "vision_model.post_layernorm.bias",
    "visual_projection.weight",
    "text_projection.weight",
    *(f"{side}_model.encoder.layers.0.{name}" for side in ("text", "vision") for name in BLOCK),
}


def test_names_are_those_of_hugging_face():
    _, params = tiny.towers()
    paths = [
        tuple(str(key.key) for key in path)
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    names = [clip.hf_name(path) for path in paths]
    assert len(set(names)) == len(names)
    assert {name for name in names if not name.startswith("temporal.")} == HF_NAMES


def test_embeddings_have_unit_norm():
    towers, params = tiny.towers()
    b = tiny.batch(0, 6)
    for x in (towers.encode_text(params, b.tokens, b.token_mask),
              towers.encode_video(params, b.video, b.frame_mask)):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("head", ["meanP", "seqTransf"])
def test_padding_never_matters(head):
    """Neither the words after the end token nor the pixels of masked frames change anything."""
    sizes = dataclasses.replace(tiny.SIZES, temporal=head)
    towers, params = tiny.towers(sizes)
    b = tiny.batch(1, 8)
    text = towers.encode_text(params, b.tokens, b.token_mask)
    video = towers.encode_video(params, b.video, b.frame_mask)
    other = tiny.batch(2, 8)
    tokens = np.where(b.token_mask, b.tokens, other.tokens)
    frames = np.where(b.frame_mask[:, :, None, None, None], b.video, other.video)
    assert (tokens != b.tokens).any()
    assert (frames != b.video).any()
    np.testing.assert_allclose(
        towers.encode_text(params, tokens, b.token_mask), text, atol=1e-6
    )
    np.testing.assert_allclose(
        towers.encode_video(params, frames, b.frame_mask), video, atol=1e-5
    )


@pytest.mark.parametrize(("head", "sees_order"), [("meanP", False), ("seqTransf", True)])
def test_only_seqtransf_sees_the_order_of_frames(head, sees_order):
    sizes = dataclasses.replace(tiny.SIZES, temporal=head)
    towers, params = tiny.towers(sizes)
    b = tiny.batch(3, 4)
    mask = np.ones_like(b.frame_mask)
    ahead = towers.encode_video(params, b.video, mask)
    back = towers.encode_video(params, b.video[:, ::-1], mask)
    assert (np.abs(ahead - back).max() > 1e-4) == sees_order


def test_attention_is_the_loop_over_heads():
    width, heads = 8, 2
    module = layers.Attention(width, heads, out_std=0.3, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, width)), jnp.float32)
    mask = jnp.tril(jnp.ones((5, 5), bool))
    q, k, v = (np.asarray(f(x))[0] for f in (module.q_proj, module.k_proj, module.v_proj))
    out = np.zeros((5, width))
    for h in range(heads):
        part = slice(h * 4, (h + 1) * 4)
        for t in range(5):
            s = np.array([q[t, part] @ k[u, part] / 2 for u in range(5) if mask[t, u]])
            p = np.exp(s - s.max())
            out[t, part] = p / p.sum() @ v[: len(s), part]
    expected = module.out_proj(out.astype(np.float32))
    np.testing.assert_allclose(module(x, mask[None, None])[0], expected, atol=1e-5)


def test_patches_are_the_convolution():
    module = layers.PatchEmbedding(4, 6, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 3)), jnp.float32)
    expected = jax.lax.conv_general_dilated(
        images, module.kernel[...], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(module(images), expected.reshape(2, 6, 6), atol=1e-4)


def test_mean_pool_skips_padding_and_empty_clips_are_zero():
    frames = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    mask = jnp.array([[True, False, True], [False, False, False]])
    pooled = np.asarray(temporal.mean_of_valid(jnp.asarray(frames), mask))
    unit = frames[0] / np.linalg.norm(frames[0], axis=1, keepdims=True)
    mean = (unit[0] + unit[2]) / 2
    np.testing.assert_allclose(pooled[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert not pooled[1].any()


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="width 10 is not a multiple of the number of heads 4"):
        layers.Encoder(10, 1, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"init_scale: expected a number in \(0, 100\], got 200"):
        dataclasses.replace(tiny.SIZES, init_scale=200.0)
    with pytest.raises(ValueError, match="multiple of the patch size 8, got 20"):
        dataclasses.replace(tiny.SIZES, image_size=20)
    with pytest.raises(ValueError, match=r"expected one of meanP, seqLSTM, .*, got 'lstm'"):
        dataclasses.replace(tiny.SIZES, temporal="lstm")
