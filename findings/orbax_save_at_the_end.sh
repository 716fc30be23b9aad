#!/usr/bin/env bash
# A script that ends right after an asynchronous save of Orbax loses the checkpoint, with exit code 0.
#
# `CheckpointManager.save` returns while threads still write, and these are no daemon threads, so
# one expects the interpreter to wait for them and the checkpoint to be there. With
# orbax-checkpoint 0.12.8 on Python 3.11 the process ends with code 0 and only the unfinished folder
# is left: the threads need an executor that the interpreter has shut down before it joins them.
# With `wait_until_finished()` (or `close()`) as the last line, the step is there.
#
# Seen with Python 3.11:
#   orbax-checkpoint 0.12.8, leave: code 0, steps []
#   orbax-checkpoint 0.12.8, wait: code 0, steps ['0']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 "numpy>=2,<3"
cat > "$folder/save.py" << 'PYTHON'
import sys

import numpy as np
import orbax.checkpoint as ocp

manager = ocp.CheckpointManager(sys.argv[1])
state = {f"a{i}": np.arange(100_000.0) for i in range(20)}
manager.save(0, args=ocp.args.StandardSave(state))
if sys.argv[2] == "wait":
    manager.wait_until_finished()
PYTHON
for how in leave wait; do
  JAX_PLATFORMS=cpu "$folder/env/bin/python" "$folder/save.py" "$folder/$how" "$how" \
    > /dev/null 2> "$folder/$how.err" && code=0 || code=$?
  steps=$(cd "$folder/$how" && find . -mindepth 1 -maxdepth 1 -name '[0-9]' -printf "'%f'")
  echo "orbax-checkpoint 0.12.8, $how: code $code, steps [$steps]"
  case "$how$code[$steps]" in
    "leave0[]" | "wait0['0']") ;;
    *) exit 1 ;;
  esac
done
