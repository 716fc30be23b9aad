"""Code of both losses: input checks, storage of scores, positive logits, gradients."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ncl_jax.errors import InputError
from ncl_jax.losses.groups import (
    Pairs,
    Positives,
    gather,
    group_sum,
    group_sum_of_local,
    local,
    make_pairs,
    scatter_sum,
)
from ncl_jax.sinkhorn.blocks import Panels, Stored, Tiled, score_panel

Materialize = Literal["auto", "always", "never"]
STORED_BYTES = 2 << 30
"""Largest kernel of a device that "auto" stores."""

_HIGHEST = 5000.0
"""Largest logit accepted, far beyond those of unit rows; up to it float32 rounds by < .001."""


class Options(NamedTuple):
    """All static options of a loss."""

    iterations: int = 0
    tolerance: float | None = None
    overrelaxation: bool = False
    gradient: str = "stop"
    positives: Positives = "same_clip"
    materialize: Materialize = "auto"
    axis_name: str | None = None


class Inputs(NamedTuple):
    """Local texts and all videos, with zeros in padded rows; in float32 or float64."""

    text: Float[Array, "local dim"]
    video: Float[Array, "batch dim"]
    scale: Float[Array, ""]
    valid: Bool[Array, " local"]
    pairs: Pairs

    @property
    def scaled(self) -> Float[Array, "local dim"]:
        """Texts times the scale, so that products with videos are logits."""
        return self.scale * self.text


def make_inputs(
    text: Array, video: Array, scale: Array, video_id: Array, valid: Array, options: Options
) -> Inputs:
    """Zeroes padded rows and gathers the videos, the only B x dim transfer of the forward pass."""
    dtype = jnp.promote_types(jnp.float32, text.dtype)
    clean_text, clean_video = (
        jnp.where(valid[:, None], x, jnp.zeros_like(x)) for x in (text, video)
    )
    everyone = gather(clean_video, options.axis_name)  # before the cast to a possibly wider type
    pairs = make_pairs(video_id, valid, dtype, options.positives, options.axis_name)
    # An infinite row would act as a mask. A NaN scale makes every logit NaN without copying rows.
    sound = jnp.isfinite(clean_text).all() & jnp.isfinite(everyone).all()
    scale = jnp.where(sound, scale, jnp.nan)
    return Inputs(
        clean_text.astype(dtype), everyone.astype(dtype), scale.astype(dtype), valid, pairs
    )


def scores_of(inputs: Inputs, options: Options) -> Panels:
    """Logits of the local texts against all videos, stored or recomputed at each use."""
    rows, (cols, dim) = inputs.text.shape[0], inputs.video.shape
    if stores(rows, cols, dim, inputs.text.dtype, options.materialize):
        return Stored((score_panel(inputs.scaled, inputs.video),))
    return Tiled(inputs.scaled, inputs.video)


def stores(rows: int, cols: int, dim: int, dtype: Any, materialize: Materialize) -> bool:
    """Whether a device stores its `rows x cols` kernel in memory.

    "auto" stores it up to `STORED_BYTES`, and whenever it is no larger than four copies of the
    videos, which the gradients need anyway. Recomputing the kernel would cost a matrix product per
    iteration instead of one read.
    """
    if materialize != "auto":
        return materialize == "always"
    size = rows * cols * np.dtype(dtype).itemsize
    return size <= STORED_BYTES or rows <= 4 * dim


def positive_logits(
    inputs: Inputs, a: Array | None, b: Array | None, options: Options
) -> tuple[Float[Array, " local"], Float[Array, " local"]]:
    """Mean biased logit of each local pair's positives: as a text, and as a video.

    t2v_i = mean_{j in G(i)} (s_ij + b_j) and v2t_j = mean_{i in G(j)} (s_ij + a_i), from sums of
    embeddings over the group. Biases of padded pairs must be 0 here.
    """
    pairs, size = inputs.pairs, inputs.text.shape[0]
    x, count = inputs.scaled, inputs.pairs.sharing
    as_text = jnp.sum(x * local(group_sum(inputs.video, pairs), pairs, size), axis=1)
    as_video = jnp.sum(group_sum_of_local(x, pairs) * inputs.video, axis=1)
    if b is not None:
        as_text = as_text + local(group_sum(b, pairs), pairs, size)
    if a is not None:
        as_video = as_video + group_sum_of_local(a, pairs)
    as_video = scatter_sum(as_video, options.axis_name)
    count = local(count, pairs, size)
    return as_text / count, as_video / count


def positive_gradient(
    inputs: Inputs, g: Float[Array, " batch"]
) -> tuple[Float[Array, "local dim"], Float[Array, "batch dim"]]:
    """Gradient of sum_i g_i (t2v_i + v2t_i) / 2 in the scaled texts and in the videos.

    The second is only this device's part.
    """

    def weighted() -> tuple[Array, Array]:
        pairs, size = inputs.pairs, inputs.text.shape[0]
        x, y = inputs.scaled, inputs.video
        all_g, own_g = g[:, None], local(g, pairs, size)[:, None]
        dx = own_g * local(group_sum(y, pairs), pairs, size)
        dx = dx + local(group_sum(all_g * y, pairs), pairs, size)
        dy = all_g * group_sum_of_local(x, pairs) + group_sum_of_local(own_g * x, pairs)
        half = 0.5 / pairs.sharing[:, None]
        return local(half, pairs, size) * dx, half * dy

    if inputs.pairs.slot is None:
        return equal_positive_gradient(inputs, g)
    return lax.cond(
        is_uniform(g, inputs.pairs), lambda: equal_positive_gradient(inputs, g), weighted
    )


def equal_positive_gradient(
    inputs: Inputs, g: Float[Array, " batch"]
) -> tuple[Float[Array, "local dim"], Float[Array, "batch dim"]]:
    """`positive_gradient` if all positives of a pair have equal weights: needs half the sums."""
    pairs, size = inputs.pairs, inputs.text.shape[0]
    per = (g / pairs.sharing)[:, None]
    dx = local(per, pairs, size) * local(group_sum(inputs.video, pairs), pairs, size)
    return dx, per * group_sum_of_local(inputs.scaled, pairs)


def embedding_gradients(
    inputs: Inputs, dx: Array, dy: Array, options: Options
) -> tuple[Float[Array, "local dim"], Float[Array, "local dim"], Float[Array, ""]]:
    """Gradients of the loss's arguments from those of the scaled texts and (partial) videos."""
    dy = scatter_sum(dy, options.axis_name)
    valid = inputs.valid[:, None]
    return (
        jnp.where(valid, inputs.scale * dx, 0.0),
        jnp.where(valid, dy, 0.0),
        jnp.sum(inputs.text * dx),
    )


def is_uniform(g: Float[Array, " batch"], pairs: Pairs) -> Bool[Array, ""]:
    """Whether all valid pairs have equal weights, as in any mean; this saves one product."""
    top = jnp.max(jnp.where(pairs.valid, g, -jnp.inf), initial=-jnp.inf)
    return jnp.all(jnp.where(pairs.valid, g == top, True))


def check(text: Any, video: Any, scale: Any, video_id: Any, valid: Any, options: Options) -> None:
    """Raises ValueError for mismatched arguments and, outside `jit`, for invalid values."""
    if len(jnp.shape(text)) != 2 or jnp.shape(text) != jnp.shape(video):
        raise InputError(
            f"expected text and video of equal shape [batch, dim], got {jnp.shape(text)} and "
            f"{jnp.shape(video)}"
        )
    batch = jnp.shape(text)[0]
    if batch == 0:
        raise InputError("expected at least one row (padding is enough), got an empty batch")
    for name, x in (("video_id", video_id), ("valid", valid)):
        if jnp.shape(x) != (batch,):
            raise InputError(f"{name}: expected shape ({batch},), got {jnp.shape(x)}")
    for name, choice, choices in (
        ("positives", options.positives, ("same_clip", "diagonal")),
        ("materialize", options.materialize, ("auto", "always", "never")),
        ("gradient", options.gradient, ("stop", "unroll", "implicit")),
    ):
        if choice not in choices:
            raise InputError(f"{name}: expected one of {', '.join(choices)}, got {choice!r}")
    _check_ids(video_id)
    if any(isinstance(x, jax.core.Tracer) for x in (text, video, scale, valid)):
        return
    live = np.asarray(valid)
    for name, x in (("text", text), ("video", video)):
        bad = np.flatnonzero(live & ~np.isfinite(np.asarray(x, np.float64)).all(axis=1))
        if bad.size:
            raise InputError(
                f"{name}: expected finite valid rows, got {bad.size} others, the first {bad[0]}"
            )
    if not 0 < float(scale) < np.inf:
        raise InputError(f"expected a finite scale > 0, got {scale}")
    lengths = [np.linalg.norm(np.asarray(x, np.float64)[live], axis=1) for x in (text, video)]
    longest = [float(x.max(initial=0.0)) for x in lengths]
    if float(scale) * longest[0] * longest[1] > _HIGHEST:
        raise InputError(
            f"expected logits of at most {_HIGHEST:g}, got rows of norm {longest[0]:.3g} and "
            f"{longest[1]:.3g} at scale {float(scale):.3g}; bring each row to unit norm"
        )


def _check_ids(video_id: Any) -> None:
    """Refuses ids that JAX would silently truncate to 32 bits, because that would merge clips."""
    if isinstance(video_id, jax.Array) or jax.config.jax_enable_x64:
        return
    ids = np.asarray(video_id)
    if ids.size and (ids.min() < -(2**31) or ids.max() >= 2**31):
        raise InputError(
            f"expected video_id within 32 bits, got {ids.min()} to {ids.max()}; renumber them, "
            "for instance by np.unique(video_id, return_inverse=True)[1]"
        )
