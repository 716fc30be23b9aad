"""What reading weights takes of memory: the arrays, and not the file beside them."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

READ = """
import pathlib, sys
from ncl_jax.models import weights

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

before = peak()
arrays = weights.read_safetensors(pathlib.Path(sys.argv[1]))
print(peak() - before, sum(array.nbytes for array in arrays.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_file_of_weights_is_in_memory_once(tmp_path):
    """The pages of a file that is mapped count too, as long as it is open (safetensors 0.8)."""
    rows = np.ones((1 << 20, 4), np.float32)
    save_file({f"a{number}": rows + number for number in range(20)}, tmp_path / "a.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "a.safetensors")], capture_output=True,
        text=True, check=True, cwd=pathlib.Path(__file__).parents[2],
    )  # fmt: skip
    peak, held = map(int, done.stdout.split())
    assert held == 20 * rows.nbytes
    assert held < peak < 1.3 * held
