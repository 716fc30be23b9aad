"""A hundred thousand changed files: every reader reads them or says one sentence, soon.

`python -m tests.readers.mutated_test [INPUTS]` prints what came of them, by reader.
"""

import collections
import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import pathlib
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from typing import NamedTuple

import pytest

INPUTS, PROCESSES = 100_000, 2
MOST_SECONDS, MOST_BYTES = 5.0, 3 << 30
UNSAFE = re.compile("allow_pickle|weights_only|trust|max_str_digits|max_header|field_size_limit")


class Account(NamedTuple):
    """What came of the inputs of one reader; the slowest took `slowest` seconds, all `seconds`."""

    read: int
    refused: int
    faults: dict[str, int]
    slowest: float
    seconds: float


def judge(reader: str, count: int, seed: int) -> Account:
    """Changes `count` files of a reader and reads each."""
    from ncl_jax.errors import InputError
    from tests.readers.sound import READERS

    warnings.simplefilter("error")
    kind, rng = READERS[reader], random.Random(f"{reader} {seed}")
    read, refused, started = 0, 0, time.perf_counter()
    faults, slowest = collections.Counter[str](), 0.0
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        path = pathlib.Path(folder, kind.file)
        kind.make(path)
        sound = path.read_bytes()
        kind.read(path)
        for _ in range(count):
            path.write_bytes(rng.choice(kind.changes)(sound, rng))
            begin = time.perf_counter()
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    kind.read(path)
                read += 1
            except InputError as error:
                refused += 1
                said = str(error)
                if "\n" in said or len(said) > 700 or UNSAFE.search(said):
                    faults[f"message: {said[:300]!r}"] += 1
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{pathlib.Path(where.filename).name}:{where.lineno}"
                faults[f"{type(error).__name__} at {place}: {str(error)[:100]}"] += 1
            slowest = max(slowest, time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    if peak > MOST_BYTES:
        faults[f"{peak:,} bytes of memory"] += 1
    if slowest > MOST_SECONDS:
        faults[f"{slowest:.1f} s for one file"] += 1
    return Account(read, refused, dict(faults), slowest, time.perf_counter() - started)


def judged(inputs: int) -> dict[str, Account]:
    """The accounts of all readers, whose shares make up `inputs`."""
    from tests.readers.sound import READERS

    total = sum(reader.share for reader in READERS.values())
    counts = {name: -(-inputs * reader.share // total) for name, reader in READERS.items()}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, context) as pool:
        jobs = {name: pool.submit(judge, name, int(count), 0) for name, count in counts.items()}
        return {name: job.result() for name, job in jobs.items()}


def table(accounts: dict[str, Account]) -> str:
    """One line per reader."""
    heads = f"{'inputs':>8}{'read':>8}{'refused':>9}{'faults':>8}{'slowest':>10}{'all':>8}"
    lines = [f"{'reader':<24}{heads}"]
    for name, (read, refused, faults, slowest, seconds) in accounts.items():
        wrong = sum(faults.values())
        total = read + refused + wrong
        lines.append(
            f"{name:<24}{total:>8}{read:>8}{refused:>9}{wrong:>8}{slowest:>8.2f} s{seconds:>6.1f} s"
        )
    return "\n".join(lines)


@pytest.mark.slow
def test_no_changed_file_is_more_than_a_sentence(capsys):
    accounts = judged(INPUTS)
    with capsys.disabled():
        print(f"\n{table(accounts)}")
    assert {name: account.faults for name, account in accounts.items() if account.faults} == {}
    assert sum(account.read + account.refused for account in accounts.values()) >= INPUTS
    # Lines of a log that cannot be read are left out.
    assert {name for name, one in accounts.items() if not one.refused} <= {"metrics.jsonl"}
    assert all(account.read for account in accounts.values())


if __name__ == "__main__":
    started = time.monotonic()
    found = judged(int(sys.argv[1]) if sys.argv[1:] else INPUTS)
    print(table(found))
    for what, one in found.items():
        for fault, times in one.faults.items():
            print(f"{what}: {times} x {fault}")
    print(f"{time.monotonic() - started:.0f} s")
