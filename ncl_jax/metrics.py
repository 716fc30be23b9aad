"""Score matrix -> retrieval metrics: ranks under a named tie rule, balance and hubness.

Every function takes `scores [text, video]` of any unit (only the order matters, except in
`normalization_error`). `scores` may be an array, a memory map, or anything else with `.shape`,
`.T` and row slices, such as `normalizers.LazyScores`: at most `BLOCK` elements are read at once,
so a 59,800 x 2,990 evaluation never needs its matrix. Scores are compared in float32.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

TieRule = Literal["average", "pessimistic", "optimistic", "clip4clip"]
VideoRule = Literal["group_max", "best_caption"]

TIE_RULES: tuple[TieRule, ...] = ("average", "pessimistic", "optimistic", "clip4clip")
VIDEO_RULES: tuple[VideoRule, ...] = ("group_max", "best_caption")
RECALLS = (1, 5, 10, 50)
BLOCK = 1 << 22
"""Elements of a score matrix looked at together (16 MB of float32)."""


class Scores(Protocol):
    """What a score matrix must offer; `np.ndarray` does."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def T(self) -> "Scores": ...
    def __getitem__(self, rows: slice, /) -> ArrayLike: ...


class Ranks(NamedTuple):
    """Per query: candidates `above` the right answer, and others `tied` with it."""

    above: np.ndarray
    tied: np.ndarray


# --- ranks ------------------------------------------------------------------------------------


def text_to_video(
    scores: Scores, video_of_text: ArrayLike, tie_rule: TieRule = "average"
) -> dict[str, float]:
    """Retrieval of videos by texts; each text is a query, all videos are candidates.

    Args:
      scores: [text, video], higher is better, no NaN.
      video_of_text: [text] ints in [0, video): the clip each text describes. Several texts may
        describe one clip; a video without a text is a distractor.
      tie_rule: see `summarize`.

    Returns:
      `R@1`, `R@5`, `R@10`, `R@50` in percent; `MdR`, `MnR`, ranks that start at 1.

    Raises:
      ValueError: NaN scores, or shapes or indices that do not fit.

    Example:
      >>> text_to_video(np.eye(3), [0, 1, 2])["R@1"]
      100.0
    """
    return summarize(ranks_of_texts(scores, video_of_text), tie_rule)


def video_to_text(
    scores: Scores,
    video_of_text: ArrayLike,
    tie_rule: TieRule = "average",
    rule: VideoRule = "group_max",
) -> dict[str, float]:
    """Retrieval of texts by videos; each video that has a text is a query.

    Args:
      scores: [text, video] as everywhere (not transposed).
      rule: `"group_max"` (CLIP4Clip): candidates are the clips' caption groups, a group scores as
        its best caption. `"best_caption"` (CE, MMT): candidates are all captions, the rank is
        that of the best own caption; own captions of equal score count as ties of it, as there.
      video_of_text: as in `text_to_video`.
      tie_rule: see `summarize`.

    Returns, Raises: as `text_to_video`.

    Relations: with one text per video both rules are `text_to_video(scores.T, arange(video))`,
    up to the order of the texts.
    """
    return summarize(ranks_of_videos(scores, video_of_text, rule), tie_rule)


def ranks_of_texts(scores: Scores, video_of_text: ArrayLike) -> Ranks:
    """`Ranks` of each text's own video, [text]; see `text_to_video`."""
    answer = _checked_answer(scores, video_of_text)
    parts = []
    for rows, block in row_blocks(scores):
        right = np.take_along_axis(block, answer[rows, None], axis=1)
        parts.append(_count(block, right))
    return _concatenated(parts)


def ranks_of_videos(
    scores: Scores, video_of_text: ArrayLike, rule: VideoRule = "group_max"
) -> Ranks:
    """`Ranks` of each captioned video's own texts, in order of video; see `video_to_text`."""
    if rule not in VIDEO_RULES:
        raise ValueError(f"video-to-text rule must be one of {VIDEO_RULES}, got {rule!r}")
    answer = _checked_answer(scores, video_of_text)
    by_video = np.argsort(answer, kind="stable")
    captioned, first = np.unique(answer[by_video], return_index=True)
    parts = []
    for rows, block in row_blocks(scores.T):  # the one place where the matrix is turned
        low, high = np.searchsorted(captioned, [rows.start, rows.stop])
        block = block[captioned[low:high] - rows.start]
        best = _group_max(np.ascontiguousarray(block.T), by_video, first).T  # [video, group]
        right = best[np.arange(high - low), np.arange(low, high), None]
        parts.append(_count(best if rule == "group_max" else block, right))
    return _concatenated(parts)


def summarize(ranks: Ranks, tie_rule: TieRule = "average") -> dict[str, float]:
    """Ranks -> recalls, median and mean rank, by a tie rule.

    `average`: a tied answer gets the mean of the places it shares; neither the order of the items
    nor chance plays a part. `optimistic`, `pessimistic`: the best, the worst of these places.
    `clip4clip`: every shared place is an entry of its own, in the numerator and in the
    denominator, as in the `compute_metrics` of CLIP4Clip and its descendants.
    """
    above, tied = np.asarray(ranks.above), np.asarray(ranks.tied)
    if above.size == 0:
        raise ValueError("cannot evaluate 0 queries; give at least one text with its video")
    if tie_rule == "clip4clip":
        start = np.cumsum(tied + 1) - (tied + 1)
        rank = np.repeat(above - start, tied + 1) + np.arange(np.sum(tied + 1)) + 1.0
    elif tie_rule in TIE_RULES:
        share = {"average": 0.5, "pessimistic": 1.0, "optimistic": 0.0}[tie_rule]
        rank = above + share * tied + 1.0
    else:
        raise ValueError(f"tie rule must be one of {TIE_RULES}, got {tie_rule!r}")
    hits = {k: int(np.count_nonzero(rank <= k)) for k in RECALLS}
    recalls = {f"R@{k}": 100 * hit / rank.size for k, hit in hits.items()}
    return recalls | {"MdR": float(np.median(rank)), "MnR": float(np.mean(rank))}


def check_ids(seen: list[str], expected: list[str]) -> None:
    """Stops an evaluation that does not count every id exactly once.

    Raises:
      ValueError: naming up to ten of the missing, doubled and unknown ids of each sort.
    """
    names, counts = np.unique(np.asarray(seen, dtype=object).astype(str), return_counts=True)
    wanted = set(map(str, expected))
    faults = {
        "missing": sorted(wanted - set(names)),
        "doubled": sorted(names[counts > 1]),
        "unknown": sorted(set(names) - wanted),
    }
    said = [
        f"{len(ids)} {what} ({', '.join(ids[:10])}{', ...' if len(ids) > 10 else ''})"
        for what, ids in faults.items()
        if ids
    ]
    if said:
        raise ValueError(
            f"every id must count exactly once: expected {len(wanted)}, got {len(seen)}; "
            + "; ".join(said)
        )


# --- balance and hubs -------------------------------------------------------------------------


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
      ValueError: shapes do not fit, a mass is not positive or the totals differ.
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

    Source: `skhubness.analysis.estimation` for the definitions; the hub limit there is 2k, which
    supposes as many queries as items: here it is 2 k Q / N.
    """
    items = scores.shape[1]
    if not 1 <= k <= items:
        raise ValueError(f"k must lie in [1, {items}] (the gallery size), got {k}")
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


# --- inside -----------------------------------------------------------------------------------


def row_blocks(scores: Scores) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, float32 block) pairs that cover `scores` in order, `BLOCK` elements at a time."""
    size = max(1, BLOCK // max(1, scores.shape[1]))
    for start in range(0, scores.shape[0], size):
        rows = slice(start, min(start + size, scores.shape[0]))
        block = np.asarray(scores[rows], dtype=np.float32)
        if block.size and np.isnan(block.min()):
            raise ValueError(
                f"scores must not be NaN, got NaN in rows {rows.start} to {rows.stop - 1}; "
                "check the embeddings for NaN and zero vectors"
            )
        yield rows, block


def _count(block: np.ndarray, right: np.ndarray) -> Ranks:
    """Ranks of one block; `right` [row, 1] is the score of the right answer."""
    above = np.count_nonzero(block > right, axis=1)
    return Ranks(above, np.count_nonzero(block >= right, axis=1) - above - 1)


def _group_max(rows: np.ndarray, order: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Maximum over each group of rows; `order[first[g]:first[g + 1]]` are the rows of group g.

    One member of every group at a time: whole lines move, which `np.maximum.reduceat` does not do.
    """
    size = np.diff(first, append=len(order))
    best = rows[order[first]]
    for member in range(1, size.max(initial=0)):
        more = np.flatnonzero(size > member)
        best[more] = np.maximum(best[more], rows[order[first[more] + member]])
    return best


def _concatenated(parts: list[Ranks]) -> Ranks:
    if not parts:
        return Ranks(np.zeros(0, int), np.zeros(0, int))
    return Ranks(*map(np.concatenate, zip(*parts, strict=True)))


def _softmax(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row softmax in float64, and the row logsumexp that it divided by, [row, 1]."""
    top = block.max(axis=1, keepdims=True).astype(np.float64)
    p = np.exp(block - top)
    total = p.sum(axis=1, keepdims=True)
    return p / total, top + np.log(total)


def _logsumexp_columns(p: np.ndarray, lse: np.ndarray) -> Any:
    """Column logsumexp of the block whose row softmax is `p` (saves a second exp)."""
    top = lse.max()
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(lse - top)[:, 0] @ p)


def _checked_answer(scores: Scores, video_of_text: ArrayLike) -> np.ndarray:
    answer = np.asarray(video_of_text)
    if len(scores.shape) != 2 or answer.shape != scores.shape[:1]:
        raise ValueError(
            f"expected scores [text, video] and video_of_text [text], got shapes "
            f"{tuple(scores.shape)} and {answer.shape}; is the matrix transposed?"
        )
    if answer.size and not (answer.min() >= 0 and answer.max() < scores.shape[1]):
        raise ValueError(
            f"video_of_text must lie in [0, {scores.shape[1]}), got values from "
            f"{answer.min()} to {answer.max()}"
        )
    return answer.astype(np.int64)


def _checked_masses(
    shape: tuple[int, ...], row_mass: ArrayLike, col_mass: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    r, c = np.asarray(row_mass, np.float64), np.asarray(col_mass, np.float64)
    if (r.shape, c.shape) != (shape[:1], shape[1:]):
        raise ValueError(f"masses must fit scores {tuple(shape)}, got {r.shape} and {c.shape}")
    if not (r.min() > 0 and c.min() > 0 and np.isclose(r.sum(), c.sum(), rtol=1e-4)):
        raise ValueError(
            f"masses must be positive with equal totals, got {r.sum():g} (rows) and "
            f"{c.sum():g} (columns)"
        )
    return r, c
