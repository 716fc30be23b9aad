"""B5: what eight devices send each other and hold, from the compiled program.

Alone, `python -m benchmarks.collectives traffic 1024` or `... memory quick` prints its part as
JSON; it wants eight devices.
"""

import functools
import json
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks.common import Row, at_most, fresh, note
from benchmarks.hlo import traffic
from ncl_jax import losses

DEVICES, DIM, PAIRS = 8, 512, 10
ENVIRONMENT = {"JAX_NUM_CPU_DEVICES": str(DEVICES), "JAX_PLATFORMS": "cpu"}
NARROW = 16  # a width at which B^2/P stands out from B d


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


def mapped(loss, devices=DEVICES):
    mesh = Mesh(jax.devices()[:devices], ("data",))

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


def _temporary(size: int, devices: int, materialize: str) -> int:
    """Temporary bytes per device of NCL's gradient at width `NARROW`; nothing is run."""
    row = jax.ShapeDtypeStruct((size, NARROW), jnp.float32)
    scale, ids = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((size,), jnp.int32)
    loss = functools.partial(one_sided, iterations=PAIRS, materialize=materialize)
    valid = jax.ShapeDtypeStruct((size,), bool)
    compiled = mapped(loss, devices).lower(row, row, scale, ids, valid).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _memory(quick: bool) -> list:
    """[kind, B, P, bytes] over batches at eight devices, and over devices at one batch."""
    sizes = (16384, 65536) if quick else (8192, 16384, 32768, 65536)
    places = [(size, DEVICES) for size in sizes]
    places += [(16384, devices) for devices in ((2,) if quick else (1, 2, 4))]
    return [
        [materialize, size, devices, _temporary(size, devices, materialize)]
        for materialize in ("always", "never")
        for size, devices in places
    ]


def _exponent(points: list[tuple[int, int]]) -> float:
    return float(np.polyfit(*np.log(np.array(points)).T, 1)[0])


def _scaling(quick: bool) -> Iterator[Row]:
    mode = "quick" if quick else "full"
    found = json.loads(fresh("benchmarks.collectives", "memory", mode, env=ENVIRONMENT))
    for materialize, in_batch, unit in (("always", 2.05, "B^2/P"), ("never", 1.05, "B d")):
        mine = [(n, p, size) for kind, n, p, size in found if kind == materialize]
        for n, p, size in mine:
            floats = n * n / p if materialize == "always" else n * NARROW
            what = f"{materialize}, d={NARROW}, B={n}, P={p}: temporary bytes over 4 {unit}"
            yield note("B5", what, size / 4 / floats)
        over_batch = _exponent([(n, size) for n, p, size in mine if p == DEVICES])
        what = f"{materialize}: exponent of temporary bytes in B"
        yield at_most("B5", what, over_batch, in_batch)
        over_devices = _exponent([(p, size) for n, p, size in mine if n == 16384])
        what = f"{materialize}: exponent of temporary bytes per device in P"
        yield at_most("B5", what, over_devices, -0.95 if materialize == "always" else 0.05)


def _traffic(size: int) -> dict:
    rng = np.random.default_rng(0)
    text = rng.normal(size=(size, DIM)).astype(np.float32)
    video = 0.2 * text + rng.normal(size=text.shape).astype(np.float32)
    text, video = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, video))
    args = (text, video, jnp.float32(20), jnp.arange(size), jnp.ones(size, bool))
    forms = {
        "two-sided InfoNCE": two_sided,
        "InfoNCE": infonce,
        "NCL": functools.partial(one_sided, iterations=PAIRS),
        "NCL tiled": functools.partial(one_sided, iterations=PAIRS, materialize="never"),
    }
    out, grads = {}, {}
    for name, form in forms.items():
        compiled = mapped(form).lower(*args).compile()
        out[name] = {
            "traffic": traffic(compiled.as_text(), DEVICES),
            "temp": compiled.memory_analysis().temp_size_in_bytes,
        }
        if name.endswith("InfoNCE") and size <= 1024:
            grads[name] = jax.tree.map(np.asarray, compiled(*args))
    if grads:
        for one, other in zip(*grads.values(), strict=True):
            assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(one), "not the same loss"
    return out


def run(quick: bool) -> Iterator[Row]:
    for size in (1024,) if quick else (1024, 4096):
        forms = json.loads(fresh("benchmarks.collectives", "traffic", size, env=ENVIRONMENT))
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
            yield note(
                "B5", f"B={size}: {name} temporary bytes per device over 4 (B^2/P + B d)",
                forms[name]["temp"] / (4 * size * (size / DEVICES + DIM)),
            )  # fmt: skip
    yield from _scaling(quick)


if __name__ == "__main__":
    what, argument = sys.argv[1:]
    print(json.dumps(_memory(argument == "quick") if what == "memory" else _traffic(int(argument))))
