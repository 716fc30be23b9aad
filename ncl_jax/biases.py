"""What normalisation adds to scores, and its usual settings.

Nothing here needs JAX, whose import takes longer than a search: an index is searched without it.
"""

from typing import Any, NamedTuple

from jaxtyping import Float

MAX_SCALE = 100.0
"""The learned logit scale is clamped here, as in CLIP."""
PAPER_ITERATIONS = 4
"""Of Sinkhorn, as published."""


class Biases(NamedTuple):
    """Additive biases in logit units: `P = exp(scores + text[:, None] + video[None, :])`.

    With `strength = 1` the common constant is free and fixed so that the mean video bias is 0.
    The Sinkhorn potential of an item is `bias / scale`. Arrays are NumPy's or JAX's.
    """

    text: Float[Any, " text"]
    video: Float[Any, " video"]
