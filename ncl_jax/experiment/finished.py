"""A finished run, opened again: its embeddings, and the words and pictures behind them.

What reports and notebooks start from, so that nothing is trained or embedded twice.
"""

import json
import zipfile
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ncl_jax.arrays import single, whole
from ncl_jax.data.frames import choose_frames
from ncl_jax.data.records import Split, load_split
from ncl_jax.errors import InputError
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.experiment.evaluator import EMBEDDINGS
from ncl_jax.experiment.renamed import updated


class FinishedRun(NamedTuple):
    """What a run leaves: results, embeddings, and the test split of its dataset."""

    results: dict[str, Any]  # what results.json holds
    test: Embedded
    bank: Embedded  # the train split; its clips are numbered
    scale: float  # logits per cosine
    split: Split  # the test split

    def frames(self, video: int, count: int) -> list[bytes]:
        """Up to `count` evenly spaced frames of a test clip, as JPEG files."""
        jpegs = self.split.jpegs(video)
        return [jpegs[i] for i in choose_frames(len(jpegs), count)]


def open_run(workdir: epath.PathLike) -> FinishedRun:
    """Read what a finished run left in `workdir`, and open its dataset.

    Raises:
      ValueError: the run has not finished, its head scores pairs, a file is damaged, or the
        dataset is not where it was (its path is relative to the folder the run was started in) or
        holds other clips.
    """
    workdir = epath.Path(workdir)
    results = read_results(workdir)
    if results.get("files", {}).get("embeddings", "") is None:
        raise InputError(f"{workdir}: its head scores pairs, so the run has left no embeddings")
    test, bank, scale = read_embeddings(workdir / EMBEDDINGS)
    directory = results["data"]["directory"]
    if not epath.Path(directory).exists():
        raise InputError(
            f"{workdir}: its dataset {directory} is not here; go to the folder the run was started "
            "in, or prepare the dataset again"
        )
    split = load_split(directory, results["config"]["data"]["test_split"])
    if list(test.video_ids) != split.video_ids:
        raise InputError(f"{workdir}: {directory} holds other clips than the run was tested on")
    return FinishedRun(results, test, bank, scale, split)


def read_embeddings(path: epath.Path) -> tuple[Embedded, Embedded, float]:
    """(test split, train split, logits per cosine) of the file that a run leaves.

    Raises:
      ValueError: no such file, or it is damaged.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; expected the folder of a finished run")
    try:
        with path.open("rb") as stream, np.load(stream) as arrays:
            test = Embedded(
                single(arrays["text"], "text"), single(arrays["video"], "video"),
                whole(arrays["video_of_text"], "video_of_text"),
                arrays["video_ids"].tolist(),
            )  # fmt: skip
            numbers = [str(i) for i in range(len(arrays["bank_video"]))]
            bank = Embedded(
                single(arrays["bank_text"], "bank_text"),
                single(arrays["bank_video"], "bank_video"),
                whole(arrays["bank_video_of_text"], "bank_video_of_text"), numbers
            )
            return test, bank, float(arrays["scale"])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); run the same command again") from error


def read_results(workdir: epath.Path) -> dict[str, Any]:
    """What `results.json` holds.

    Raises:
      ValueError: no such file (the run has not finished), or it is damaged.
    """
    path = workdir / "results.json"
    if not path.exists():
        raise InputError(f"{path}: not found; expected the folder of a finished run")
    try:
        results = json.loads(path.read_text())
        _ = results["data"]["directory"], results["metrics"], results["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error!r}); run the same command again") from error
    return dict(results) | {"config": updated(results["config"])}
