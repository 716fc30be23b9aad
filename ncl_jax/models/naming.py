"""Renames published weights to the names of Hugging Face's `CLIPModel`, which are used here.

Supported: Hugging Face; OpenAI and OpenCLIP (`visual.conv1.weight`, fused `in_proj_weight`);
CLIP4Clip (OpenAI's names with the prefix `clip.`, and heads). Heads are renamed to `temporal.*`, as
in our parameter tree. Arrays keep torch's layouts.
"""

import re
from collections.abc import Iterator

import numpy as np

from ncl_jax.errors import InputError

Arrays = dict[str, np.ndarray]

BUFFERS = {"position_ids", "input_resolution", "context_length", "vocab_size", "attn_mask"}
"""Last parts of the names of arrays that are not weights."""

PARTS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.conv2.weight": "vision_model.embeddings.patch_embedding.weight",  # CLIP4Clip, 3d
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
    "frame_position_embeddings": "temporal.position_embedding",
    "lstm_visual.weight_ih_l0": "temporal.input_proj.weight",
    "lstm_visual.bias_ih_l0": "temporal.input_proj.bias",
    "lstm_visual.weight_hh_l0": "temporal.hidden_proj.weight",
    "lstm_visual.bias_hh_l0": "temporal.hidden_proj.bias",
    "cross.embeddings.position_embeddings": "temporal.position_embedding",
    "cross.pooler.ln_pool": "temporal.pool_norm",
    "cross.pooler.dense": "temporal.pool_proj",
    "similarity_dense": "temporal.similarity",
}
STACKS = {
    "visual.transformer": "vision_model.encoder",
    "transformer": "text_model.encoder",
    "transformerClip": "temporal.encoder",
    "cross.transformer": "temporal.encoder",
}
BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}  # fmt: skip
TRANSPOSED = {"visual.proj", "text_projection"}
_RESBLOCK = re.compile(r"(.+?)\.resblocks\.(\d+)\.(.+)")


def to_hf(arrays: Arrays, source: str) -> Arrays:
    """The same weights under Hugging Face's names.

    Raises:
      ValueError: the names follow no supported scheme, or some of them are unknown.
    """
    arrays = {k: v for k, v in arrays.items() if k.split(".")[-1] not in BUFFERS}
    if arrays and all(name.startswith("module.") for name in arrays):
        arrays = {k.removeprefix("module."): v for k, v in arrays.items()}
    if "vision_model.embeddings.class_embedding" in arrays:
        return arrays
    arrays = {k.removeprefix("clip."): v for k, v in arrays.items()}
    if any(name.startswith("text.transformer.") for name in arrays):  # OpenCLIP's custom text tower
        arrays = {k.removeprefix("text."): v for k, v in arrays.items()}
    if "visual.class_embedding" not in arrays:
        raise InputError(
            f"{source}: expected the names of a CLIP ViT as Hugging Face, OpenAI, OpenCLIP or "
            f"CLIP4Clip write them, got {', '.join(list(arrays)[:4]) or 'nothing'}, ..."
        )
    # CLIP4Clip's files contain tables that its forward pass never reads.
    unread = {
        "visual.conv1.weight": "visual.conv2.weight" in arrays,
        "frame_position_embeddings.weight": "lstm_visual.weight_ih_l0" in arrays,
    }
    used = {k: v for k, v in arrays.items() if not unread.get(k)}
    named = [pair for name, array in used.items() for pair in _renamed(name, array)]
    unknown = [name for name, _ in named if name.startswith("?")]
    if unknown:
        raise InputError(
            f"{source}: expected weights of a CLIP ViT, got unknown weights: {listed(unknown)}; "
            "choose another checkpoint"
        )
    return dict(named)


def listed(names: list[str], limit: int = 8) -> str:
    """`a, b, c and 4 more`."""
    names = [name.removeprefix("?") for name in names]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _renamed(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """One array by OpenAI's name -> one array, or three for a fused projection.

    The prefix "?" marks an unknown name.
    """
    block = _RESBLOCK.fullmatch(name)
    if name in PARTS:
        yield PARTS[name], array.T if name in TRANSPOSED else array
    elif block and block[1] in STACKS:
        prefix = f"{STACKS[block[1]]}.layers.{block[2]}"
        part, _, leaf = block[3].rpartition(".")
        fused = block[3] in ("attn.in_proj_weight", "attn.in_proj_bias")
        if fused and array.ndim and len(array) % 3 == 0:
            leaf = block[3].rpartition("_")[2]
            for letter, third in zip("qkv", np.split(array, 3), strict=True):
                yield f"{prefix}.self_attn.{letter}_proj.{leaf}", third
        else:
            yield (f"{prefix}.{BLOCK[part]}.{leaf}" if part in BLOCK else f"?{name}"), array
    else:
        part, _, leaf = name.rpartition(".")
        yield (f"{PARTS[part]}.{leaf}" if part in PARTS else f"?{name}"), array
