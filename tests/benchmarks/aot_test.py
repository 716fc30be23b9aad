"""Compiling for TPUs that are not there: the real step at a small size, and reading HLO."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from benchmarks import aot
from benchmarks.hlo import traffic

HLO = """\
%body.1 (p: f32[8]) -> f32[8] {
  %all-reduce.1 = f32[8]{0:T(256)} all-reduce(%p), to_apply=%add
}
%add (x: f32[], y: f32[]) -> f32[] {
}
ENTRY %main (a: bf16[4,2]) -> f32[8] {
  %start = (bf16[4,2]{1,0}, bf16[16,2]{1,0}) all-gather-start(%a), dimensions={0}
  %done = bf16[16,2]{1,0} all-gather-done(%start)
  %while = f32[8] while(%x), body=%body.1, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %r = (f32[2], s32[3]) reduce-scatter(%b, %c)
}
"""


def test_traffic_counts_results_loops_and_asynchronous_pairs_once():
    assert sorted(traffic(HLO, 4)) == [
        ("all-gather", 16 * 2 * 2, 1),
        ("all-reduce", 2 * 8 * 4, 5),
        ("reduce-scatter", 4 * (2 * 4 + 3 * 4), 1),
    ]


@pytest.mark.parametrize("most", [0, 15, 16, 63, 64, 100, 144, 255, 256, 1000])
@pytest.mark.parametrize("within", [0, 1, 16, 48])
def test_the_largest_that_fits_is_found(most, within):
    tried = []

    def fits(number):
        tried.append(number)
        return number <= most

    found = aot.largest_fitting(fits, [16, 64, 256], within)
    assert len(tried) == len(set(tried)) <= 3 + 8
    below = max([0, *(n for n in (16, 64, 256) if n <= most)])
    if not within:
        assert found == below
    else:
        assert below <= found <= min(most, 256) < found + within + (256 if most > 256 else 0)


PROGRAM = """
import json
from benchmarks import aot
from configs import demo
mesh = aot.topology_mesh("v5e:2x2")
done = {}
for name in ("infonce", "ncl"):
    config = demo.get_config(f"loss={name}")
    config.train.batch_size = 32
    done[name] = aot.compile_step(config, mesh)._asdict()
print(json.dumps(done))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: requirements-tpu.txt, in an environment of its own",
)
def test_the_step_is_compiled_for_four_chips():
    command = [sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    out = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=500
    )
    assert not out.returncode, out.stderr[-2000:]
    done = json.loads(out.stdout.splitlines()[-1])
    kinds = {n: [kind for kind, *_ in d["collectives"]] for n, d in done.items()}
    for name, compiled in done.items():
        assert {"all-gather", "all-reduce"} <= set(kinds[name])
        assert compiled["flops"] > 0
        assert compiled["arguments"] < compiled["peak"] < 16e9
    # One sum of B floats per Sinkhorn iteration and nothing of B^2: 32 floats and some padding.
    sent = {n: sum(size * times for _, size, times in d["collectives"]) for n, d in done.items()}
    assert 0 < sent["ncl"] - sent["infonce"] < 64 * 1024
    assert done["ncl"]["peak"] - done["infonce"]["peak"] < 1 << 20
