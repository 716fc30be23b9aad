"""The words and shapes everything else is written in.

Axis glossary: `text` and `video` index rows and columns of a score matrix, which is always
`[text, video]`; `batch` counts (caption, clip) pairs; `frame`, `height`, `width`, `channel` and
`token` are what they say; `dim` is the width of the shared embedding space.

Units: a *cosine* lies in [-1, 1]; a *logit* is `scale * cosine` with
`scale = exp(logit_scale)` in (0, 100]. Biases are in logit units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from ncl_jax.biases import MAX_SCALE, Biases

__all__ = [
    "CONVERGED", "MAX_SCALE", "AnyArray", "Batch", "Biases", "SinkhornReport", "Towers",
]  # fmt: skip

AnyArray = Array | np.ndarray
"""A batch is made on the host and used on devices."""


class Batch(NamedTuple):
    """One batch of (caption, clip) pairs, host-local or global.

    Padded rows have `valid = False` and never count. Two rows with equal `video_id` show the same
    clip: their captions are positives of each other. Padded frames and tokens have mask `False`.
    """

    video: UInt8[AnyArray, "batch frame height width channel"]
    frame_mask: Bool[AnyArray, "batch frame"]
    tokens: Int[AnyArray, "batch token"]
    token_mask: Bool[AnyArray, "batch token"]
    video_id: Int[AnyArray, " batch"]
    valid: Bool[AnyArray, " batch"]


CONVERGED = 1e-3
"""Error below which a fixed count of iterations is reported as converged."""


class SinkhornReport(NamedTuple):
    """Evidence that goes with every solution.

    `error`: largest relative deviation of a row or column sum of P from its mass.
    `iterations`: pairs of updates done. `converged`: whether `error` is below the tolerance asked
    for (with a fixed count: below `CONVERGED`).
    """

    error: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class Towers(NamedTuple):
    """A model as pure functions of its parameters; embeddings have unit norm.

    `score` is None where a pair's score is `scale * cosine`. A model that reads caption and clip
    together gives `score`, logits of all pairs of whatever its encoders return, and scale 1.

    `encode_video` is `pool` of `encode_frames` where frames are read one by one; where they are not
    (3d patches), both are None.
    """

    encode_text: Callable[..., Float[Array, "text dim"]]  # (params, tokens, token_mask)
    encode_video: Callable[..., Float[Array, "video dim"]]  # (params, video, frame_mask)
    scale: Callable[[Any], Float[Array, ""]]  # (params), logits per cosine
    score: Callable[..., Float[Array, "text video"]] | None = None  # (params, text, video)
    encode_frames: Callable[..., Float[Array, "frame dim"]] | None = None  # (params, pixels)
    pool: Callable[..., Float[Array, "video dim"]] | None = None  # (params, frames, frame_mask)


class TrainState(NamedTuple):
    """All that a training step changes; arrays only (model and optimizer are closed over)."""

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    rng: jax.Array
