"""The model against `transformers.CLIPModel` on the same random weights, and torch's own files.

Needs requirements-parity.txt; without it every test here is skipped.
"""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ncl_jax
from ncl_jax.models import clip, convert, temporal, weights
from ncl_jax.models.clip import TowerConfig
from ncl_jax.pretrained import random_weights

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs requirements-parity.txt: torch")
transformers = pytest.importorskip("transformers", reason="needs requirements-parity.txt")

SMALL = clip.ClipConfig(
    image_size=32, patch_size=8, vocab_size=99, context_length=12, max_frames=4, embed_dim=24,
    vision=TowerConfig(32, 2, 4), text=TowerConfig(16, 3, 2), temporal="meanP",
    temporal_layers=2, temporal_heads=2, init_scale=14.3,
)  # fmt: skip
CONFIGS = {
    "small": SMALL,
    "gelu": dataclasses.replace(
        SMALL, activation="gelu", vision=TowerConfig(48, 3, 3), text=TowerConfig(32, 2, 4)
    ),
    "14 pixels a patch": dataclasses.replace(
        SMALL, image_size=42, patch_size=14, context_length=9, embed_dim=16
    ),
}
B32 = clip.ClipConfig(
    image_size=224, patch_size=32, vocab_size=49408, context_length=77, max_frames=12,
    embed_dim=512, vision=TowerConfig(768, 12, 12), text=TowerConfig(512, 12, 8),
    temporal="meanP", temporal_layers=4, temporal_heads=8, init_scale=14.3,
)  # fmt: skip


def reference(config, seed=0):
    """A random `CLIPModel` whose every weight is far from its start."""
    torch.manual_seed(seed)
    told = convert.hf_config(config)
    told["text_config"] |= {"eos_token_id": config.vocab_size - 1, "bos_token_id": 1}
    model = transformers.CLIPModel(transformers.CLIPConfig(**told)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2 and name != "logit_scale":
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def inputs(config, count):
    rng = np.random.default_rng(1)
    pixels = rng.normal(size=(count, config.image_size, config.image_size, 3)).astype(np.float32)
    length, words = config.context_length, config.vocab_size
    tokens = rng.integers(2, words - 1, (count, length)).astype(np.int32)
    ends = rng.integers(2, length, count)
    tokens[np.arange(count), ends] = words - 1
    return pixels, tokens, np.arange(length) <= ends[:, None]


def theirs(model, pixels, tokens):
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    words = torch.from_numpy(tokens.astype(np.int64))
    found = model.get_image_features(images), model.get_text_features(words)
    return tuple(getattr(x, "pooler_output", x) for x in found)


def ours(config, params, pixels, tokens, mask):
    graph = nnx.graphdef(nnx.eval_shape(lambda: clip.VideoClip(config, rngs=nnx.Rngs(0))))

    @jax.jit
    def features(params):
        model = nnx.merge(graph, nnx.State(params))
        return model.frame_features(pixels[:, None]), model.text_features(tokens, mask)

    return features, features(params)


def close(got, want, tolerance):
    got, want = np.asarray(got), np.asarray(want)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)
    assert np.abs(got - want).max() <= 10 * tolerance * np.abs(want).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CONFIGS, "B/32"])
def test_features_are_those_of_transformers(name, tmp_path):
    config = B32 if name == "B/32" else CONFIGS[name]
    model = reference(config)
    model.save_pretrained(tmp_path)
    params = convert.to_params(weights.read(str(tmp_path)), config)
    pixels, tokens, mask = inputs(config, 2 if name == "B/32" else 5)
    with torch.no_grad():
        image, text = theirs(model, pixels, tokens)
    _, (our_image, our_text) = ours(config, params, pixels, tokens, mask)
    close(our_image, image, 1e-5)
    close(our_text, text, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_transformers(name, tmp_path):
    config = CONFIGS[name]
    model = reference(config)
    model.save_pretrained(tmp_path)
    params = convert.to_params(weights.read(str(tmp_path)), config)
    pixels, tokens, mask = inputs(config, 4)
    image, text = theirs(model, pixels, tokens)
    a, b = np.random.default_rng(2).normal(size=(2, *image.shape)).astype(np.float32)
    ((torch.from_numpy(a) * image).sum() + (torch.from_numpy(b) * text).sum()).backward()
    features, _ = ours(config, params, pixels, tokens, mask)

    def loss(params):
        image, text = features(params)
        return jnp.sum(a * image) + jnp.sum(b * text)

    grads = convert.from_params(jax.jit(jax.grad(loss))(params))
    compared = 0
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            compared += 1
            if "k_proj.bias" in name:  # zero but for rounding: softmax ignores a common shift
                assert np.abs(grads[name]).max() < 1e-5
            else:
                close(grads[name], parameter.grad.numpy(), 1e-5)
    assert compared == len(grads) - 1


@pytest.mark.slow
def test_transformers_loads_what_we_write(tmp_path):
    for name, config in CONFIGS.items():
        folder = tmp_path / name
        drawn = convert.from_params(clip.functional(clip.VideoClip(config, rngs=nnx.Rngs(3)))[1])
        convert.save(folder, drawn, config)
        model, told = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True)
        assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        state = {n: p.detach().numpy() for n, p in model.named_parameters()}
        assert state.keys() == drawn.keys()
        for key in state:
            np.testing.assert_array_equal(state[key], drawn[key], err_msg=key)


@pytest.mark.slow
def test_transformers_reads_a_saved_model_with_its_processor(tmp_path):
    """From words and pictures to vectors, by nothing but what the folder holds.

    Where the margins of the crop are odd, `CLIPImageProcessor` rounds them down, torchvision and we
    to even; it does not unescape HTML in captions, as OpenAI's code and we do.
    """
    model = ncl_jax.load(random_weights.write(tmp_path / "weights"))
    model.save_pretrained(tmp_path / "saved")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "saved").eval()
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path / "saved")
    texts = ["a red ball", "Two  blue CUBES", "a dog runs on the beach, and then it jumps!"]
    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3)).astype(np.uint8)
    given = processor(text=texts, images=list(frames), return_tensors="pt", padding=True)
    images = given.pop("pixel_values")
    with torch.no_grad():
        words, pictures = theirs.get_text_features(**given), theirs.get_image_features(images)
    words, pictures = (getattr(x, "pooler_output", x) for x in (words, pictures))
    unit = torch.nn.functional.normalize
    np.testing.assert_allclose(model.encode_text(texts), unit(words, dim=1).numpy(), atol=1e-5)
    clip = unit(unit(pictures, dim=1).mean(0), dim=0).numpy()
    np.testing.assert_allclose(model.encode_video([frames])[0], clip, atol=1e-5)


class Block(torch.nn.Module):
    """OpenAI's block, as far as names and attributes go."""

    def __init__(self, width):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(width, 2)
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.mlp = torch.nn.ModuleDict({
            "c_fc": torch.nn.Linear(width, 4 * width), "c_proj": torch.nn.Linear(4 * width, width)
        })  # fmt: skip

    def forward(self, x):
        return self.ln_1(x)


class Stack(torch.nn.Module):
    """A stack of them."""

    def __init__(self, width, layers):
        super().__init__()
        self.resblocks = torch.nn.Sequential(*(Block(width) for _ in range(layers)))

    def forward(self, x):
        return self.resblocks(x)


class Visual(torch.nn.Module):
    """The vision side."""

    def __init__(self, c):
        super().__init__()
        width, patches = c.vision.width, (c.image_size // c.patch_size) ** 2
        self.conv1 = torch.nn.Conv2d(3, width, c.patch_size, c.patch_size, bias=False)
        self.class_embedding = torch.nn.Parameter(torch.randn(width))
        self.positional_embedding = torch.nn.Parameter(torch.randn(patches + 1, width))
        self.ln_pre, self.ln_post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.transformer = Stack(width, c.vision.layers)
        self.proj = torch.nn.Parameter(torch.randn(width, c.embed_dim))

    def forward(self, x):
        return self.transformer(x) @ self.proj


class OpenAI(torch.nn.Module):
    """Module tree, names and types of OpenAI's archives."""

    def __init__(self, c):
        super().__init__()
        width = c.text.width
        self.visual, self.transformer = Visual(c), Stack(width, c.text.layers)
        self.token_embedding = torch.nn.Embedding(c.vocab_size, width)
        self.positional_embedding = torch.nn.Parameter(torch.randn(c.context_length, width))
        self.ln_final = torch.nn.LayerNorm(width)
        self.text_projection = torch.nn.Parameter(torch.randn(width, c.embed_dim))
        self.logit_scale = torch.nn.Parameter(torch.ones([]) * 2.66)
        self.register_buffer("input_resolution", torch.tensor(c.image_size))
        self.register_buffer("context_length", torch.tensor(c.context_length))
        self.register_buffer("vocab_size", torch.tensor(c.vocab_size))

    def forward(self, x):
        return self.visual(x)


OPENAI = dataclasses.replace(SMALL, vision=TowerConfig(32, 2, 1), text=TowerConfig(16, 3, 1))


def expected(model):
    """The archive's tensors by Hugging Face's names, with torch's own state dict as source."""
    from ncl_jax.models import naming

    return naming.to_hf({n: t.float().numpy() for n, t in model.state_dict().items()}, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchscript", "state dict", "ddp", "open_clip training"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_files_of_torch_are_read_without_it(kind, tmp_path):
    torch.manual_seed(0)
    model = OpenAI(OPENAI)
    if kind == "torchscript":
        model = model.half()
        model.logit_scale.data = model.logit_scale.data.float()
        path = tmp_path / "ViT.pt"
        torch.jit.trace(model, torch.randn(2, 3, 32).half()).save(str(path))
    elif kind == "state dict":
        path = tmp_path / "pytorch_model.bin.4"
        torch.save({f"clip.{n}": t for n, t in model.state_dict().items()}, path)
    elif kind == "ddp":
        path = tmp_path / "pytorch_model.bin.0"
        torch.save({f"module.clip.{n}": t for n, t in model.state_dict().items()}, path)
    else:
        path = tmp_path / "open_clip_pytorch_model.bin"
        state = {f"module.{n}": t.bfloat16() for n, t in model.state_dict().items()}
        model = model.bfloat16()
        torch.save({"epoch": 3, "name": "x", "state_dict": state}, path)
    read = weights.read(str(path))
    want = expected(model)
    assert read.arrays.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(read.arrays[name].astype(np.float32), array, err_msg=name)
    if kind != "torchscript":
        return
    sizes = convert.sizes_of(read)
    assert (sizes.image_size, sizes.patch_size, sizes.vision.layers, sizes.text.layers) == (
        32, 8, 2, 3)  # fmt: skip


@pytest.mark.slow
def test_lstm_is_torch_s():
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(16, 16, batch_first=True)
    head = temporal.SeqLSTM(16, max_frames=4, layers=1, heads=1, activation="quick_gelu",
                            rngs=nnx.Rngs(0))
    for module, leaf in ((head.input_proj, "ih"), (head.hidden_proj, "hh")):
        module.kernel[...] = getattr(lstm, f"weight_{leaf}_l0").detach().numpy().T
        module.bias[...] = getattr(lstm, f"bias_{leaf}_l0").detach().numpy()
    frames = np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
    with torch.no_grad():
        out = frames + lstm(torch.from_numpy(frames))[0].numpy()
    want = np.asarray(temporal.mean_of_valid(jnp.asarray(out), mask))
    np.testing.assert_allclose(head(frames, mask), want, atol=1e-5)
