"""The functions that an export writes: both towers, and the search of an index."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Int

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex
from ncl_jax.models.clip import ClipConfig
from ncl_jax.models.temporal import unit_norm
from ncl_jax.types import Towers

Rows = tuple[np.ndarray, ...]


class Function(NamedTuple):
    """What one file computes, and how it is judged.

    Attributes:
      name: of the file.
      call: (params, *inputs) -> a tuple of outputs.
      params: arrays that the file holds.
      inputs: name -> shape and type; the first axis is symbolic, of any size from 1.
      outputs: their names.
      example: a generator and a batch size -> inputs that are as varied as real ones.
      error: (inputs, outputs) -> the largest difference from what ncl_jax computes.
    """

    name: str
    call: Callable[..., tuple[Array, ...]]
    params: Any
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: tuple[str, ...]
    example: Callable[[np.random.Generator, int], Rows]
    error: Callable[[Rows, Rows], float]


def text(towers: Towers, params: Any, sizes: ClipConfig, max_tokens: int) -> Function:
    """Tokens [text, token] and their mask -> embedding [text, dim]."""

    def example(rng: np.random.Generator, batch: int) -> Rows:
        tokens = rng.integers(0, sizes.vocab_size, (batch, max_tokens)).astype(np.int32)
        return tokens, _prefix(rng, batch, max_tokens, at_least=min(2, max_tokens))

    inputs = _specs(
        "text", tokens=((max_tokens,), np.int32), token_mask=((max_tokens,), np.bool_)
    )
    return _tower("text", towers.encode_text, params, inputs, example)


def video(towers: Towers, params: Any, sizes: ClipConfig, frames: int) -> Function:
    """Frames [video, frame, size, size, 3] and their mask -> embedding [video, dim]."""
    picture = (sizes.image_size, sizes.image_size, 3)

    def example(rng: np.random.Generator, batch: int) -> Rows:
        pixels = rng.integers(0, 256, (batch, frames, *picture)).astype(np.uint8)
        return pixels, _prefix(rng, batch, frames, at_least=1)

    inputs = _specs(
        "video", video=((frames, *picture), np.uint8), frame_mask=((frames,), np.bool_)
    )
    return _tower("video", towers.encode_video, params, inputs, example)


def search(index: RetrievalIndex, k: int) -> Function:
    """Queries [query, dim] of any length -> scores in logits and rows of the k best [query, rank].

    Raises:
      InputError: an empty index, or k < 1.
    """
    if k < 1:
        raise InputError(f"k: expected at least 1, got {k}")
    if not len(index):
        raise InputError("the index is empty, expected at least one item to find; add some first")
    k, dim = min(k, len(index)), index.video.shape[1]

    def call(
        stored: dict[str, Float[Array, "dim_plus_1 item"]], query: Float[Array, "query dim"]
    ) -> tuple[Float[Array, "query rank"], Int[Array, "query rank"]]:
        unit = unit_norm(query)
        folded = jnp.concatenate([unit, jnp.ones_like(unit[:, :1])], axis=1)
        best, rows = jax.lax.top_k(jnp.dot(folded, stored["item"], precision="highest"), k)
        return best * index.scale, rows

    def error(inputs: Rows, outputs: Rows) -> float:
        """Of scores per scale; a row counts by its score, for near ties may change places."""
        found, (scores, rows) = index.search(inputs[0], k), outputs
        unit = inputs[0] / np.linalg.norm(inputs[0], axis=1, keepdims=True)
        own = index.scale * np.einsum("qd,qrd->qr", unit, index.video[rows]) + index.bias[rows]
        if any(len(set(row)) < k for row in rows.tolist()):
            return np.inf
        return max(_largest(x, found.scores) for x in (scores, own)) / index.scale

    def example(rng: np.random.Generator, batch: int) -> Rows:
        return (rng.normal(size=(batch, dim)).astype(np.float32),)

    inputs = _specs("query", query=((dim,), np.float32))
    stored = {"item": np.ascontiguousarray(index.folded().T)}
    return Function("search", call, stored, inputs, ("scores", "rows"), example, error)


def _tower(
    name: str,
    encode: Callable[..., Array],
    params: Any,
    inputs: dict[str, jax.ShapeDtypeStruct],
    example: Callable[[np.random.Generator, int], Rows],
) -> Function:
    ours = jax.jit(encode)

    def error(given: Rows, got: Rows) -> float:
        return _largest(got[0], np.asarray(ours(params, *given)))

    return Function(
        name, lambda *given: (encode(*given),), params, inputs, ("embedding",), example, error
    )


def _specs(batch: str, **inputs: tuple[tuple[int, ...], Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Inputs whose first axis is one symbol, the same for all."""
    (size,) = export.symbolic_shape(batch)
    return {
        name: jax.ShapeDtypeStruct((size, *shape), dtype)
        for name, (shape, dtype) in inputs.items()
    }  # fmt: skip


def _prefix(rng: np.random.Generator, rows: int, length: int, *, at_least: int) -> np.ndarray:
    """Masks of different lengths."""
    return np.arange(length) < rng.integers(at_least, length + 1, rows)[:, None]


def _largest(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, relative to the largest number where that is above 1."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return np.inf
    return float(np.abs(got - want).max() / max(1.0, float(np.abs(want).max())))
