"""Test-time normalisation behind one signature: `fit(bank, gallery) -> fitted.score(queries)`.

Example:
  >>> fitted = NORMALIZERS["ncl"](scale=50.0).fit(Bank(np.eye(3)), np.eye(3))
  >>> fitted.kind, fitted.bias.shape
  ('inductive', (3,))
"""

import numpy as np

from ncl_jax.normalizers.base import Bank, BiasFitted, Fitted, LazyScores
from ncl_jax.normalizers.biases import Ncl, Plain

NORMALIZERS = {"none": Plain, "ncl": Ncl}
"""Every normaliser by the name used in configs, tables and result files."""

__all__ = ["NORMALIZERS", "Bank", "BiasFitted", "Fitted", "LazyScores", "Ncl", "Plain", "np"]
