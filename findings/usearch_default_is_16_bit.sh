#!/usr/bin/env bash
# usearch's `Index` keeps float32 vectors in 16 bits unless told otherwise, and `exact=True` does not bring them back.
#
# One expects `Index(ndim=64, metric="ip")` to keep the float32 vectors it is given, and `search(..., exact=True)` to
# be exhaustive search over them. usearch 2.26.6 chooses bfloat16 on this kind of processor (AVX-512), says so only
# in `index.dtype`, and gives back other numbers than were added. An exhaustive search then ranks the rounded
# vectors: of 200 queries over 5,000 random unit vectors one in five gets another top ten.
# With `dtype="f32"` all are right.
#
# Seen with Python 3.11, NumPy 2.4.6:
#   usearch 2.26.6: default: ScalarKind.BF16, added vectors come back within 9.8e-04
#   usearch 2.26.6: exact=True, default: top 10 in order for 0.815 of the queries
#   usearch 2.26.6: exact=True, dtype f32: top 10 in order for 1.000 of the queries
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
items = rng.standard_normal((5000, 64)).astype(np.float32)
items /= np.linalg.norm(items, axis=1, keepdims=True)
queries = items[:200] + 0.3 * rng.standard_normal((200, 64)).astype(np.float32)
right = np.argsort(-(queries @ items.T), axis=1, kind="stable")[:, :10]
shares = []
for name, options in (("default", {}), ("dtype f32", {"dtype": "f32"})):
    index = Index(ndim=64, metric="ip", **options)
    index.add(np.arange(5000), items)
    if not options:
        back = max(np.abs(np.asarray(index.get(n), np.float32) - items[n]).max() for n in range(99))
        print(f"{said}: default: {index.dtype}, added vectors come back within {back:.1e}")
        assert back > 1e-4
    found = index.search(queries, 10, exact=True).keys
    shares.append((found == right).all(axis=1).mean())
    print(f"{said}: exact=True, {name}: top 10 in order for {shares[-1]:.3f} of the queries")
assert shares[0] < 0.95 and shares[1] == 1.0
PYTHON
