"""A model, and an index with its biases, as a folder that runs without ncl_jax.

docs/export.md shows how to call what is in it. `export.json` is written last: a folder that has one
is complete, and every file in it gave JAX's numbers.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ncl_jax import __version__
from ncl_jax.data.clips import Shapes, View
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.errors import InputError
from ncl_jax.export import formats, functions
from ncl_jax.export.functions import Function
from ncl_jax.files import check_new_folder, write_text
from ncl_jax.index import RetrievalIndex
from ncl_jax.models import clip
from ncl_jax.types import Towers

TOLERANCE = 1e-4
"""Largest difference from JAX that is taken for rounding."""
VERSION = 1
_BATCH = 3


def write(
    folder: pathlib.Path,
    towers: Towers,
    params: Any,
    sizes: clip.ClipConfig,
    shapes: Shapes,
    tokenizer: Tokenizer,
    *,
    view: View | None = None,
    format: str = "stablehlo",
    fps: float | None = None,
    index: RetrievalIndex | None = None,
    k: int = 10,
) -> Iterator[tuple[pathlib.Path, float]]:
    """Writes both towers and, with an index, its search; runs each file and compares it with JAX.

    Args:
      folder: new or empty; it gets `text.*`, `video.*`, `search.*`, `tokenizer.json` and
        `export.json`.
      towers: of the model. ONNX holds them in float32, whatever `sizes.dtype` says.
      params: theirs.
      sizes: theirs.
      shapes: frames per clip, and tokens per caption, start and end included: at most
        `sizes.max_frames` and from 2 to `sizes.context_length`.
      tokenizer: theirs.
      view: which frames of a clip are looked at, noted for whoever decodes videos; None for those
        that are evenly spaced.
      format: "stablehlo" or "onnx".
      fps: frames per second that the model was trained on, noted for whoever decodes videos.
      index: items that the model embedded.
      k: items that a search returns, from 1; all of a smaller index.

    Yields:
      Each file and the largest difference between its numbers and JAX's on a random batch:
      absolute, relative where numbers are above 1; of scores in cosines.

    Raises:
      InputError: a package is missing, the folder is not empty, or the index does not fit.
      RuntimeError: a difference above `TOLERANCE`.
    """
    chosen = formats.find(format)
    check_new_folder(folder)
    if format == "onnx" and sizes.dtype != "float32":
        sizes = dataclasses.replace(sizes, dtype="float32")
        towers = clip.abstract(sizes)[0]
    params = jax.device_put(jax.tree.map(np.asarray, params), _cpu())
    wanted = _functions(towers, params, sizes, shapes, index, k)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for function in wanted:
        file = chosen.write(function, folder / function.name)
        files[function.name] = _described(function, file)
        yield file, _checked(function, file, chosen)
    write_text(folder / "tokenizer.json", tokenizer.to_json())
    preprocessing = _preprocessing(shapes, view or View(), fps)
    about = {"version": VERSION, "ncl_jax": __version__, "jax": jax.__version__,
             "format": format, "files": files, "preprocessing": preprocessing,
             "scale": float(towers.scale(params))}  # fmt: skip
    if index is not None:
        about["search"] = {"scale": index.scale, "ids": list(index.ids)}
    write_text(folder / "export.json", json.dumps(about, indent=1) + "\n")


def _functions(
    towers: Towers,
    params: Any,
    sizes: clip.ClipConfig,
    shapes: Shapes,
    index: RetrievalIndex | None,
    k: int,
) -> list[Function]:
    for name, least, most in (
        ("max_tokens", 2, sizes.context_length), ("max_frames", 1, sizes.max_frames)
    ):  # fmt: skip
        if not least <= (got := getattr(shapes, name)) <= most:
            raise InputError(
                f"{name}: expected {least} to {most}, the positions that the model has, got {got}"
            )
    both = [
        functions.text(towers, params, sizes, shapes.max_tokens),
        functions.video(towers, params, sizes, shapes.max_frames),
    ]
    if index is None:
        return both
    if towers.score is not None:
        raise InputError(
            f"the head {sizes.temporal} scores pairs, so its clips cannot be indexed; export it "
            "without --index"
        )
    if index.video.shape[1] != sizes.embed_dim:
        raise InputError(
            f"the index has vectors of {index.video.shape[1]} numbers, the model makes "
            f"{sizes.embed_dim}; expected an index that this model made"
        )
    return [*both, functions.search(index, k)]


def _cpu() -> jax.Device:
    """Where towers are compared: accelerators may round products in float32 to fewer bits."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # by JAX_PLATFORMS
        return jax.local_devices()[0]


def _checked(function: Function, file: pathlib.Path, chosen: formats.Format) -> float:
    """How far the file's numbers are from JAX's."""
    inputs = function.example(np.random.default_rng(0), _BATCH)
    with jax.default_device(_cpu()):
        error = function.error(inputs, chosen.open(file)(*inputs))
    if not error <= TOLERANCE:
        raise RuntimeError(
            f"{file} differs from JAX by {error:.2g}, more than {TOLERANCE:g}; this is a fault of "
            "ncl_jax or of a library that it was not tested with"
        )
    return error


def _described(function: Function, file: pathlib.Path) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [size if isinstance(size, int) else str(size) for size in
                                 spec.shape], "type": np.dtype(spec.dtype).name}
        for name, spec in function.inputs.items()
    ]  # fmt: skip
    return {"file": file.name, "inputs": inputs, "outputs": list(function.outputs)}


def _preprocessing(shapes: Shapes, view: View, fps: float | None) -> dict[str, Any]:
    return {
        "text": "repair encoding (ftfy), unescape HTML twice, fold white space, lower-case; ids of "
                "start, words and end, cut to max_tokens with the end kept, padded by 0",
        "max_tokens": shapes.max_tokens,
        "start": "<|startoftext|>",
        "end": "<|endoftext|>",
        "video": "uint8 RGB frames, by choice (uniform: evenly spaced from the first to the last) "
                 "and order; shorter side resized (bicubic) to size, centre square; missing frames "
                 "are zeros with mask false; the file itself normalises pixels",
        "choice": view.choice,
        "order": view.order,
        "frames": shapes.max_frames,
        "size": shapes.image_size,
        "fps": fps,
    }  # fmt: skip
