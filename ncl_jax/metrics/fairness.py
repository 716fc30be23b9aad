"""How fairly retrieval treats the items: normalisation error and hubness."""

import numpy as np
from numpy.typing import ArrayLike

from ncl_jax.errors import InputError
from ncl_jax.metrics.blocks import Scores, row_blocks


def normalization_error(
    scores: Scores, row_mass: ArrayLike, col_mass: ArrayLike
) -> dict[str, float]:
    """How far retrieval probabilities are from giving every item its share.

    For scores x (logits with the biases already added), row masses r and column masses c:

        video error_j = |sum_i r_i softmax_j(x_ij) / c_j - 1|
        text error_i  = |sum_j c_j softmax_i(x_ij) / r_i - 1|

    Convention: a softmax over videos cancels any text bias and the other way round, so
    `s + a + b` serves both sides, `s + b` gives the biased video error beside the *unbiased*
    text error, and `s + a` the reverse. Both errors are 0 at exact balance for any shape.
    This definition is ours; the paper's is not known to us. Name the column mass (N/M or caption
    counts) beside the number.

    Args:
      scores: [text, video] in logit units.
      row_mass: [text], positive, usually ones.
      col_mass: [video], positive, same total: N/M each, or captions per clip.

    Returns:
      `video_mean`, `video_max`, `text_mean`, `text_max`; 0.16 is 16 %.

    Raises:
      ValueError: shapes do not fit, a mass is not positive or the totals differ; NaN scores.

    Example:
      >>> hub = np.array([[9.0, 0.0], [9.0, 0.0]])  # both texts go to the first video
      >>> round(normalization_error(hub, [1, 1], [1, 1])["video_mean"], 2)
      1.0
      >>> normalization_error(hub - [9.0, 0.0], [1, 1], [1, 1])["video_mean"]
      0.0
    """
    r, c = _checked_masses(scores.shape, row_mass, col_mass)
    column = np.full(scores.shape[1], -np.inf)  # logsumexp over texts, carried over the blocks
    share = np.zeros(scores.shape[1])
    for rows, block in row_blocks(scores):
        p, lse = _softmax(block)
        share += r[rows] @ p
        column = np.logaddexp(column, _logsumexp_columns(p, lse))
    text = np.zeros(scores.shape[0])
    for rows, block in row_blocks(scores):
        text[rows] = np.exp(block - column) @ c
    video_error, text_error = np.abs(share / c - 1), np.abs(text / r - 1)
    return {
        "video_mean": float(video_error.mean()),
        "video_max": float(video_error.max()),
        "text_mean": float(text_error.mean()),
        "text_max": float(text_error.max()),
    }


def hubness(scores: Scores, k: int = 10) -> dict[str, float]:
    """How unevenly the queries' top-k lists are spread over the gallery.

    `N_k(j)` is the number of rows whose k best columns contain column j; columns tied at the
    border share the remaining places evenly, so the order of the columns plays no part.

    Args:
      scores: [query, gallery]; `[text, video]` for text to video, its `.T` for video to text.
      k: length of the lists, in [1, gallery].

    Returns:
      `skewness`: third standardised moment of N_k over all items, zeros included (0 if constant).
      `robin_hood`: sum |N_k - mean| / (2 sum N_k), in [0, 1): the part of all places that would
      have to move for all to be equal. `anti_hub_rate`: share of items in no list.
      `hub_occurrence`: share of all places held by items with N_k >= twice the mean.

    Raises:
      ValueError: k out of range, or NaN scores.

    Example:
      >>> hubness(np.array([[9.0, 0.0], [9.0, 0.0]]), k=1)["anti_hub_rate"]
      0.5

    Source: `skhubness.analysis.estimation` for the definitions; the hub limit there is 2k, which
    supposes as many queries as items: here it is 2 k Q / N.
    """
    items = scores.shape[1]
    if not 1 <= k <= items:
        raise InputError(f"k must lie in [1, {items}] (the gallery size), got {k}")
    n = np.zeros(items)
    for _, block in row_blocks(scores):
        border = -np.partition(-block, k - 1, axis=1)[:, k - 1 : k]
        inside, at_border = block > border, block == border
        left = k - inside.sum(axis=1)
        n += inside.sum(axis=0) + (left / at_border.sum(axis=1)) @ at_border
    mean, deviation = n.mean(), n.std()
    return {
        "skewness": float(np.mean((n - mean) ** 3) / deviation**3) if deviation > 1e-9 else 0.0,
        "robin_hood": float(0.5 * np.abs(n - mean).sum() / n.sum()),
        "anti_hub_rate": float(np.mean(n == 0)),
        "hub_occurrence": float(n[n >= 2 * mean - 1e-9].sum() / n.sum()),
    }


def _softmax(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row softmax in float64, and the row logsumexp that it divided by, [row, 1]."""
    top = block.max(axis=1, keepdims=True).astype(np.float64)
    p = np.exp(block - top)
    total = p.sum(axis=1, keepdims=True)
    return p / total, top + np.log(total)


def _logsumexp_columns(p: np.ndarray, lse: np.ndarray) -> np.ndarray:
    """Column logsumexp of the block whose row softmax is `p` (saves a second exp)."""
    top = lse.max()
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(lse - top)[:, 0] @ p)


def _checked_masses(
    shape: tuple[int, ...], row_mass: ArrayLike, col_mass: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    r, c = np.asarray(row_mass, np.float64), np.asarray(col_mass, np.float64)
    if (r.shape, c.shape) != (shape[:1], shape[1:]):
        raise InputError(f"masses must fit scores {tuple(shape)}, got {r.shape} and {c.shape}")
    if not (r.min() > 0 and c.min() > 0 and np.isclose(r.sum(), c.sum(), rtol=1e-4)):
        raise InputError(
            f"masses must be positive with equal totals, got {r.sum():g} (rows) and "
            f"{c.sum():g} (columns)"
        )
    return r, c
