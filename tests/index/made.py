"""Items for tests of the index."""

import numpy as np


def rows(seed, count, dim=8):
    """Random rows, of any length."""
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def names(count, start=0):
    """An id for each."""
    return [f"clip {i}" for i in range(start, start + count)]
