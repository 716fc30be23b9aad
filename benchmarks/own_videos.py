"""`ncl_jax.load` on video files against a plain torch pipeline; ViT-B/32 with random weights.

    NCL_TORCH_PYTHON=... NCL_REAL_DATA=... python -m benchmarks --only "own videos"

The peer is `transformers.CLIPModel` behind a torch DataLoader of as many workers as cores, whose
items are decoded by PyAV: every picture is decoded, one per second is kept, up to 12 of them
evenly, through `CLIPImageProcessor`. Both sides read the same files from end to end, in processes
of their own that have run once before; first answer and memory are those of new processes. The
floor of the memory is the weights and what the compiled program states for one batch.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

FRAMES, REPEATS, QUERY = 12, 8, "a dog runs on the beach"


def run(quick: bool) -> Iterator:
    import numpy as np

    from benchmarks.common import Row, at_least, at_most, interleave, note, ratio
    from ncl_jax.pretrained import load, random_weights

    files = _files() * (1 if quick else REPEATS)
    with tempfile.TemporaryDirectory() as folder:
        random_weights.write(folder, "ViT-B/32")
        weights = pathlib.Path(folder, "model.safetensors").stat().st_size
        model = load(folder)
        yield note("own videos", "clips", len(files))
        with peer(folder) as ask:
            calls = {"ours": lambda: _timed(model, files)}
            if ask:
                calls["torch"] = lambda: ask("encode " + json.dumps(files))
            seconds = interleave(calls, 1 if quick else 3)
        for name, spent in seconds.items():
            yield note("own videos", f"{name}, clips/s", len(files) / np.median(spent))
        if "torch" in seconds:
            value = ratio(seconds, "torch", "ours")
            yield at_least("own videos", "clips/s over torch's", value, 1.5)
        spent, frames = _image_tower(model), _frames(model, files)
        yield note("own videos", "image tower alone, s per frame", spent)
        yield note("own videos", "frames that the model sees", frames)
        share = spent * frames / np.median(seconds["ours"])
        yield note("own videos", "its share of our time", share)
        first = {"ours": lambda: _first(sys.executable, folder)["seconds"]}
        if python := os.environ.get("NCL_TORCH_PYTHON"):
            first["torch"] = lambda: _first(python, folder)["seconds"]
        seconds = interleave(first, 1 if quick else 5)
        for name, spent in seconds.items():
            yield note("own videos", f"first answer in a new process, {name}, s", np.median(spent))
        if "torch" in seconds:
            value = ratio(seconds, "ours", "torch")
            yield at_most("own videos", "first answer over transformers'", value, 1.3)
        peak = _first(sys.executable, folder, files[0])
        batch = _batch_bytes(model)
        yield note("own videos", "peak memory over imports, MB", peak["bytes"] / 1e6)
        yield at_most(
            "own videos", "peak memory over imports, over weights plus one batch",
            peak["bytes"] / (weights + batch), 1.2,
        )  # fmt: skip
        yield Row("own videos", "weights, MB", weights / 1e6)


def _timed(model: Any, files: list[str]) -> float:
    start = time.perf_counter()
    assert len(model.encode_video(files)) == len(files)
    return time.perf_counter() - start


def _image_tower(model: Any) -> float:
    import jax
    import numpy as np

    from ncl_jax.pretrained import encoders

    encode = jax.jit(model.checkpoint.towers.encode_frames)
    frames = jax.device_put(np.zeros((encoders.FRAMES, 224, 224, 3), np.uint8))
    for _ in range(2):
        start = time.perf_counter()
        encode(model.checkpoint.params, frames).block_until_ready()
    return (time.perf_counter() - start) / len(frames)


def _frames(model: Any, files: list[str]) -> int:
    from ncl_jax.pretrained.reading import read_videos

    named = {str(number): file for number, file in enumerate(files)}
    read = read_videos(named, model.preprocessing.frames)
    return sum(min(FRAMES, len(clip)) for _, video in read for clip in video.windows)


def _batch_bytes(model: Any) -> int:
    """What the compiled program states for the frames of one batch, without the weights."""
    import jax
    import jax.numpy as jnp

    from ncl_jax.pretrained import encoders

    frames = jax.ShapeDtypeStruct((encoders.FRAMES, 224, 224, 3), jnp.uint8)
    encode = jax.jit(model.checkpoint.towers.encode_frames)
    stated = encode.lower(model.checkpoint.params, frames).compile().memory_analysis()
    return stated.temp_size_in_bytes + stated.output_size_in_bytes + frames.size


def _files() -> list[str]:
    """Real clips where there are some, else clips made here."""
    real = pathlib.Path(os.environ.get("NCL_REAL_DATA", "/nowhere"), "msvd", "videos")
    if real.is_dir():
        return [str(path) for path in sorted(real.iterdir())]
    from ncl_jax.video import decode

    return [str(pathlib.Path(decode.__file__).with_name("known_good.mp4"))] * 5


@contextlib.contextmanager
def peer(folder: str) -> Iterator:
    """A function that asks the torch side, in its own process, for seconds; None without it."""
    python = os.environ.get("NCL_TORCH_PYTHON")
    if not python:
        print("own videos: NCL_TORCH_PYTHON is not set, torch is left out", flush=True)
        yield None
        return
    from benchmarks.common import asking  # not in the other process

    with asking([python, __file__, "serve", folder]) as ask:
        yield ask


def _first(python: str, folder: str, video: str = "") -> dict:
    """Seconds from the start of a process to its first answer, or bytes of its memory."""
    start = time.perf_counter()
    command = [python, __file__, "ours" if python == sys.executable else "theirs", folder, video]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - start}


# -- in a process of its own ---------------------------------------------------------------------


def _ours(folder: str, video: str) -> None:
    import ncl_jax
    from ncl_jax.pretrained import model as _imported

    del _imported
    before = _peak()
    model = ncl_jax.load(folder)
    model.encode_text([QUERY])
    if video:
        model.encode_video([video] * model.batch_size)
    print(json.dumps({"bytes": _peak() - before}))


def _theirs(folder: str, video: str) -> None:
    import torch
    import transformers

    del video
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=f"{folder}/tokenizer.json", pad_token="<|endoftext|>"
    )
    with torch.no_grad():
        model.get_text_features(**tokenizer([QUERY], return_tensors="pt"))
    print(json.dumps({}))


def _peak() -> int:
    """Bytes at the peak; `ru_maxrss` would begin with what the parent held at the fork."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _serve(folder: str) -> None:
    import av
    import numpy as np
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessor()

    class Clips(torch.utils.data.Dataset):
        def __init__(self, files):
            self.files = files

        def __len__(self):
            return len(self.files)

        def __getitem__(self, place):
            kept, due = [], 0.0
            with av.open(self.files[place]) as container:
                for frame in container.decode(video=0):
                    if frame.time is None or frame.time >= due:
                        kept.append(frame.to_image())
                        due += 1.0
            chosen = np.linspace(0, len(kept) - 1, min(FRAMES, len(kept)), dtype=int)
            images = processor([kept[i] for i in chosen], return_tensors="pt")
            return images["pixel_values"]

    for line in sys.stdin:
        files = json.loads(line.partition(" ")[2])
        start = time.perf_counter()
        loader = torch.utils.data.DataLoader(
            Clips(files), batch_size=8, num_workers=os.cpu_count() or 1, collate_fn=list
        )
        rows = []
        with torch.no_grad():
            for clips in loader:
                features = model.get_image_features(torch.cat(clips))
                features = getattr(features, "pooler_output", features)
                features = torch.nn.functional.normalize(features, dim=1)
                parts = features.split([len(clip) for clip in clips])
                rows += [torch.nn.functional.normalize(p.mean(0), dim=0) for p in parts]
        assert len(rows) == len(files)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    else:
        {"ours": _ours, "theirs": _theirs}[sys.argv[1]](*sys.argv[2:4])
