"""Score matrix -> retrieval metrics: ranks under a named tie rule, balance and hubness.

Every function takes `scores [text, video]` of any unit (only the order matters, except in
`normalization_error`). `scores` may be an array, a memory map, or anything else with `.shape`,
`.T` and row slices, such as `normalizers.LazyScores`: a block of rows is read at a time, so a
59,800 x 2,990 evaluation never needs its matrix. Scores are compared in float32.
"""

from ncl_jax.metrics import blocks
from ncl_jax.metrics.blocks import Scores, row_blocks
from ncl_jax.metrics.fairness import hubness, normalization_error
from ncl_jax.metrics.ranks import (
    VIDEO_RULES,
    VideoRule,
    both_directions,
    ranks_of_both,
    ranks_of_texts,
    ranks_of_videos,
    text_to_video,
    video_to_text,
)
from ncl_jax.metrics.recall import (
    RECALLS,
    TIE_RULES,
    Ranks,
    TieRule,
    check_ids,
    ndcg,
    summarize,
)

__all__ = [
    "RECALLS", "TIE_RULES", "VIDEO_RULES", "Ranks", "Scores", "TieRule", "VideoRule", "blocks",
    "both_directions", "check_ids", "hubness", "ndcg", "normalization_error", "ranks_of_both",
    "ranks_of_texts", "ranks_of_videos", "row_blocks", "summarize", "text_to_video",
    "video_to_text",
]  # fmt: skip
