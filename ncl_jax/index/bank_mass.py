"""What a bank's texts give to items: their mass, and the biases that it implies, block by block."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_BLOCK = 1 << 24
"""Logits of bank x items at a time (64 MB)."""


class BankMass(NamedTuple):
    """A bank and the settings of its fit.

    Attributes:
      text: unit-norm rows [bank, dim].
      bias: of each, in logits [bank].
      scale: logits per cosine.

    Example:
      >>> bank = BankMass(np.eye(2, dtype="f"), np.zeros(2, "f"), 1.0)
      >>> bank.over(np.eye(2, dtype="f"), np.zeros(2, "f")).round(2).tolist()
      [3.72, 3.72]
    """

    text: Float[np.ndarray, "bank dim"]
    bias: Float[np.ndarray, " bank"]
    scale: float

    def item_biases(
        self, video: Float[np.ndarray, "item dim"], strength: float, log_mass: float
    ) -> Float[np.ndarray, " item"]:
        """`strength * (log_mass - lse_i(s_ij + a_i))` of each item j; 0 without a bank."""
        found = np.zeros(len(video), np.float32)
        if len(self.text):
            for part in self._parts(len(video)):
                found[part] = strength * (log_mass - column_lse(self._biased(video[part])))
        return found

    def over(
        self, video: Float[np.ndarray, "item dim"], bias: Float[np.ndarray, " item"]
    ) -> Float[np.ndarray, " bank"]:
        """`sum_j exp(s_ij + a_i + b_j)` of each text i over the items, in float64."""
        total = np.zeros(len(self.text))
        if len(self.text):
            for part in self._parts(len(video)):
                biased = self._biased(video[part]) + bias[part]
                total += np.exp(biased).sum(axis=1, dtype=np.float64)
        return total

    def _biased(self, video: np.ndarray) -> np.ndarray:
        return (self.scale * self.text) @ video.T + self.bias[:, None]

    def _parts(self, items: int) -> list[slice]:
        size = max(1, _BLOCK // len(self.text))
        return [slice(start, start + size) for start in range(0, items, size)]


def column_lse(x: np.ndarray) -> np.ndarray:
    """Log-sum-exp of each column in float64: float32 sums of 2^21 rows are off by .01 logits."""
    top = x.max(axis=0)
    return top + np.log(np.exp(x - top).sum(axis=0, dtype=np.float64))
