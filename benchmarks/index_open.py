"""B11: a saved index, from opening it to an answer, against a NumPy script over a memory map.

    python -m benchmarks.index_open [--quick]

200,000 items of 512 numbers. Each command is a new process, with the file system's cache warm:
`index search --query`, a script of ten lines that scores a mapped array exhaustively, and a
process that only imports NumPy. Then in Python the first search after `load`, and `add` of one
item and save at two sizes.
"""

import pathlib
import sys
import tempfile
import time

import numpy as np

from benchmarks import resident
from benchmarks.common import Row, at_most, note
from benchmarks.retrieval_common import show, unit_rows
from ncl_jax.index import RetrievalIndex

DIM, BANK, K = 512, 1_000, 10
SCRIPT = """
import sys
import numpy as np
items = np.load(sys.argv[1], mmap_mode="r")
query = np.load(sys.argv[2])
scores = (items @ query.T).T
for row, best in enumerate(np.argpartition(-scores, 10, axis=1)[:, :10]):
    for item in best[np.argsort(-scores[row, best])]:
        print(row, item, scores[row, item])
"""


def run(quick: bool = False) -> list[Row]:
    """Rows of the common table."""
    items, blocks = (5_000, 3) if quick else (200_000, 9)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        index = _saved(folder / "index", items)
        rows = _commands(folder, index, blocks)
        rows += [_first_search(folder / "index", blocks)]
        _saved(folder / "small", items // 10)
        small, large = (_add(folder / which, blocks) for which in ("small", "index"))
        rows += [
            note("B11", "add of one item and save, ms", 1000 * large),
            at_most("B11", "add and save, over those of a tenth of the items", large / small, 1.5),
        ]
    return rows


def _saved(path: pathlib.Path, items: int) -> RetrievalIndex:
    index = RetrievalIndex.build(
        [f"clip {n}" for n in range(items)], unit_rows(0, items, DIM), unit_rows(1, BANK, DIM),
        iterations=1,
    )  # fmt: skip
    index.save(path)
    return index


def _commands(folder: pathlib.Path, index: RetrievalIndex, blocks: int) -> list[Row]:
    """Seconds and memory of new processes, one after another in every block."""
    np.save(folder / "query.npy", unit_rows(2, 1, DIM))
    np.save(folder / "items.npy", index.video)
    query = str(folder / "query.npy")
    lines = {
        "ours": ["-m", "ncl_jax.cli.index", "search", str(folder / "index"), "--query", query],
        "script": ["-c", SCRIPT, str(folder / "items.npy"), query],
        "import": ["-c", "import numpy"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    peaks = dict.fromkeys(lines, 0.0)
    for block in range(blocks + 1):
        for name, line in lines.items():
            took, peak = resident.of_command([sys.executable, *line])
            if block:
                seconds[name].append(took)
                peaks[name] = max(peaks[name], peak)
    gallery = index.video.nbytes / 1e9
    ours, script, floor = (float(np.median(seconds[name])) for name in lines)
    return [
        at_most("B11", "index search in a new process, s", ours, 0.6),
        note("B11", "a NumPy script over a memory map, s", script),
        note("B11", "a process that imports NumPy, s", floor),
        at_most("B11", "memory of index search over the gallery's", peaks["ours"] / gallery, 1.2),
        note("B11", "memory of the script over the gallery's", peaks["script"] / gallery),
    ]


def _first_search(path: pathlib.Path, blocks: int) -> Row:
    query, seconds = unit_rows(3, 1, DIM), []
    for _ in range(blocks):
        index = RetrievalIndex.load(path)
        start = time.perf_counter()
        index.search(query, K)
        seconds.append(time.perf_counter() - start)
    return at_most("B11", "first search after load, ms", 1000 * float(np.median(seconds)), 50)


def _add(path: pathlib.Path, blocks: int) -> float:
    """Median seconds of adding one item to a loaded index and saving it."""
    index, seconds = RetrievalIndex.load(path), []
    for block in range(blocks):
        start = time.perf_counter()
        index = index.add([f"new {block}"], unit_rows(4 + block, 1, DIM))
        index.save(path)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main() -> None:
    """Prints the rows."""
    rows = [row._asdict() for row in run("--quick" in sys.argv)]
    show("B11, opening an index", rows)


if __name__ == "__main__":
    main()
