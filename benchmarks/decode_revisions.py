"""The decoder of this tree against that of another revision, side by side.

    python -m benchmarks.decode_revisions REVISION [--blocks 11] [FILE ...]

Each tree decodes in a process of its own, one thread, the two in turns; the other tree is a
worktree of git that is removed again. Without files: 150 clips of the demo corpus, and the real
clips below NCL_REAL_DATA. Prints clips per second of CPU and the ratio of times, the median over
the blocks; ends with 1 if one is over the target.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from benchmarks.common import Row, at_most, interleave, note, ratio
from benchmarks.input_build import real_clips
from tfds_builders.demo import corpus

ROOT = pathlib.Path(__file__).parents[1]
TARGET = 1.05
DEMO_CLIPS, DEMO_SIDE, SIDE = 150, 64, 224
_WORKER = """
import json, sys, time
try:
    from ncl_jax.video import decode as video
except ImportError:  # revisions up to 2026-11
    from ncl_jax.data import video
assert video.__file__.startswith(sys.argv[1]), video.__file__
for line in sys.stdin:
    paths, short_side = json.loads(line)
    start = time.process_time()
    for path in paths:
        video.decode_frames(path, 1.0, short_side, 90)
    print(time.process_time() - start, flush=True)
"""


class Tree:
    """A process that decodes with the code of one tree; close it."""

    def __init__(self, root: pathlib.Path):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(root)], cwd=root, text=True,
            env={**os.environ, "PYTHONPATH": str(root)}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip

    def seconds(self, paths: Sequence[pathlib.Path], short_side: int) -> float:
        """CPU seconds that decoding the files takes."""
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0] is not None
        assert pipes[1] is not None
        print(json.dumps([list(map(str, paths)), short_side]), file=pipes[0], flush=True)
        return float(pipes[1].readline())

    def close(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def other_tree(revision: str) -> Iterator[pathlib.Path]:
    """A worktree of the revision, while it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder, "tree").resolve()
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", tree, revision], cwd=ROOT, check=True
        )
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


@contextlib.contextmanager
def demo_clips() -> Iterator[list[pathlib.Path]]:
    """Rendered clips of the demo corpus."""
    with tempfile.TemporaryDirectory() as folder:
        demo = epath.Path(folder, "demo")
        corpus.write_corpus(demo, corpus.Size(DEMO_CLIPS, 1, 1), 0, lambda *_: None)
        yield sorted(pathlib.Path(demo, "videos").iterdir())[:DEMO_CLIPS]


def run(revision: str, blocks: int, files: Sequence[pathlib.Path]) -> Iterator[Row]:
    """Clips per second of both trees, and the ratio of their times."""
    with contextlib.ExitStack() as stack:
        sets = {"files": (list(files), SIDE)}
        if not files:
            sets = {"demo clips": (stack.enter_context(demo_clips()), DEMO_SIDE)}
            sets |= {"real clips": (real, SIDE)} if (real := real_clips()) else {}
        roots = {revision: stack.enter_context(other_tree(revision)), "this tree": ROOT}
        trees = {
            name: stack.enter_context(contextlib.closing(Tree(root)))
            for name, root in roots.items()
        }
        for what, (paths, side) in sets.items():
            calls = {
                name: lambda tree=tree, paths=paths, side=side: tree.seconds(paths, side)
                for name, tree in trees.items()
            }
            times = interleave(calls, blocks)
            for name, seconds in times.items():
                speed = len(paths) / np.median(seconds)
                yield note("decode", f"{len(paths)} {what}: {name}, clips/s/core", speed)
            slower = ratio(times, "this tree", revision)
            yield at_most("decode", f"{what}: time of this tree over {revision}", slower, TARGET)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode_revisions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("revision", help="of git: main, a tag, a hash")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="videos to decode instead")
    parser.add_argument("--blocks", type=int, default=11, help="how often each tree decodes all")
    flags = parser.parse_args(arguments)
    missed = 0
    for row in run(flags.revision, flags.blocks, [file.resolve() for file in flags.files]):
        print(f"{row.benchmark}: {row.what}: {row.value:.4g} {row.target}", flush=True)
        missed += row.met is False
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
