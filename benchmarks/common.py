"""Interleaved timing, inputs and the description of the machine."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Row(NamedTuple):
    """One line of the table. `target` is empty where the number is only context."""

    benchmark: str
    what: str
    value: float
    target: str = ""
    met: bool | None = None


def at_most(benchmark: str, what: str, value: float, bound: float) -> Row:
    return Row(benchmark, what, float(value), f"<= {bound:g}", bool(value <= bound))


def at_least(benchmark: str, what: str, value: float, bound: float) -> Row:
    return Row(benchmark, what, float(value), f">= {bound:g}", bool(value >= bound))


def note(benchmark: str, what: str, value: float) -> Row:
    return Row(benchmark, what, float(value))


def interleave(calls: dict[str, Callable[[], float | None]], blocks: int) -> dict[str, np.ndarray]:
    """Seconds of each call, one after the other in every block, after one warm-up each.

    A call that returns a number has timed itself (in another process, say).
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(blocks + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            own = call()
            spent = time.perf_counter() - start
            if block:
                seconds[name].append(spent if own is None else own)
    return {name: np.array(s) for name, s in seconds.items()}


@contextlib.contextmanager
def asking(command: list[str]) -> Iterator[Callable[[str], float]]:
    """A function that sends a line to another process and returns the seconds it answers."""
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipe) as process:

        def ask(line: str) -> float:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"{command[0]} ended; look at what it printed")
            return float(answer)

        yield ask
        process.stdin.close()


def ratio(seconds: dict[str, np.ndarray], one: str, other: str) -> float:
    """Median over blocks of the ratio inside a block."""
    return float(np.median(seconds[one] / seconds[other]))


def blocking(function: Callable[..., Any], *args: Any) -> Callable[[], None]:
    """A call that waits for its result."""

    def call() -> None:
        jax.block_until_ready(function(*args))

    return call


def embeddings(size: int, dim: int, noise: float = 1.0, seed: int = 0) -> tuple[Any, Any]:
    """Matched unit-norm pairs."""
    one, two = jax.random.split(jax.random.key(seed))
    text = jax.random.normal(one, (size, dim))
    video = text + noise * jax.random.normal(two, (size, dim))
    return tuple(x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (text, video))


def read_floor(matrix: Any) -> dict[str, Callable[[], None]]:
    """One matrix-vector product by XLA and by NumPy: one read of the matrix."""
    host, ones = np.asarray(matrix), np.ones(matrix.shape[1], np.float32)
    product = jax.jit(jnp.matmul)
    return {
        "t_r XLA": blocking(product, matrix, jnp.asarray(ones)),
        "t_r NumPy": blocking(np.matmul, host, ones),
    }


def floors() -> dict[str, str]:
    """t_g and t_r of B1's size, by which a table of one machine is read beside another's."""
    rows, columns = embeddings(4096, 512)
    product = jax.jit(lambda x, y: x @ y.T)
    calls = {"t_g": blocking(product, rows, columns)} | read_floor(product(rows, columns))
    seconds = {name: 1e3 * np.median(s) for name, s in interleave(calls, 5).items()}
    return {
        "t_g, 4096 x 512 by 512 x 4096": f"{seconds['t_g']:.1f} ms",
        "t_r, 4096 x 4096": f"{min(seconds['t_r XLA'], seconds['t_r NumPy']):.2f} ms",
    }


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def fresh(module: str, *args: Any, env: dict[str, str] | None = None) -> str:
    """Standard output of `python -m module args` in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, args)]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """What a number depends on."""
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((x.split(":")[1].strip() for x in lines if "model name" in x), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **_versions("jax", "jaxlib", "flax", "numpy", "ott-jax", "pot", "faiss-cpu", "usearch"),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "load": [round(x, 2) for x in os.getloadavg()],
    }
