"""Ranks of the right answers in both directions, counted without sorting.

A rank is the number of candidates whose score exceeds that of the right answer, so one comparison
per score does, while the block is in cache.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ncl_jax import arrays
from ncl_jax.errors import InputError
from ncl_jax.metrics.blocks import Scores, compared_in, row_blocks
from ncl_jax.metrics.recall import Ranks, TieRule, summarize

VideoRule = Literal["group_max", "best_caption"]
VIDEO_RULES: tuple[VideoRule, ...] = ("group_max", "best_caption")
_MOST_GROUPS = 1 << 14
"""Videos up to which the caption groups' scores of all videos are held in memory (1 GB)."""


def text_to_video(
    scores: Scores, video_of_text: ArrayLike, tie_rule: TieRule = "average"
) -> dict[str, float]:
    """Retrieval of videos by texts; each text is a query, all videos are candidates.

    Args:
      scores: [text, video], higher is better, no NaN. Floats of 64 bits and integers of 32 or
        more are compared in float64, all others in float32.
      video_of_text: [text] ints in [0, video): the clip each text describes. Several texts may
        describe one clip; a video without a text is a distractor.
      tie_rule: see `summarize`.

    Returns:
      `R@1`, `R@5`, `R@10`, `R@50` in percent; `MdR`, `MnR`, ranks that start at 1.

    Raises:
      ValueError: NaN scores, scores that are no real numbers, indices that are no integers, or
        shapes or indices that do not fit.

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
      video_of_text: [text], as in `text_to_video`.
      tie_rule: see `summarize`.
      rule: `"group_max"` (CLIP4Clip): candidates are the clips' caption groups, a group scores as
        its best caption. `"best_caption"` (CE, MMT): candidates are all captions, the rank is
        that of the best own caption; own captions of equal score count as ties of it, as there.

    Returns:
      As `text_to_video`.

    Raises:
      ValueError: as `text_to_video`; an unknown rule.

    Relations: with one text per video both rules are `text_to_video(scores.T, arange(video))`,
    up to the order of the texts.

    Example:
      >>> video_to_text(np.array([[1.0, 0.9], [0.5, 0.0], [0.0, 0.8]]), [0, 0, 1])["R@1"]
      50.0
    """
    return summarize(ranks_of_videos(scores, video_of_text, rule), tie_rule)


def both_directions(
    scores: Scores,
    video_of_text: ArrayLike,
    tie_rule: TieRule = "average",
    *,
    text_bias: ArrayLike = 0.0,
    video_bias: ArrayLike = 0.0,
) -> dict[str, dict[str, float]]:
    """`text_to_video` and `video_to_text` (rule `"group_max"`) in one pass over the scores.

    Args:
      scores: [text, video], as in `text_to_video`.
      video_of_text: as there.
      tie_rule: as there.
      text_bias: [text], added where videos search texts; a constant for a text that searches.
      video_bias: [video], added where texts search videos. Both in the unit of the scores.

    Returns:
      {"text_to_video": ..., "video_to_text": ...}, each as from the function of that name.

    Raises:
      ValueError: as `text_to_video`; over 16,384 videos, whose groups would not fit in memory.

    Example:
      >>> found = both_directions(np.eye(3), [0, 1, 2])
      >>> found["text_to_video"]["R@1"], found["video_to_text"]["MdR"]
      (100.0, 1.0)
    """
    texts, videos = ranks_of_both(scores, video_of_text, text_bias, video_bias)
    return {
        "text_to_video": summarize(texts, tie_rule),
        "video_to_text": summarize(videos, tie_rule),
    }


def ranks_of_texts(scores: Scores, video_of_text: ArrayLike) -> Ranks:
    """`Ranks` of each text's own video among all videos.

    Args:
      scores: [text, video], no NaN.
      video_of_text: [text], as in `text_to_video`.

    Returns:
      `Ranks` with arrays [text].

    Raises:
      ValueError: NaN scores, or shapes or indices that do not fit.

    Example:
      >>> ranks_of_texts(np.array([[0.2, 0.9, 0.2]]), [0])
      Ranks(above=array([1]), tied=array([1]))
    """
    answer = _checked_answer(scores, video_of_text)
    ranks = _empty(len(answer))
    for rows, block in row_blocks(scores):
        _count(ranks, rows, block, answer[rows])
    return ranks


def ranks_of_both(
    scores: Scores,
    video_of_text: ArrayLike,
    text_bias: ArrayLike = 0.0,
    video_bias: ArrayLike = 0.0,
) -> tuple[Ranks, Ranks]:
    """(`ranks_of_texts`, `ranks_of_videos` by group maximum); see `both_directions`.

    Beside a block of scores it holds one score per pair of videos, 36 MB for 2,990 of them.

    Args:
      scores: [text, video], no NaN.
      video_of_text: [text], as in `text_to_video`.
      text_bias: [text], or one number; in the unit of the scores.
      video_bias: [video], or one number; in the unit of the scores.

    Raises:
      ValueError: as `both_directions`.

    Example:
      >>> texts, videos = ranks_of_both(np.eye(2), [0, 1])
      >>> texts.above.tolist(), videos.above.tolist()
      ([0, 0], [0, 0])
    """
    answer = _checked_answer(scores, video_of_text)
    texts, videos = scores.shape
    if videos > _MOST_GROUPS:
        raise InputError(
            f"both directions in one pass take at most {_MOST_GROUPS} videos, got {videos}; call "
            "text_to_video and video_to_text"
        )
    by_row = np.broadcast_to(arrays.single(text_bias, "text_bias"), texts)
    by_column = np.broadcast_to(arrays.single(video_bias, "video_bias"), videos)
    ranks = _empty(texts)
    best = np.full((videos, videos), -np.inf, compared_in(scores))  # [group, video]
    for rows, block in row_blocks(scores):
        biased = block + by_row[rows, None] if by_row.any() else block
        for video, row in zip(answer[rows].tolist(), biased, strict=True):
            np.maximum(best[video], row, out=best[video])
        _count(ranks, rows, block + by_column if by_column.any() else block, answer[rows])
    captioned = np.unique(answer)
    groups = np.ascontiguousarray(best[np.ix_(captioned, captioned)].T)
    of_videos = _empty(len(captioned))
    _count(of_videos, slice(None), groups, np.arange(len(captioned)))
    return ranks, of_videos


def ranks_of_videos(
    scores: Scores, video_of_text: ArrayLike, rule: VideoRule = "group_max"
) -> Ranks:
    """`Ranks` of each captioned video's own texts, in order of video.

    Args:
      scores: [text, video], no NaN.
      video_of_text: [text], as in `text_to_video`.
      rule: as in `video_to_text`.

    Returns:
      `Ranks` with arrays [captioned_video].

    Raises:
      ValueError: NaN scores, an unknown rule, or shapes or indices that do not fit.

    Example:
      >>> ranks_of_videos(np.array([[0.1, 0.0], [0.3, 0.5]]), [0, 1]).above.tolist()
      [1, 0]
    """
    if rule not in VIDEO_RULES:
        raise InputError(f"video-to-text rule must be one of {VIDEO_RULES}, got {rule!r}")
    answer = _checked_answer(scores, video_of_text)
    by_video = np.argsort(answer, kind="stable")
    captioned, first = np.unique(answer[by_video], return_index=True)
    ranks = _empty(len(captioned))
    for rows, block in row_blocks(scores.T):  # the one place where the matrix is turned
        inside = np.arange(scores.shape[1])[rows]
        known = np.isin(inside, captioned)
        block, place = block[known], np.searchsorted(captioned, inside[known])
        best = _group_max(np.ascontiguousarray(block.T), by_video, first).T  # [video, group]
        right = best[np.arange(len(place)), place]
        _compare(ranks, place, best if rule == "group_max" else block, right)
    return ranks


def _empty(queries: int) -> Ranks:
    return Ranks(np.zeros(queries, np.int64), np.zeros(queries, np.int64))


def _count(ranks: Ranks, rows: Any, block: np.ndarray, answer: np.ndarray) -> None:
    """Fills in the ranks of `rows`; the right answer of a row is its column `answer`."""
    _compare(ranks, rows, block, block[np.arange(len(block)), answer])


def _compare(ranks: Ranks, rows: Any, block: np.ndarray, right: np.ndarray) -> None:
    """The same, where the score of the right answer is `right` [row]."""
    ranks.above[rows] = above = np.count_nonzero(block > right[:, None], axis=1)
    ranks.tied[rows] = np.count_nonzero(block >= right[:, None], axis=1) - above - 1


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


def _checked_answer(scores: Scores, video_of_text: ArrayLike) -> np.ndarray:
    answer = arrays.whole(video_of_text, "video_of_text")
    if len(scores.shape) != 2 or answer.shape != scores.shape[:1]:
        raise InputError(
            f"expected scores [text, video] and video_of_text [text], got shapes "
            f"{tuple(scores.shape)} and {answer.shape}; is the matrix transposed?"
        )
    if answer.size and not (answer.min() >= 0 and answer.max() < scores.shape[1]):
        raise InputError(
            f"video_of_text must lie in [0, {scores.shape[1]}), got values from "
            f"{answer.min()} to {answer.max()}"
        )
    return answer
