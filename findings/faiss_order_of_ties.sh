#!/usr/bin/env bash
# FAISS keeps the first of equal vectors but lists them last to first.
#
# 50 equal vectors stand at 499 to 548 of an `IndexFlatIP`. Of equal scores one expects the order in
# which the vectors were added, as with NumPy's stable sort. faiss-cpu 1.15.1 keeps the first five,
# but returns them in reverse; whether one query is searched for or many (with a matrix product from
# 20 on) makes no difference. A ranking of FAISS and one of a stable sort agree on the set only, and
# a place that is read from FAISS's list is the worst of the tie.
#
# Seen with Python 3.13:
#   faiss 1.15.1: 1 query: [503, 502, 501, 500, 499]
#   faiss 1.15.1: 64 queries: [503, 502, 501, 500, 499]
#   faiss 1.15.1: query of zeros: [2, 1, 0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q faiss-cpu==1.15.1 "numpy>=2,<3"
"$folder/env/bin/python" - << 'PYTHON'
import faiss
import numpy as np

rows = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
rows[499:549] = rows[499]
index = faiss.IndexFlatIP(16)
index.add(rows)
for queries in (1, 64):
    found = index.search(np.repeat(rows[499:500], queries, axis=0), 5)[1]
    assert (found == found[0]).all()
    print(f"faiss {faiss.__version__}: {queries} quer{'y' if queries == 1 else 'ies'}: "
          f"{found[0].tolist()}")  # fmt: skip
    assert found[0].tolist() == sorted(found[0].tolist(), reverse=True)
found = index.search(np.zeros((1, 16), np.float32), 3)[1][0].tolist()
print(f"faiss {faiss.__version__}: query of zeros: {found}")
assert found == [2, 1, 0]
PYTHON
