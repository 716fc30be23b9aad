"""B5: what eight devices send each other and hold, from the compiled program."""

import functools
import json
import re
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks.common import Row, at_most, fresh, note
from ncl_jax import losses

DEVICES, DIM, PAIRS = 8, 512, 10
_WIDTH = {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "bf16": 2, "pred": 1, "s8": 1, "u8": 1}


def two_sided(text, video, scale, ids, valid):
    """The form of OpenCLIP's local loss: both sides gathered with gradient, both logit blocks."""
    every_text, every_video = (jax.lax.all_gather(x, "data", tiled=True) for x in (text, video))
    first = jax.lax.axis_index("data") * len(text)
    label = first + jnp.arange(len(text))
    total = 0.0
    for own, other in ((text, every_video), (video, every_text)):
        s = scale * own @ other.T
        picked = jnp.take_along_axis(s, label[:, None], 1)[:, 0]
        total += jnp.sum(jax.nn.logsumexp(s, 1) - picked) / 2
    return total


def one_sided(text, video, scale, ids, valid, **options):
    return losses.ncl(text, video, scale, ids, valid, axis_name="data", **options)[0].sum()


def infonce(text, video, scale, ids, valid):
    return losses.infonce(text, video, scale, ids, valid, axis_name="data").sum()


def mapped(loss):
    mesh = Mesh(jax.devices()[:DEVICES], ("data",))

    def local(*args):
        gx, gy, gt = jax.grad(loss, (0, 1, 2))(*args)
        return gx, gy, jax.lax.psum(gt, "data")

    rows = P("data")
    return jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=(rows, rows, P(), rows, rows),
            out_specs=(rows, rows, P()), check_vma=False,
        )
    )  # fmt: skip


def traffic(hlo: str) -> list[tuple[str, int, int]]:
    """(operation, ring bytes per device, executions) of every collective in compiled HLO.

    A collective in a counted loop's body runs `known_trip_count` times; the exact fallback's
    loop, which has no count, does not run in a healthy step and is left out.
    """
    bodies, current = {}, None
    for line in hlo.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and not line.startswith(" "):
            current = head.group(1)
            bodies[current] = []
        elif current:
            bodies[current].append(line)
    times = dict.fromkeys(bodies, 0)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", hlo, re.M).group(1)

    def visit(name: str, count: int) -> None:
        times[name] += count
        for line in bodies[name]:
            trip = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            inner = int(trip.group(1)) if trip else 0 if " while(" in line else 1
            for callee in re.findall(r"(?:body|to_apply|calls)=%?([\w.\-]+)", line):
                visit(callee, count * inner)
            branches = re.search(r"branch_computations=\{([^}]*)\}", line)
            for callee in re.findall(r"%([\w.\-]+)", branches.group(1)) if branches else ():
                visit(callee, count)

    visit(entry, 1)
    found = []
    pattern = re.compile(r" = (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute)\(")
    for name, lines in bodies.items():
        for line in lines:
            match = pattern.search(line)
            if match and times[name]:
                shapes = re.findall(r"(\w+)\[([\d,]*)\]", match.group(1))
                size = sum(
                    _WIDTH[t] * int(np.prod([int(x) for x in s.split(",") if x])) for t, s in shapes
                )
                size *= {"all-reduce": 2, "reduce-scatter": DEVICES}.get(match.group(2), 1)
                found.append((match.group(2), size, times[name]))
    return found


def _measure(size: int) -> dict:
    rng = np.random.default_rng(0)
    text = rng.normal(size=(size, DIM)).astype(np.float32)
    video = 0.2 * text + rng.normal(size=text.shape).astype(np.float32)
    text, video = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, video))
    args = (text, video, jnp.float32(20), jnp.arange(size), jnp.ones(size, bool))
    forms = {
        "two-sided InfoNCE": two_sided,
        "InfoNCE": infonce,
        "NCL": functools.partial(one_sided, iterations=PAIRS),
        "NCL tiled": functools.partial(one_sided, iterations=PAIRS, execution="tiled"),
    }
    out, grads = {}, {}
    for name, form in forms.items():
        compiled = mapped(form).lower(*args).compile()
        out[name] = {
            "traffic": traffic(compiled.as_text()),
            "temp": compiled.memory_analysis().temp_size_in_bytes,
        }
        if name.endswith("InfoNCE") and size <= 1024:
            grads[name] = jax.tree.map(np.asarray, compiled(*args))
    if grads:
        for one, other in zip(*grads.values(), strict=True):
            assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(one), "not the same loss"
    return out


def run(quick: bool) -> Iterator[Row]:
    env = {"JAX_NUM_CPU_DEVICES": str(DEVICES), "JAX_PLATFORMS": "cpu"}
    measured = {n: json.loads(fresh("benchmarks.collectives", n, env=env)) for n in (1024, 4096)}
    for size, forms in measured.items():
        sent = {n: sum(b * k for _, b, k in f["traffic"]) for n, f in forms.items()}
        for name in ("InfoNCE", "NCL", "NCL tiled"):
            what = f"B={size}: {name} K={PAIRS} bytes over two-sided InfoNCE"
            yield at_most("B5", what, sent[name] / sent["two-sided InfoNCE"], 0.55)
        for name in ("NCL", "NCL tiled"):
            reduces = [(b, k) for op, b, k in forms[name]["traffic"] if op == "all-reduce"]
            per_update = sum(k for b, k in reduces if b == 8 * size)
            yield at_most(
                "B5", f"B={size}: {name} all-reduces of B floats less one per column update",
                per_update - (PAIRS + 1), 1,
            )  # fmt: skip
            yield note("B5", f"B={size}: {name}, other collectives",
                       sum(k for *_, k in forms[name]["traffic"]) - per_update)  # fmt: skip
            block = size * size / DEVICES * 4
            yield note(
                "B5", f"B={size}: {name} temporary bytes per device over 4 B^2/P",
                forms[name]["temp"] / block,
            )  # fmt: skip
            yield note(
                "B5", f"B={size}: {name} temporary bytes per device over 4 B d",
                forms[name]["temp"] / (4 * size * DIM),
            )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
