"""A model as a folder that others load, and as a repository on the Hugging Face hub.

    model.safetensors, config.json            towers: `transformers.CLIPModel.from_pretrained`
    tokenizer.json, tokenizer_config.json,
    preprocessor_config.json                  `transformers.CLIPProcessor.from_pretrained`
    head.safetensors                          the head over frames, if it has parameters
    bank.safetensors                          training captions: `text` [bank, dim], `bias` [bank]
    ncl_jax.json                              preprocessing of videos, captions of the bank, results
    README.md                                 the model card

What of these a model lacks is not written.
"""

import json
import os
import pathlib
import re
import tempfile
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from ncl_jax.data.tokenizer import END, START
from ncl_jax.errors import InputError, blame_input
from ncl_jax.files import check_new_folder, replaced, write_text
from ncl_jax.models import convert, weights
from ncl_jax.models.clip import PIXEL_MEAN, PIXEL_STD
from ncl_jax.pretrained import card
from ncl_jax.pretrained.checkpoint import FORMAT, CaptionBank, Checkpoint

_BICUBIC = 3


def save(checkpoint: Checkpoint, folder: str | os.PathLike[str]) -> None:
    """Writes the files named above.

    Args:
      checkpoint: also one whose head scores pairs.
      folder: new or empty.

    Raises:
      ValueError: the folder holds something.
      OSError: it cannot be written.
    """
    path = pathlib.Path(folder)
    check_new_folder(path)
    convert.save(
        path, convert.from_params(checkpoint.params), checkpoint.sizes,
        checkpoint.tokenizer.to_json(),
    )  # fmt: skip
    shapes, bank = checkpoint.preprocessing.shapes, checkpoint.bank
    _write_json(path / "preprocessor_config.json", _image_processor(shapes.image_size))
    _write_json(path / "tokenizer_config.json", _tokenizer(shapes.max_tokens))
    if bank is not None:
        _write_bank(path / weights.BANK, bank)
    _write_json(path / weights.CARD, {
        "format": FORMAT,
        "temporal_heads": checkpoint.sizes.temporal_heads,
        "preprocessing": checkpoint.preprocessing.to_json(),
        "bank_captions": bank.captions if bank else [],
        "auto": bank.auto if bank else "",
        "results": card.public_part(checkpoint.results or {}),
    })  # fmt: skip
    write_text(path / "README.md", card.text(checkpoint))


def push(checkpoint: Checkpoint, name: str, private: bool = False) -> str:
    """Saves to the repository `name` of the hub, made if missing; its address.

    Raises:
      ValueError: not a name, no network, or no right to write there.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name!r}: expected the name of a repository, as owner/model")
    import huggingface_hub as hub

    api = hub.HfApi(library_name="ncl_jax")
    problem = f"{name}: cannot be sent to the Hugging Face hub"
    advice = "log in by `hf auth login` with a token that may write there, or save_pretrained()"
    with tempfile.TemporaryDirectory() as folder:
        save(checkpoint, folder)
        with blame_input(problem, advice):
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Save the model")
    return str(address)


def _write_bank(path: pathlib.Path, bank: CaptionBank) -> None:
    arrays = {"text": bank.text, "bias": bank.bias}
    arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}
    with replaced(path) as stream:
        stream.write(safetensors.save(arrays, metadata={"format": "np"}))


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _image_processor(size: int) -> dict[str, Any]:
    """What `transformers.CLIPImageProcessor` does, which is what the model sees of one frame."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True, "do_resize": True, "do_center_crop": True, "do_rescale": True,
        "do_normalize": True, "size": {"shortest_edge": size}, "resample": _BICUBIC,
        "crop_size": {"height": size, "width": size}, "rescale_factor": 1 / 255,
        "image_mean": PIXEL_MEAN, "image_std": PIXEL_STD,
    }  # fmt: skip


def _tokenizer(length: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": length, "bos_token": START,
        "eos_token": END, "unk_token": END, "pad_token": END,
    }  # fmt: skip
