"""The log of a run: what a killed run wrote is dropped, and a full disk is told of."""

import gc
import json
import resource

import pytest
from etils import epath

from ncl_jax.training.metric_log import RunLog


def write(folder, done, steps):
    with RunLog(epath.Path(folder), steps=max(steps), done=done, batch_size=1) as log:
        for step in steps:
            log.write(step, {"loss": {"a": step}}, "train")
            log.progress(step, {"loss": 1.0})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what is full cannot be closed either
def test_a_full_disk_is_one_sentence_and_holds_nobody_up(tmp_path):
    """A limit on the size of files stands for it; the events fill it before the lines do."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"log of the run could not be written to .*free space"):
            write(tmp_path, 0, range(1, 9999))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()  # tensorboardX's file, which is complained of here and not in a later test
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1


def test_steps_after_the_checkpoint_are_dropped(tmp_path):
    write(tmp_path, 0, (1, 2, 3))
    write(tmp_path, 2, (3, 4))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["train/loss/a"]) for line in lines] == [
        (1, 1), (2, 2), (3, 3), (4, 4)
    ]  # fmt: skip
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
