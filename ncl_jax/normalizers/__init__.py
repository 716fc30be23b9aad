"""Test-time normalisation behind one signature: `fit(bank, gallery) -> fitted.score(queries)`.

Every constructor and every fitted object carries `kind`: `"inductive"` (a training bank, each
test query alone), `"transductive"` (all test queries together) or `"online"` (a test query by those
before it). They never share a column.

Example:
  >>> import numpy as np
  >>> fitted = NORMALIZERS["ncl"](scale=50.0).fit(Bank(np.eye(3)), np.eye(3))
  >>> fitted.kind, fitted.bias.shape
  ('inductive', (3,))
"""

from typing import Any

from ncl_jax.normalizers.auto import Auto
from ncl_jax.normalizers.base import Bank, BiasFitted, Fitted, Kind, LazyRows, LazyScores
from ncl_jax.normalizers.biases import Csls, DualIs, InvertedSoftmax, Ncl, Nnn, Plain
from ncl_jax.normalizers.online import Online
from ncl_jax.normalizers.rescoring import Dsl, DualDis, QbNorm, SinkhornSingle, SinkhornTest

NORMALIZERS: dict[str, Any] = {
    "none": Plain,
    "ncl": Ncl,
    "inverted_softmax": InvertedSoftmax,
    "csls": Csls,
    "nnn": Nnn,
    "qb_norm": QbNorm,
    "dual_is": DualIs,
    "dual_dis": DualDis,
    "sinkhorn_single": SinkhornSingle,
    "auto": Auto,
    "dsl": Dsl,
    "sinkhorn_test": SinkhornTest,
}
"""Every normaliser by the name used in configs, tables and result files. `Online`, whose scores
depend on the order of the queries, is no member: it is asked for by itself."""

__all__ = [
    "NORMALIZERS", "Auto", "Bank", "BiasFitted", "Csls", "Dsl", "DualDis", "DualIs", "Fitted",
    "InvertedSoftmax", "Kind", "LazyRows", "LazyScores", "Ncl", "Nnn", "Online", "Plain", "QbNorm",
    "SinkhornSingle", "SinkhornTest",
]  # fmt: skip
