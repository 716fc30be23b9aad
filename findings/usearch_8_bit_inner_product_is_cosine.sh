#!/usr/bin/env bash
# usearch's inner product over 8-bit storage ignores the lengths of the vectors.
#
# One expects `Index(metric="ip", dtype="i8")` to rank by an approximate inner product, as dtype "f32" ranks by the
# exact one. usearch 2.26.6 divides every vector by its length when it turns it into 8 bits: the ranking is that of the
# cosine. Where lengths carry meaning (maximum inner product, a bias as one more coordinate), the best item is lost;
# where all have one length, nothing is seen.
#
# Seen with Python 3.11, NumPy 2.4.6; share of 200 queries whose first item is the best one by
#   usearch 2.26.6: f32: inner product 1.000, cosine 0.285
#   usearch 2.26.6: f16: inner product 1.000, cosine 0.285
#   usearch 2.26.6: i8: inner product 0.265, cosine 0.935
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q usearch==2.26.6 numpy==2.4.6
"$folder/env/bin/python" - << 'PYTHON'
import importlib.metadata

import numpy as np
from usearch.index import Index

said = f"usearch {importlib.metadata.version('usearch')}"
rng = np.random.default_rng(0)
unit = rng.standard_normal((5000, 64)).astype(np.float32)
unit /= np.linalg.norm(unit, axis=1, keepdims=True)
items = unit * (1 + np.arange(5000) % 4)[:, None].astype(np.float32)
queries = unit[:200] + 0.3 * rng.standard_normal((200, 64)).astype(np.float32)
by_product, by_cosine = ((queries @ rows.T).argmax(axis=1) for rows in (items, unit))
shares = {}
for dtype in ("f32", "f16", "i8"):
    index = Index(ndim=64, metric="ip", dtype=dtype)
    index.add(np.arange(5000), items)
    first = index.search(queries, 1, exact=True).keys.reshape(-1)
    shares[dtype] = (first == by_product).mean(), (first == by_cosine).mean()
    print(f"{said}: {dtype}: inner product {shares[dtype][0]:.3f}, cosine {shares[dtype][1]:.3f}")
assert min(shares["f32"][0], shares["f16"][0]) > 0.98
assert shares["i8"][0] < 0.5 and shares["i8"][1] > 0.9
PYTHON
