"""A finished run, opened again: its embeddings, and the words and pictures behind them.

What reports and notebooks start from, so that nothing is trained or embedded twice.
"""

from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ncl_jax.arrays import single, whole
from ncl_jax.data.frames import choose_frames
from ncl_jax.data.records import Split, load_split
from ncl_jax.errors import InputError, blame_input
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.experiment.evaluator import EMBEDDINGS
from ncl_jax.experiment.renamed import updated
from ncl_jax.experiment.results import checked
from ncl_jax.readers.npy import read_npz
from ncl_jax.readers.text import read_json


class FinishedRun(NamedTuple):
    """What a run leaves: results, embeddings, and the test split of its dataset."""

    results: dict[str, Any]  # what results.json holds
    test: Embedded
    bank: Embedded  # captions and clips of its bank (train: a file of captions); clips numbered
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
    """(test split, bank, logits per cosine) of the file that a run leaves.

    Raises:
      ValueError: no such file, or it is damaged.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; expected the folder of a finished run")
    problem, advice = f"{path}: damaged", "run the same command again"
    arrays = read_npz(path, problem, advice)
    with blame_input(problem, advice):
        test, bank = (_embedded(arrays, prefix) for prefix in ("", "bank_"))
        numbers = [str(i) for i in range(len(bank.video))]
        names, scale = arrays["video_ids"], single(arrays["scale"], "scale")
        if names.dtype.kind != "U" or names.shape != (len(test.video),) or scale.ndim:
            raise InputError(f"{path}: expected one name per video and one scale; run it again")
    return test._replace(video_ids=names.tolist()), bank._replace(video_ids=numbers), float(scale)


def _embedded(arrays: dict[str, np.ndarray], prefix: str) -> Embedded:
    text, video = (single(arrays[n], n) for n in (f"{prefix}text", f"{prefix}video"))
    of = whole(arrays[f"{prefix}video_of_text"], f"{prefix}video_of_text")
    if text.ndim != 2 or video.ndim != 2 or of.shape != text.shape[:1]:
        raise ValueError("texts and videos do not fit together")
    if of.size and not (of.min() >= 0 and of.max() < len(video)):
        raise ValueError("a text names no video")
    return Embedded(text, video, of, [])


def read_results(workdir: epath.Path) -> dict[str, Any]:
    """What `results.json` holds.

    Raises:
      ValueError: no such file (the run has not finished), or it is damaged.
    """
    path = workdir / "results.json"
    if not path.exists():
        raise InputError(f"{path}: not found; expected the folder of a finished run")
    results = checked(read_json(path), str(path))
    data = results.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("directory"), str):
        raise InputError(f"{path}: damaged (no data.directory); run the same command again")
    return results | {"config": updated(results["config"])}
