"""CLIP ViT-B/32 against torch `transformers` on the same shapes and threads; FLOPs; compilations.

Set NCL_TORCH_PYTHON to a Python that has torch and transformers; without it the ratios are left
out. Weights are random on both sides: that the features agree is `tests/models/parity_test.py`.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

FRAMES, TOKENS, IMAGE = 12, 32, 224
VISION, TEXT, DIM, PATCH = (768, 12, 50), (512, 12, TOKENS), 512, 32  # width, layers, tokens


def run(quick: bool) -> Iterator:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks.common import Row, at_most, blocking, interleave, note, ratio
    from configs import common
    from ncl_jax.experiment import build
    from ncl_jax.models import clip

    config = common.get_config()
    towers, like = clip.abstract(build.build_sizes(config, 49408))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(0.02 * rng.standard_normal(x.shape, np.float32)), like
    )
    clips = 1 if quick else 2

    def batch() -> tuple:
        return (
            rng.integers(0, 256, (clips, FRAMES, IMAGE, IMAGE, 3), dtype=np.uint8),
            np.ones((clips, FRAMES), bool),
            rng.integers(1, 49408, (clips, TOKENS), dtype=np.int32),
            np.ones((clips, TOKENS), bool),
        )

    def loss(params, video, frame_mask, tokens, token_mask):
        text = towers.encode_text(params, tokens, token_mask)
        return jnp.sum(text @ towers.encode_video(params, video, frame_mask).T)

    start = time.perf_counter()
    forward = jax.jit(loss).lower(params, *batch()).compile()
    compiled = time.perf_counter()
    both = jax.jit(jax.value_and_grad(loss)).lower(params, *batch()).compile()
    yield note("model", "B/32 forward, compiling, s", compiled - start)
    yield note("model", "B/32 forward + backward, compiling, s", time.perf_counter() - compiled)
    closed = clips * flops()
    off = abs(forward.cost_analysis()["flops"] / closed - 1)
    shape = f"{clips} x {FRAMES} frames"
    yield note("model", f"B/32 forward, {shape}, GFLOP (closed form)", closed / 1e9)
    yield at_most("model", "FLOPs by cost_analysis off the closed form, share", off, 0.05)

    encode = jax.jit(towers.encode_video)
    for _ in range(3):
        video, mask, *_ = batch()
        jax.block_until_ready(encode(params, video, mask))
    count = encode._cache_size()
    yield Row("model", "compilations in a loop over clips", count, "== 1", count == 1)

    with peers(clips) as torch:
        values = batch()
        calls = {"forward": blocking(forward, params, *values),
                 "forward + backward": blocking(both, params, *values), **torch}  # fmt: skip
        seconds = interleave(calls, 3 if quick else 5)
    for name, spent in seconds.items():
        yield note("model", f"B/32 {name}, {shape}, s", np.median(spent))
    for name in ("forward", "forward + backward"):
        if f"torch {name}" in seconds:
            value = ratio(seconds, name, f"torch {name}")
            yield at_most("model", f"B/32 {name}, over torch transformers", value, 1.15)


def flops() -> float:
    """Of the products for one clip of 12 frames and one caption, forward."""

    def tower(width: int, layers: int, tokens: int) -> float:
        return layers * tokens * (24 * width**2 + 4 * tokens * width)

    width, _, tokens = VISION
    patches = 2 * (tokens - 1) * 3 * PATCH**2 * width
    image = tower(*VISION) + patches + 2 * width * DIM
    return FRAMES * image + tower(*TEXT) + 2 * TEXT[0] * DIM


@contextlib.contextmanager
def peers(clips: int) -> Iterator[dict[str, Callable[[], float]]]:
    """Calls that run the other implementation in its own process and return its seconds."""
    from benchmarks.common import asking  # not in the other process

    python = os.environ.get("NCL_TORCH_PYTHON")
    if not python:
        print("model: NCL_TORCH_PYTHON is not set, torch is left out", flush=True)
        yield {}
        return
    with asking([python, __file__, str(clips)]) as ask:
        names = ("forward", "forward + backward")
        yield {f"torch {name}": lambda name=name: ask(name) for name in names}


def _serve(clips: int) -> None:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    model = transformers.CLIPModel(transformers.CLIPConfig())
    pixels = torch.randn(clips * FRAMES, 3, IMAGE, IMAGE)
    words = torch.randint(1, 49406, (clips, TOKENS))
    words[:, -1] = 49407

    def loss():
        image, text = model.get_image_features(pixels), model.get_text_features(words)
        image, text = (getattr(x, "pooler_output", x) for x in (image, text))
        image = torch.nn.functional.normalize(image, dim=1).reshape(clips, FRAMES, -1).mean(1)
        image, text = (torch.nn.functional.normalize(x, dim=1) for x in (image, text))
        return (text @ image.T).sum()

    for line in sys.stdin:
        start = time.perf_counter()
        if line.strip() == "forward":
            with torch.no_grad():
                loss()
        else:
            model.zero_grad()
            loss().backward()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
