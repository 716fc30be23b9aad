"""Runs the benchmarks and writes one table, as Markdown and as JSON."""

import argparse
import json
import os
import pathlib
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, str(os.cpu_count()))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Threads are chosen before NumPy and JAX load.
from benchmarks import (  # noqa: E402
    checkpoint_save,
    collectives,
    common,
    convergence,
    index_open,
    input_build,
    input_train,
    loss_step,
    memory,
    model_speed,
    own_videos,
    retrieval_evaluator,
    retrieval_fit,
    retrieval_search,
    solver,
    whole_step,
)

BENCHMARKS = {
    "B1": loss_step.run,
    "B2": memory.run,
    "B3": solver.run,
    "B4": convergence.run,
    "B5": collectives.run,
    "B6": retrieval_fit.run,
    "B7": retrieval_search.run,
    "B8 build": input_build.run,
    "B8 input": input_train.run,
    "B9": checkpoint_save.run,
    "B10": whole_step.run,
    "B11": index_open.run,
    "model": model_speed.run,
    "evaluator": retrieval_evaluator.run,
    "own videos": own_videos.run,
}


def markdown(machine: dict, rows: list[common.Row]) -> str:
    lines = ["| | measured | target | met |", "|---|---|---|---|"]
    for row in rows:
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        lines.append(f"| {row.benchmark}: {row.what} | {row.value:.4g} | {row.target} | {met} |")
    return "\n".join([*(f"- {k}: {v}" for k, v in machine.items()), "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer blocks")
    names = sorted({*BENCHMARKS, "B8"}, key=[*BENCHMARKS, "B8"].index)
    parser.add_argument("--only", nargs="*", choices=names, default=list(BENCHMARKS))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results"))
    flags = parser.parse_args()
    machine, rows, total = common.machine() | common.floors(), [], 0.0
    for name in (b for b in BENCHMARKS if b in flags.only or b.split()[0] in flags.only):
        start = time.perf_counter()
        for row in BENCHMARKS[name](flags.quick):
            rows.append(row)
            print(
                f"{row.benchmark}: {row.what}: {row.value:.4g} {row.target} {row.met}", flush=True
            )
        seconds = time.perf_counter() - start
        total += seconds
        print(f"{name} took {seconds:.0f} s", flush=True)
        rows.append(common.note(name, "all of it, s", seconds))
        machine[f"load after {name}"] = [round(x, 2) for x in os.getloadavg()]
        machine["seconds so far"] = round(total)
        flags.out.mkdir(parents=True, exist_ok=True)
        table = {"machine": machine, "rows": [row._asdict() for row in rows]}
        (flags.out / "table.json").write_text(json.dumps(table, indent=1))
        (flags.out / "table.md").write_text(markdown(machine, rows))
    print(f"all took {total:.0f} s", flush=True)


if __name__ == "__main__":
    main()
