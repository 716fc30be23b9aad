"""Reads a model and what belongs to it from a training run, a folder, a file or the hub."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ncl_jax.data.clips import Shapes
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.errors import InputError, check_choice
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.models import clip, convert, weights
from ncl_jax.pretrained.preprocessing import JPEG_QUALITY, Preprocessing, StoredFrames
from ncl_jax.readers import text
from ncl_jax.types import Towers

FRAMES = 12
"""Frames per clip for published weights that state no number, as in CLIP4Clip."""
PUBLISHED_QUALITY = 95
"""Of the JPEG frames for published weights: as good as no JPEG, and a film fits into memory."""
BATCH_SIZE = 32
FORMAT = 1
"""Of `ncl_jax.json`; later versions may write others."""
CHECKPOINTS, INDEX, RESULTS = "checkpoints", "index", "results.json"
"""What a run leaves in its workdir; the modules that write them import what weights do not need."""


class CaptionBank(NamedTuple):
    """Training captions that a gallery is normalised against.

    Attributes:
      text: embeddings [bank, dim], unit norm.
      bias: of each caption against the clips the model was tested on, [bank], in logits. The bias
        of a new clip v is -logsumexp(scale * text @ v + bias) + a constant.
      captions: the texts, or none where they are not known.
      auto: what `normalizers.Auto` chose on the training pairs: "none" where biases of this bank
        brought nothing; "" where that is not known.
    """

    text: Float[np.ndarray, "bank dim"]
    bias: Float[np.ndarray, " bank"]
    captions: list[str]
    auto: str = ""


class Checkpoint(NamedTuple):
    """A model and what belongs to it.

    Attributes:
      source: the run, folder, file or name it was read from.
      sizes: of the towers and the head over frames.
      towers: pure functions of the parameters.
      params: parameters, float32.
      tokenizer: captions to ids.
      preprocessing: files to pixels.
      batch_size: clips or captions at a time.
      bank: training captions, if there are any.
      results: what the run measured, as in `results.json`; None for published weights.
      step: of training; 0 for published weights.
    """

    source: str
    sizes: clip.ClipConfig
    towers: Towers
    params: Any
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    batch_size: int = BATCH_SIZE
    bank: CaptionBank | None = None
    results: dict[str, Any] | None = None
    step: int = 0


def read(source: str, dtype: str | None = None) -> Checkpoint:
    """The model of a run, of published weights, or of a folder that `saving.save` wrote.

    Args:
      source: workdir of a run, a folder or file of weights, or a name on the Hugging Face hub.
      dtype: of the towers' matrix products, "float32" or "bfloat16"; None keeps that of the run.

    Raises:
      FileNotFoundError: there is no such run, file or name.
      ValueError: it cannot be used; the message says why.
    """
    if dtype is not None:
        check_choice("dtype", dtype, clip.DTYPES)
    folder = pathlib.Path(source).expanduser()
    found = _of_run(folder) if (folder / CHECKPOINTS).is_dir() else _of_weights(source)
    if dtype is None or dtype == found.sizes.dtype:
        return found
    sizes = dataclasses.replace(found.sizes, dtype=dtype)
    return found._replace(sizes=sizes, towers=clip.abstract(sizes)[0])


# -- a run ---------------------------------------------------------------------------------------


def _of_run(workdir: pathlib.Path) -> Checkpoint:
    from etils import epath

    from ncl_jax.experiment import build  # heavy imports, which published weights do not need
    from ncl_jax.experiment.restore import restore

    run = restore(epath.Path(workdir))
    settings = run.config.data.settings
    frames = StoredFrames(
        settings.fps, settings.short_side, settings.get("jpeg_quality", JPEG_QUALITY),
        settings.get("look", "stored"),
    )  # fmt: skip
    preprocessing = Preprocessing(
        frames, build.build_shapes(run.config), build.build_view(run.config, "eval")
    )
    index, results = workdir / INDEX, workdir / RESULTS
    return Checkpoint(
        source=str(workdir), sizes=run.sizes, towers=run.towers, params=run.params,
        tokenizer=run.tokenizer, preprocessing=preprocessing,
        batch_size=run.config.eval.batch_size,
        bank=_bank_of(RetrievalIndex.load(index, check=True)) if storage.exists(index) else None,
        results=_object(results) if results.exists() else None,
        step=run.step,
    )  # fmt: skip


def _bank_of(index: RetrievalIndex) -> CaptionBank | None:
    captions = [str(caption) for caption in index.meta.get("bank_captions", [])]
    if not len(index.bank_text):
        return None
    return CaptionBank(index.bank_text, index.bank_bias, captions, index.meta.get("auto", ""))


# -- weights -------------------------------------------------------------------------------------


def _of_weights(source: str) -> Checkpoint:
    published = weights.read(source)
    if published.tokenizer is None:
        raise InputError(
            f"{source}: expected tokenizer.json (or vocab.json and merges.txt, or "
            "bpe_simple_vocab_16e6.txt.gz) beside the weights, found none; copy the model's own "
            "there"
        )
    folder = published.tokenizer.parent
    card = _card(folder / weights.CARD)
    sizes = _sizes(published, card)
    preprocessing = (
        Preprocessing.from_json(card["preprocessing"], str(folder / weights.CARD))
        if "preprocessing" in card else _default_preprocessing(sizes)
    )  # fmt: skip
    _check_fit(preprocessing, sizes, source)
    tokenizer = Tokenizer.load(published.tokenizer)
    if tokenizer.vocab_size > sizes.vocab_size:
        raise InputError(
            f"{published.tokenizer}: expected at most {sizes.vocab_size} tokens, as many as the "
            f"weights have rows, got {tokenizer.vocab_size}; take both from one model"
        )
    return Checkpoint(
        source=source, sizes=sizes, towers=clip.abstract(sizes)[0],
        params=convert.to_params(published, sizes, consume=True), tokenizer=tokenizer,
        preprocessing=preprocessing, bank=_saved_bank(folder, card, sizes.embed_dim),
        results=card.get("results"),
    )  # fmt: skip


def _card(path: pathlib.Path) -> dict[str, Any]:
    """What a saved model states of itself; nothing beside the weights of others."""
    card = _object(path) if path.exists() else {}
    if card.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{path}: expected format {FORMAT}, got {card['format']!r}; update ncl_jax, or save "
            "the model with this version"
        )
    return card


def _sizes(published: weights.Published, card: dict[str, Any]) -> clip.ClipConfig:
    """The sizes that the weights imply, and those that no shape of theirs tells."""
    sizes = convert.sizes_of(published)
    if not convert.has_positions(sizes):
        sizes = dataclasses.replace(sizes, max_frames=FRAMES)
    heads = card.get("temporal_heads", sizes.temporal_heads)
    if type(heads) is not int or heads < 1 or sizes.embed_dim % heads:
        raise InputError(
            f"{published.source}: {weights.CARD}: temporal_heads: expected a divisor of the width "
            f"{sizes.embed_dim}, got {heads!r}; save the model again"
        )
    return dataclasses.replace(sizes, temporal_heads=heads)


def _default_preprocessing(sizes: clip.ClipConfig) -> Preprocessing:
    frames = StoredFrames(1.0, sizes.image_size, PUBLISHED_QUALITY, "shown")
    shapes = Shapes(min(FRAMES, sizes.max_frames), sizes.image_size, sizes.context_length)
    return Preprocessing(frames, shapes)


def _check_fit(preprocessing: Preprocessing, sizes: clip.ClipConfig, source: str) -> None:
    shapes = preprocessing.shapes
    limits = Shapes(sizes.max_frames, sizes.image_size, sizes.context_length)
    if (
        shapes.max_frames > limits.max_frames or shapes.image_size != limits.image_size
        or not 2 <= shapes.max_tokens <= limits.max_tokens
    ):  # fmt: skip
        raise InputError(
            f"{source}: {weights.CARD} describes inputs of {shapes}, the weights take at most "
            f"{limits}; save the model again"
        )


def _saved_bank(folder: pathlib.Path, card: dict[str, Any], dim: int) -> CaptionBank | None:
    path = folder / weights.BANK
    if not path.exists():
        return None
    arrays = weights.read_safetensors(path)
    rows, bias = arrays.get("text"), arrays.get("bias")
    captions = card.get("bank_captions", [])
    if (
        rows is None or bias is None or rows.ndim != 2 or rows.shape[1] != dim
        or bias.shape != rows.shape[:1] or not isinstance(captions, list)
        or len(captions) not in (0, len(rows))
        or not (np.isfinite(rows).all() and np.isfinite(bias).all())
    ):  # fmt: skip
        raise InputError(
            f"{path}: expected finite arrays text [bank, {dim}] and bias [bank], and as many "
            f"bank_captions in {weights.CARD}; save the model again"
        )
    auto = str(card.get("auto", ""))
    return CaptionBank(rows, bias, [str(caption) for caption in captions], auto)


def _object(path: pathlib.Path) -> dict[str, Any]:
    content = text.read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {json.dumps(content)[:40]}")
    return content
