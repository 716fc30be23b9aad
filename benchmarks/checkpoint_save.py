"""B9: what a checkpoint costs a run, how soon it goes on, and what more devices send.

Alone, `python -m benchmarks.checkpoint_save restart FOLDER` or `... devices 4` prints its part.
"""

import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.common import Row, at_most, fresh, interleave, note, ratio
from benchmarks.hlo import traffic
from benchmarks.whole_step import prepared
from configs import common, demo
from ncl_jax.checkpoint.checkpointer import Checkpointer

POSITION, METADATA = {"samples": 0, "seed": 0, "skipped": 0}, {"version": "benchmark"}
EACH = 16  # pairs per device
PLACES = (2, 4, 8)
STEP = 0.1  # seconds of a step that needs no core


def config(width: int = 64) -> Any:
    """The demo's, with towers that may be wider: a larger state."""
    c = demo.get_config()
    c.model.vision.width = c.model.text.width = width
    return c


def copied(state: Any) -> list[np.ndarray]:
    """A plain copy of every array, the least a save must do before the next step."""
    return [np.array(leaf, copy=True) for leaf in jax.tree.leaves(state._replace(rng=()))]


def real_size() -> Any:
    """ViT-B/32 with 12 frames, what configs/msvd.py trains, and a batch this machine can bear."""
    c = common.get_config()
    c.name = "ViT-B/32, two clips"
    c.tokenizer.vocab_size = 49408
    c.train.batch_size = 2
    return c


def _blocked(folder: pathlib.Path, state: Any, blocks: int) -> Iterator[Row]:
    size = sum(leaf.nbytes for leaf in copied(state)) / 1e6
    saver, number = Checkpointer(folder), [0]

    def save() -> float:
        number[0] += 1
        numbered = state._replace(step=state.step + number[0])
        jax.block_until_ready(numbered.step)
        start = time.perf_counter()
        saver.save(numbered, POSITION, METADATA)
        blocked = time.perf_counter() - start
        saver.wait()
        return blocked

    seconds = interleave({"save": save, "copy": lambda: (copied(state), None)[1]}, blocks)
    saver.close()
    what = f"state of {size:.0f} MB in {len(jax.tree.leaves(state))} arrays"
    yield note("B9", f"{what}: plain copy, ms", 1e3 * np.median(seconds["copy"]))
    yield note("B9", f"{what}: training blocked by a save, ms", 1e3 * np.median(seconds["save"]))
    yield at_most("B9", f"{what}: blocked over copy", ratio(seconds, "save", "copy"), 2)


def _inflation(
    folder: pathlib.Path, c: Any, blocks: int, count: int, stand_in: bool = False
) -> Iterator[Row]:
    """Time of the `count` steps after a save, which last about as long as it, over that without.

    With `stand_in` a sleep of `STEP` seconds stands for a device whose steps need no core of the
    host: what is left is the dispatch of a program with all arrays of the state.
    """
    mapped, state, batch = prepared(c)
    holder, saver = [state], Checkpointer(folder)
    touch = jax.jit(lambda state: state._replace(step=state.step + 1), donate_argnums=0)

    def steps() -> float:
        start = time.perf_counter()
        for _ in range(count):
            if stand_in:
                holder[0] = touch(holder[0])
                time.sleep(STEP)
            else:
                holder[0] = mapped.run(holder[0], batch)[0]
        jax.block_until_ready(holder[0])
        return time.perf_counter() - start

    def saving() -> float:
        saver.save(holder[0], POSITION, METADATA)
        spent = steps()
        saver.wait()
        return spent

    seconds = interleave({"saving": saving, "plain": steps}, blocks)
    saver.save(holder[0], POSITION, METADATA)
    saver.close()
    what = f"{c.name}, {count} steps{' that need no core' if stand_in else ''}"
    yield note("B9", f"{what}, s", float(np.median(seconds["plain"])))
    yield at_most("B9", f"{what}: while saving over without",
                  ratio(seconds, "saving", "plain"), 1.1)  # fmt: skip


def _restart(folder: str) -> None:
    start = time.perf_counter()
    mapped, state, batch = prepared(config())
    built = time.perf_counter()
    restored = Checkpointer(folder).restore(state).state
    read = time.perf_counter()
    jax.block_until_ready(mapped.run(restored, batch))
    ready = time.perf_counter()
    print(json.dumps({"build": built - start, "restore": read - built, "first step": ready - read}))


def _devices(count: int) -> None:
    c = config()
    c.train.batch_size = EACH * count
    mapped, state, batch = prepared(c, count)
    print(json.dumps(traffic(mapped.run.lower(state, batch).compile().as_text(), count)))


def _scaling() -> Iterator[Row]:
    """Weak scaling by counts: as many pairs per device, more devices."""
    found = {}
    for count in PLACES:
        environment = {"JAX_NUM_CPU_DEVICES": str(count), "JAX_PLATFORMS": "cpu"}
        sent = json.loads(fresh("benchmarks.checkpoint_save", "devices", count, env=environment))
        found[count] = sum(k for *_, k in sent), sum(b * k for _, b, k in sent)
        what = f"{count} devices, {EACH} pairs each"
        yield note("B9", f"{what}: collectives in a step", found[count][0])
        yield note("B9", f"{what}: MB sent by a device", found[count][1] / 1e6)
    fewest, most = PLACES[0], PLACES[-1]
    yield at_most("B9", f"collectives at {most} devices over {fewest}",
                  found[most][0] / found[fewest][0], 1)  # fmt: skip
    pairs = EACH * (most - fewest)
    yield note("B9", "bytes more per pair more", (found[most][1] - found[fewest][1]) / pairs)


def run(quick: bool) -> Iterator[Row]:
    blocks = 3 if quick else 11
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        yield from _blocked(folder / "wide", prepared(config(width=512))[1], blocks)
        yield from _inflation(folder / "small", config(), blocks, 10)
        yield from _inflation(folder / "stand-in", config(), blocks, 10, stand_in=True)
        if not quick:
            yield from _blocked(folder / "real", prepared(real_size())[1], blocks)
            yield from _inflation(folder / "steps", real_size(), 5, 1)
            yield from _inflation(folder / "real stand-in", real_size(), 3, 100, stand_in=True)
        start = time.perf_counter()
        parts = json.loads(fresh("benchmarks.checkpoint_save", "restart", folder / "small"))
        for part, seconds in parts.items():
            yield note("B9", f"restart: {part}, s", seconds)
        yield note("B9", "restart to the end of the first step, s", time.perf_counter() - start)
    yield from _scaling()


if __name__ == "__main__":
    _restart(sys.argv[2]) if sys.argv[1] == "restart" else _devices(int(sys.argv[2]))
