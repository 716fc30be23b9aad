"""Finds published weights and reads their files.

`read` accepts a Hugging Face name, a folder with such files, or a file of OpenAI, OpenCLIP or
CLIP4Clip. Code inside the files is never run.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from ncl_jax.errors import InputError, blame_input
from ncl_jax.models import hub, naming, torch_file
from ncl_jax.models.naming import Arrays
from ncl_jax.readers import text

FILES = (
    "model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin", "pytorch_model.bin",
)  # fmt: skip
"""Files of weights that a folder may contain, the preferred one first."""
HEAD, TOKENIZER = "head.safetensors", "tokenizer.json"
CARD, BANK = "ncl_jax.json", "bank.safetensors"
"""What a saved model states of itself, and its training captions; see `pretrained.saving`."""
VOCABULARIES = (TOKENIZER, "vocab.json", "bpe_simple_vocab_16e6.txt.gz")
"""Files beside weights that a tokenizer is made of, the preferred one first."""
SAFETENSORS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8",
               "BOOL")  # fmt: skip
COMPANIONS = ("config.json", "open_clip_config.json", HEAD, TOKENIZER, CARD, BANK)


class Published(NamedTuple):
    """Weights by Hugging Face's names in torch's layouts, and known facts about their model."""

    arrays: Arrays
    source: str
    activation: str | None = None  # None: the files do not state it
    heads: tuple[int, int] | None = None  # of the vision and the text tower
    tokenizer: pathlib.Path | None = None  # for `Tokenizer.load`


def read(checkpoint: str) -> Published:
    """Weights from a file, a folder, or a name on the Hugging Face hub.

    Raises:
      FileNotFoundError: there is no such file, and this is not a name on the hub either.
      ValueError: the files cannot be used; the message says why.
    """
    path = pathlib.Path(checkpoint).expanduser()
    if not path.exists():
        path = hub.fetch(checkpoint, hub.Wanted(FILES, COMPANIONS, _parts))
    file = path
    if path.is_dir():
        file = path / _preferred_file([p.name for p in path.iterdir()], str(path))
    arrays = naming.to_hf(_read_file(file), str(file))
    if path.is_dir() and (path / HEAD).exists():
        arrays |= read_safetensors(path / HEAD)
    activation, heads = _activation_and_heads(file, arrays)
    beside = (file.parent / name for name in VOCABULARIES)
    tokenizer = next((path for path in beside if path.exists()), None)
    return Published(arrays, str(file), activation, heads, tokenizer)


def read_safetensors(path: pathlib.Path) -> Arrays:
    """Arrays by name; bfloat16 is converted to float32, which is exact."""
    with blame_input(f"{path}: incomplete or not a safetensors file", "fetch it again"):
        with safe_open(path, framework="np") as file:
            names = [n for n in file.keys() if n.split(".")[-1] not in naming.BUFFERS]  # noqa: SIM118
        return {name: _tensor(name, path) for name in names}


def _tensor(name: str, path: pathlib.Path) -> np.ndarray:
    """One tensor, by a mapping of its own: that of a whole file would lie in memory beside them."""
    with safe_open(path, framework="np") as file:
        kind = file.get_slice(name).get_dtype()
        if kind not in SAFETENSORS:
            raise InputError(
                f"{path}: expected tensors of {', '.join(SAFETENSORS)}, got {kind} for {name}; "
                "convert them to F32"
            )
        array: np.ndarray = file.get_tensor(name)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _read_file(path: pathlib.Path) -> Arrays:
    if path.name.endswith(".index.json"):
        return {k: v for shard in _shards(path) for k, v in _read_file(path.parent / shard).items()}
    reader: Callable[[pathlib.Path], Arrays] = (
        read_safetensors if path.suffix == ".safetensors" else torch_file.read
    )
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: the index beside it names this file, but there is none; fetch it"
        )
    return reader(path)


def _shards(index: pathlib.Path) -> list[str]:
    names = set(map(str, _part(_json(index), "weight_map").values()))
    if not names or any(pathlib.Path(n).name != n for n in names):
        raise InputError(f"{index}: expected a weight_map from weights to files beside it")
    return sorted(names)


def _parts(path: pathlib.Path) -> list[str]:
    """Names of the weight files that an index lists; none if the file holds weights itself."""
    return _shards(path) if path.name.endswith(".index.json") else []


def _preferred_file(names: list[str], where: str) -> str:
    found = [file for file in FILES if file in names]
    if not found:
        raise InputError(f"{where}: expected one of {', '.join(FILES)}, found none of them")
    return found[0]


def _activation_and_heads(
    file: pathlib.Path, arrays: Arrays
) -> tuple[str | None, tuple[int, int] | None]:
    """Activation and heads from the config beside the weights, else those of OpenAI's models."""
    hugging, open_clip = file.parent / "config.json", file.parent / "open_clip_config.json"
    if hugging.exists() and not file.name.startswith("open_clip"):
        given = _json(hugging)
        towers = [_part(given, f"{side}_config") for side in ("vision", "text")]
        # A value that the config omits has CLIPConfig's default.
        heads = tuple(t.get("num_attention_heads", n) for t, n in zip(towers, (12, 8), strict=True))
        return towers[0].get("hidden_act", "quick_gelu"), heads
    widths = [
        arrays[f"{side}_model.encoder.layers.0.layer_norm1.weight"].shape[0]
        for side in ("vision", "text")
        if np.ndim(arrays.get(f"{side}_model.encoder.layers.0.layer_norm1.weight", np.float32(0)))
    ]
    heads_of_64 = (widths[0] // 64, widths[1] // 64) if len(widths) == 2 else None
    if open_clip.exists():
        quick = _part(_json(open_clip), "model_cfg").get("quick_gelu", False)
        return ("quick_gelu" if quick else "gelu"), heads_of_64
    of_openai = file.suffix == ".pt" or file.name.startswith("pytorch_model.bin.")
    return ("quick_gelu", heads_of_64) if of_openai else (None, None)


def _part(content: dict[str, Any], name: str) -> dict[str, Any]:
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _json(path: pathlib.Path) -> dict[str, Any]:
    content = text.read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content
