"""`ncl_jax.main` with a fault planted: `NCL_FAULT=name:step python -m tests.faulty FLAGS`.

kill    the process kills itself just before the step
before  ... when the checkpoint of that step is to be written
save    ... while it is being written
lost    ... when a checkpoint is read
sums    a number of a checkpoint changes after it was read
unread  reading a checkpoint fails, as on a network file system that is away for a moment
slow    committing a checkpoint takes four seconds more, with a SIGTERM in the midst of it
late    results are written twenty seconds later
term    it gets a SIGTERM
freeze  it stops without ending
bug     a library raises an error that is not about the input
memory  the device has too little memory for the step
nan     the step's first clip has a NaN pixel
stall   the input of training gives nothing more after that many batches
mute    a record cannot be read when the run starts, nor can it fail
blind   the frames of evaluation do not come
notice  a SIGTERM comes during evaluation
auto    `auto` would choose the candidate of that number, and says which one it took
full    files can no longer grow
pairs   no fault: the pairs of every step go to `<workdir>.pairs-<process>.jsonl`
"""

import errno
import itertools
import json
import os
import resource
import signal
import sys
import time
import zlib

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import app

from ncl_jax.checkpoint import checkpointer
from ncl_jax.cli import train
from ncl_jax.data import pipeline, prefetch, records
from ncl_jax.distributed import sharding
from ncl_jax.experiment import results
from ncl_jax.normalizers import auto
from ncl_jax.training import nonfinite
from ncl_jax.types import Batch

LIMIT = 100_000
FAULT, _, AT = os.environ.get("NCL_FAULT", "").partition(":")


def plant():
    """Replace the functions the fault passes through."""
    map_step, save, take = sharding.map_step, checkpointer.Checkpointer.save, prefetch.Ahead.take
    restore, write = ocp.CheckpointManager.restore, results.write
    wait = checkpointer.Checkpointer.wait
    read, video_batches = records._read, pipeline.video_batches
    agreed = auto._of_first_process

    def faulty_map_step(*args):
        mapped = map_step(*args)

        def run(state, batch):
            step = int(state.step)
            if FAULT == "pairs":
                record(step, batch)
            if AT and step == int(AT):
                if FAULT == "full":
                    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
                elif FAULT == "bug":
                    raise ValueError("planted: shapes differ")
                elif FAULT == "memory":
                    jnp.zeros(1 << 52).block_until_ready()
                elif FAULT in SIGNALS:
                    os.kill(os.getpid(), SIGNALS[FAULT])
            return mapped.run(state, batch)

        def place(batch):
            if FAULT == "nan" and next(placed) == int(AT):
                video = batch.video.astype(np.float32)
                video[0] = np.nan
                batch = batch._replace(video=video)
            return mapped.place(batch)

        placed = itertools.count()
        return mapped._replace(run=run, place=place)

    def faulty_save(self, state, *args):
        if FAULT == "before" and int(state.step) == int(AT):
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, state, *args)
        if FAULT == "save" and int(state.step) == int(AT):
            os.kill(os.getpid(), signal.SIGKILL)

    def faulty_take(self, timeout=None):
        if FAULT == "stall":
            taken = getattr(self, "taken", 0)
            if taken == int(AT):
                time.sleep(timeout or 1e6)
                raise TimeoutError(f"no input for {timeout:g} seconds")
            item = take(self, timeout)
            self.taken = taken + isinstance(item, Batch)
            return item
        return take(self, timeout)

    def faulty_read(split, number, *where):
        if FAULT == "mute" and number == int(AT):
            time.sleep(1e6)
        return read(split, number, *where)

    def faulty_video_batches(*args, **named):
        def items():
            if FAULT == "blind":
                time.sleep(1e6)
            if FAULT == "notice":
                os.kill(os.getpid(), signal.SIGTERM)
            yield from video_batches(*args, **named)

        return prefetch.Ahead(items())

    def faulty_agreed(number):
        if FAULT != "auto":
            return agreed(number)
        taken = agreed(int(AT))
        print(f"auto took {taken}", file=sys.stderr)
        return taken

    def faulty_restore(self, step, args):
        read = restore(self, step, args=args)
        if "arrays" in args:
            if FAULT == "lost":
                os.kill(os.getpid(), signal.SIGKILL)
            if FAULT == "unread":
                raise OSError(errno.ESTALE, "Stale file handle")
            if FAULT == "sums":
                read["arrays"]["step"] = read["arrays"]["step"] + 1
        return read

    def faulty_wait(self):
        if FAULT == "slow" and self.latest_step() is not None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(4)
        wait(self)

    def faulty_write(*args):
        if FAULT == "late":
            time.sleep(20)
        write(*args)

    records._read, pipeline.video_batches = faulty_read, faulty_video_batches
    auto._of_first_process = faulty_agreed
    ocp.CheckpointManager.restore = faulty_restore
    results.write = faulty_write
    sharding.map_step = faulty_map_step
    checkpointer.Checkpointer.save = faulty_save
    checkpointer.Checkpointer.wait = faulty_wait
    prefetch.Ahead.take = faulty_take


SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "freeze": signal.SIGSTOP}


def record(step, batch):
    import jax

    clips, tokens = (nonfinite._local(x) for x in (batch.video_id, batch.tokens))
    digests = [zlib.crc32(text.tobytes()) for text in tokens.reshape(-1, tokens.shape[-1])]
    rows = list(zip(clips.ravel().tolist(), digests, strict=True))
    workdir = train._WORKDIR.value
    with open(f"{workdir}.pairs-{jax.process_index()}.jsonl", "a") as file:
        file.write(json.dumps([step, rows]) + "\n")


if __name__ == "__main__":
    plant()
    app.run(train.main, flags_parser=train.parse_flags)
