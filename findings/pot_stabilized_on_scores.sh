#!/usr/bin/env bash
# POT's "sinkhorn_stabilized" gives no plan at a small regularisation; "sinkhorn_log" does.
#
# By its name one expects `ot.sinkhorn(..., method="sinkhorn_stabilized")` to be the one for small
# `reg`. But its first kernel is exp(-cost / reg), before any potential is absorbed: with costs that
# are negative (-score) it is infinite, and with the smallest cost taken away first, which changes no
# plan, whole rows of it are 0. POT 0.9.7.post1 warns, and returns a plan of NaN and infinity either
# way. At a regularisation ten times as large it works, behind the shift only.
#
# Seen with Python 3.13:
#   POT 0.9.7.post1: sinkhorn_stabilized, -score, reg 0.001: finite False
#   POT 0.9.7.post1: sinkhorn_stabilized, -score less its minimum, reg 0.001: finite False
#   POT 0.9.7.post1: sinkhorn_stabilized, -score less its minimum, reg 0.01: finite True
#   POT 0.9.7.post1: sinkhorn_log, -score, reg 0.001: finite True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q POT==0.9.7.post1 "numpy>=2,<3"
"$folder/env/bin/python" - << 'PYTHON'
import warnings

import numpy as np
import ot

warnings.simplefilter("ignore")
score = np.random.default_rng(0).normal(size=(6, 4))
shifted = score.max() - score
for method, name, cost, reg, finite in (
    ("sinkhorn_stabilized", "-score", -score, 1e-3, False),
    ("sinkhorn_stabilized", "-score less its minimum", shifted, 1e-3, False),
    ("sinkhorn_stabilized", "-score less its minimum", shifted, 1e-2, True),
    ("sinkhorn_log", "-score", -score, 1e-3, True),
):
    plan = ot.sinkhorn(np.ones(6) / 6, np.ones(4) / 4, cost, reg, method=method, numItermax=2000)
    print(f"POT {ot.__version__}: {method}, {name}, reg {reg}: finite {np.isfinite(plan).all()}")
    assert np.isfinite(plan).all() == finite
PYTHON
