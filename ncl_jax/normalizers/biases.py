"""Normalisers that are one bias per gallery item: free at query time, foldable into an index."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ncl_jax import sinkhorn
from ncl_jax.normalizers.base import Bank, BiasFitted, Kind, first_of_each
from ncl_jax.scores import logits
from ncl_jax.types import MAX_SCALE


@dataclass(frozen=True)
class Plain:
    """No normalisation: `scale * cosine`. Needs no bank."""

    scale: float = MAX_SCALE
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank | None, gallery: np.ndarray) -> BiasFitted:
        return BiasFitted(gallery, np.zeros(len(gallery), np.float32), self.scale)


@dataclass(frozen=True)
class Ncl:
    """Sinkhorn biases of the bank's queries against the gallery; the bank's own are dropped.

    `score = scale * cosine + b`, where b balances `exp(scale * cosine(bank, gallery) + a + b)` to
    one unit of mass per bank query and an equal share per item; mean bias 0.

    Args:
      scale: logits per cosine, > 0 (the model's `exp(logit_scale)`; 100 if it is not known).
      iterations: pairs of updates after the first item update; 4 as in the paper's descendants.

    Relations: 0 iterations rank as `InvertedSoftmax` at `beta = scale`.
    Source: Park et al., EMNLP 2022.
    """

    scale: float = MAX_SCALE
    iterations: int = sinkhorn.PAPER_ITERATIONS
    kind: ClassVar[Kind] = "inductive"

    def fit(self, bank: Bank, gallery: np.ndarray) -> BiasFitted:
        scores = logits(jnp.asarray(bank.query), jnp.asarray(gallery), self.scale)
        queries, items = scores.shape
        biases, report = sinkhorn.solve(
            scores,
            jnp.ones(queries),
            jnp.full(items, queries / items),
            iterations=self.iterations,
        )
        bias = np.asarray(biases.video)[first_of_each(gallery)]  # equal items tie exactly
        evidence = {
            "error": float(report.error),
            "iterations": int(report.iterations),
            "converged": bool(report.converged),
            "bank": queries,
            "mass": "uniform",
        }
        return BiasFitted(gallery, bias, self.scale, evidence)
