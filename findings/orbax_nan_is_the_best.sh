#!/usr/bin/env bash
# A metric that is NaN displaces the best checkpoint of Orbax.
#
# `CheckpointManager` with `best_fn`, `best_mode="max"` and `max_to_keep=1` is to keep the checkpoint
# with the highest metric. A validation that gives NaN once is expected to lose. With orbax-checkpoint
# 0.12.8 the scores .3, NaN, .2 leave the step of .2 only, and `best_step()` names it; without the
# NaN (.3, .1, .2) the step of .3 stays. A way out: give no metrics where they are not finite.
#
# Seen with Python 3.13:
#   orbax-checkpoint 0.12.8: scores (0.3, nan, 0.2): kept [2], best 2
#   orbax-checkpoint 0.12.8: scores (0.3, 0.1, 0.2): kept [0], best 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.12.0.1 "numpy>=2,<3"
JAX_PLATFORMS=cpu "$folder/env/bin/python" - << 'PYTHON'
import importlib.metadata
import math
import tempfile

import numpy as np
import orbax.checkpoint as ocp

version = importlib.metadata.version("orbax-checkpoint")
options = ocp.CheckpointManagerOptions(
    max_to_keep=1, best_fn=lambda metrics: metrics["score"], best_mode="max"
)
for scores, expected in (((0.3, math.nan, 0.2), 2), ((0.3, 0.1, 0.2), 0)):
    with (
        tempfile.TemporaryDirectory() as folder,
        ocp.CheckpointManager(folder, options=options) as manager,
    ):
        for step, score in enumerate(scores):
            state = ocp.args.StandardSave({"a": np.zeros(3)})
            manager.save(step, args=state, metrics={"score": score})
        manager.wait_until_finished()
        kept, best = list(manager.all_steps()), manager.best_step()
    print(f"orbax-checkpoint {version}: scores {scores}: kept {kept}, best {best}")
    assert (kept, best) == ([expected], expected)
PYTHON
