"""Converts published weights to our parameters, and back.

Both directions are exact: only names and the order of axes change. Names must correspond one to one
and shapes must agree; position tables of another length are cut or interpolated only on request.
"""

import json
import math
import pathlib
from typing import Any, Literal, get_args

import jax
import numpy as np
from flax import nnx
from safetensors import numpy as safetensors

from ncl_jax.arrays import single
from ncl_jax.errors import InputError, check_choice
from ncl_jax.files import replaced, write_text
from ncl_jax.models import weights
from ncl_jax.models.clip import ClipConfig, TowerConfig, abstract, hf_name
from ncl_jax.models.naming import Arrays, listed
from ncl_jax.models.temporal import TEMPORAL_HEADS
from ncl_jax.types import MAX_SCALE

Positions = Literal["exact", "cut", "interpolate"]
Head = Literal["text", "random"]

PATCHES = "vision_model.embeddings.patch_embedding.weight"
_HEAD = "temporal."
_SIGNS = {
    "tightTransf": "similarity.weight",
    "seqLSTM": "hidden_proj.weight",
    "seqTransf": "position_embedding.weight",
}
"""A weight that identifies each head, the most specific first."""
_TABLE = "position_embedding.weight"


def to_params(
    published: weights.Published,
    config: ClipConfig,
    *,
    positions: Positions = "exact",
    head: Head = "text",
    seed: int = 0,
    consume: bool = False,
) -> Any:
    """Parameters (a dict, float32) of the model of `config` with the published weights.

    Args:
      published: from `weights.read`.
      config: its sizes must match the weights.
      positions: how to treat a table of positions of another length.
      head: initialization of a head over frames that the weights lack: "text" copies the first
        layers and positions of the text tower and initializes the rest at random, as CLIP4Clip
        does; "random" initializes everything at random.
      seed: of the random initialization.
      consume: whether `published.arrays` is emptied on the way, so that memory holds the weights
        only once.

    Raises:
      ValueError: names without a counterpart on either side; shapes or a model that do not match.
    """
    for name, value, kind in (("positions", positions, Positions), ("head", head, Head)):
        check_choice(f"init.{name}", value, get_args(kind))
    _check_kind(published, config)
    _, like = abstract(config)
    wanted = {hf_name(path): (path, leaf) for path, leaf in _leaves(like)}
    arrays = published.arrays if consume else dict(published.arrays)
    if not any(name.startswith(_HEAD) for name in arrays):
        arrays.update(start_head(arrays, config, head, seed))
    if config.patch_frames > 1 and PATCHES in arrays and arrays[PATCHES].ndim == 4:
        arrays[PATCHES] = _inflate_kernel(arrays[PATCHES], config.patch_frames)
    _check_names(arrays, wanted, published.source)
    for name, array in arrays.items():
        if name.endswith(_TABLE) and array.ndim == 2:
            rows = wanted[name][1].shape[0]
            arrays[name] = _fit_positions(name, array, rows, positions, published.source)
    ours = {name: _to_ours(wanted[name][0], array).shape for name, array in arrays.items()}
    _check_shapes(ours, {n: leaf.shape for n, (_, leaf) in wanted.items()}, published.source)
    tree: dict[str, Any] = {}
    for name, (path, leaf) in wanted.items():
        inner = tree
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        array = _to_ours(path, single(arrays.pop(name), f"{published.source}: {name}"))
        inner[path[-1]] = jax.numpy.asarray(array.reshape(leaf.shape))
    return _with_keys_of(like, tree)


def start_head(arrays: Arrays, config: ClipConfig, head: Head, seed: int) -> Arrays:
    """Initial weights of a head over frames, by their published names."""
    drawn = TEMPORAL_HEADS[config.temporal](
        config.embed_dim,
        max_frames=config.max_frames,
        layers=config.temporal_layers,
        heads=config.temporal_heads,
        activation=config.activation,
        rngs=nnx.Rngs(seed),
    )
    state = nnx.to_pure_dict(nnx.split(drawn)[1])
    start = {
        _HEAD + hf_name(path): _to_torch(path, np.asarray(leaf)) for path, leaf in _leaves(state)
    }
    if head == "random":
        return start
    table = "text_model.embeddings." + _TABLE
    copied = {n: "text_model." + n.removeprefix(_HEAD) for n in start if ".encoder." in n}
    copied |= {n: table for n in start if n == _HEAD + _TABLE}
    for name, origin in copied.items():
        source = arrays.get(origin)
        if origin == table and source is not None:
            source = source[: len(start[name])]
        if source is None or source.shape != start[name].shape:
            raise InputError(
                f"init.head: {name} cannot start from {origin}, which is "
                f"{'missing' if source is None else source.shape}, expected {start[name].shape}; "
                "use init.head=random or fewer model.temporal_layers or frames"
            )
        start[name] = source
    return start


def from_params(params: Any) -> Arrays:
    """Parameters by their published names, in torch's layouts; the inverse of `to_params`."""
    return {
        hf_name(path): _to_torch(path, np.asarray(leaf))
        for path, leaf in _leaves(params)
    }


def has_positions(config: ClipConfig) -> bool:
    """Whether the head over frames has a table of positions, as long as `config.max_frames`."""
    return config.temporal in ("seqTransf", "tightTransf")


def sizes_of(published: weights.Published) -> ClipConfig:
    """The model sizes that the weights imply; activation and heads if `published` states them.

    Raises:
      ValueError: the weights are not those of a CLIP ViT.
    """
    arrays = published.arrays
    try:
        patches, words = arrays[PATCHES], arrays["text_model.embeddings.token_embedding.weight"]
        side = math.isqrt(len(arrays["vision_model.embeddings." + _TABLE]) - 1)
        context = len(arrays["text_model.embeddings." + _TABLE])
        dim = len(arrays["text_projection.weight"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{published.source}: expected the weights of a CLIP ViT, got others (missing or "
            f"malformed: {error}); choose another checkpoint"
        ) from None
    vision, text = (
        TowerConfig(width, sum(n.startswith(f"{kind}_model.") and n.endswith("fc1.bias")
                               for n in arrays), heads)
        for kind, width, heads in zip(
            ("vision", "text"), (len(patches), words.shape[1]),
            published.heads or (len(patches) // 64, words.shape[1] // 64), strict=True,
        )
    )  # fmt: skip
    head = next((name for name, part in _SIGNS.items() if _HEAD + part in arrays), "meanP")
    table = arrays.get(_HEAD + _TABLE, ())
    return ClipConfig(
        image_size=side * patches.shape[-1],
        patch_size=patches.shape[-1],
        vocab_size=len(words),
        context_length=context,
        max_frames=max(1, len(table) - (head == "tightTransf")),
        embed_dim=dim,
        vision=vision,
        text=text,
        temporal=head,
        temporal_layers=sum(n.startswith(_HEAD) and n.endswith("fc1.bias") for n in arrays),
        temporal_heads=text.heads,
        init_scale=min(MAX_SCALE, math.exp(arrays["logit_scale"].item())),
        patch_frames=1 if patches.ndim == 4 else patches.shape[2],
        activation=published.activation or "quick_gelu",
    )


def save(
    folder: pathlib.Path, arrays: Arrays, config: ClipConfig, tokenizer: str | None = None
) -> None:
    """Write `model.safetensors` and `config.json` for `transformers.CLIPModel.from_pretrained`.

    `CLIPModel` has no head over frames, so that goes to `head.safetensors`; `weights.read` reads
    both files.

    Args:
      folder: created if missing.
      arrays: by published names, from `from_params` or `weights.read`.
      config: of the model.
      tokenizer: text of a tokenizer.json to write into the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    own = {name: array for name, array in arrays.items() if name.startswith(_HEAD)}
    rest = {name: array for name, array in arrays.items() if name not in own}
    # `safetensors.save_file` would write files that only their owner can read.
    _write(folder / "model.safetensors", rest)
    (folder / weights.HEAD).unlink(missing_ok=True)
    if own:
        _write(folder / weights.HEAD, own)
    write_text(folder / "config.json", json.dumps(hf_config(config, tokenizer), indent=2) + "\n")
    if tokenizer:
        write_text(folder / weights.TOKENIZER, tokenizer)


def _write(path: pathlib.Path, arrays: Arrays) -> None:
    with replaced(path) as stream:
        stream.write(safetensors.save(arrays, metadata={"format": "pt"}))


def hf_config(config: ClipConfig, tokenizer: str | None = None) -> dict[str, Any]:
    """The sizes of `config` under the names of `transformers.CLIPConfig`."""
    ids = {}
    if tokenizer:
        words = {t["content"]: t["id"] for t in json.loads(tokenizer).get("added_tokens", [])}
        ids = {f"{end}_token_id": words[f"<|{name}|>"]
               for end, name in (("bos", "startoftext"), ("eos", "endoftext"))
               if f"<|{name}|>" in words}  # fmt: skip
    sides = {
        f"{side}_config": {
            "model_type": f"clip_{side}_model",
            "hidden_size": tower.width,
            "intermediate_size": 4 * tower.width,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "hidden_act": config.activation,
            "projection_dim": config.embed_dim,
        }
        for side, tower in (("vision", config.vision), ("text", config.text))
    }
    sides["vision_config"] |= {"image_size": config.image_size, "patch_size": config.patch_size}
    sides["text_config"] |= ids | {
        "vocab_size": config.vocab_size, "max_position_embeddings": config.context_length
    }  # fmt: skip
    return {"architectures": ["CLIPModel"], "model_type": "clip",
            "projection_dim": config.embed_dim, **sides}  # fmt: skip


def _leaves(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(tuple(str(getattr(k, "key", k)) for k in path), leaf) for path, leaf in flat]


def _with_keys_of(like: Any, tree: Any) -> Any:
    """`tree` with the keys of `like`, which uses integers as keys of lists."""
    if not isinstance(like, dict):
        return tree
    return {key: _with_keys_of(part, tree[str(key)]) for key, part in like.items()}


def _to_ours(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
    """From torch's order of axes to ours."""
    if path[-1] != "kernel":
        return array
    if array.ndim > 3:  # (width, channel, [frame,] patch, patch)
        return np.moveaxis(array, (0, 1), (-1, -2))
    return array.T


def _to_torch(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return array
    return np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 3 else array.T


def _inflate_kernel(kernel: np.ndarray, frames: int) -> np.ndarray:
    """A 3d kernel whose middle frame is the 2d kernel and whose other frames are zero."""
    deep = np.zeros((*kernel.shape[:2], frames, *kernel.shape[2:]), kernel.dtype)
    deep[:, :, frames // 2] = kernel
    return deep


def _fit_positions(
    name: str, table: np.ndarray, rows: int, positions: Positions, source: str
) -> np.ndarray:
    """The table of positions, cut or interpolated to `rows` rows."""
    if len(table) == rows:
        return table
    vision = name.startswith("vision_model")
    if positions == "cut" and len(table) > rows and not vision:
        return table[:rows]
    if positions == "interpolate":
        table = table.astype(np.float32)
        return _resized_grid(table, rows) if vision else _resized(table, (rows, table.shape[1]))
    also = "" if vision or len(table) < rows else "cut or "
    raise InputError(
        f"{source}: expected {rows} rows in {name} for this config, got {len(table)}; set "
        f"init.positions to {also}interpolate, or the config to the checkpoint's length"
    )


def _resized_grid(table: np.ndarray, rows: int) -> np.ndarray:
    """Keeps the row of the class token and resizes the grid of patches bicubically."""
    old, new = (math.isqrt(n - 1) for n in (len(table), rows))
    grid = table[1:].reshape(old, old, -1)
    return np.concatenate([table[:1], _resized(grid, (new, new, grid.shape[-1])).reshape(
        rows - 1, -1)])  # fmt: skip


def _resized(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    method = "cubic" if len(shape) == 3 else "linear"
    return np.asarray(jax.image.resize(table, shape, method))


def _check_kind(published: weights.Published, config: ClipConfig) -> None:
    heads = (config.vision.heads, config.text.heads)
    for name, theirs, ours in (
        ("activation", published.activation, config.activation),
        ("heads (vision, text)", published.heads, heads),
    ):
        if theirs is not None and theirs != ours:
            raise InputError(
                f"{published.source}: its model has {name} {theirs}, the config {ours}; set "
                "config.model to the values that the checkpoint was trained with"
            )


def _check_names(arrays: Arrays, wanted: dict[str, Any], source: str) -> None:
    missing, unused = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    problems = [f"missing in the checkpoint: {listed(missing)}"] * bool(missing)
    problems += [f"missing in the model of this config: {listed(unused)}"] * bool(unused)
    if problems:
        raise InputError(
            f"{source}: expected {len(wanted)} weights by name, found {len(arrays)}; "
            f"{'; '.join(problems)}. Set layers, width and head to those of the checkpoint"
        )


def _check_shapes(
    found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], source: str
) -> None:
    wrong = [
        f"{name} {shape} for {wanted[name]}"
        for name, shape in found.items()
        if shape != wanted[name] and not math.prod(shape) == math.prod(wanted[name]) == 1
    ]
    if wrong:
        raise InputError(
            f"{source}: {len(wrong)} weights have another shape than the config expects: "
            f"{listed(wrong, 4)}. Set the sizes in config.model to those of the checkpoint"
        )
