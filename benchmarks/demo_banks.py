"""What a bank that was not trained on is worth: one model, every bank, both directions.

    for s in 0 1 2 3 4; do python -m ncl_jax.main --config=configs/demo.py:seed=$s \\
        --config.data.bank_holdout=0.25 --workdir=runs/held$s; done
    python -m benchmarks.demo_banks runs/held0 runs/held1 runs/held2 runs/held3 runs/held4

R@1 on the test split, mean and sample standard deviation over the runs, and the gain over plain
with its 95 % interval (Student's t over runs). *Fixed* is NCL at the model's scale, *auto* what
`auto` chooses, on the pairs of that very bank where nothing else is said. Larger banks are also cut
to the sizes of the smaller ones, by clips.
"""

import argparse
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from scipy import special

from benchmarks.retrieval_common import show
from ncl_jax.distributed import sharding
from ncl_jax.evaluation.banks import TRAIN, Banks, bank_of, make_banks
from ncl_jax.evaluation.embeddings import Embedded, sample
from ncl_jax.evaluation.evaluate import evaluate
from ncl_jax.experiment import build
from ncl_jax.experiment.banks import HOLDOUT, VALIDATION
from ncl_jax.experiment.evaluator import Evaluator
from ncl_jax.experiment.restore import restore

DIRECTIONS = {"text_to_video": "text to video R@1", "video_to_text": "video to text R@1"}
Rows = dict[tuple[str, str], dict[str, float]]
"""(scores, bank) -> R@1 of each direction."""


def splits_of(workdir: pathlib.Path) -> tuple[dict[str, Embedded], Any]:
    """(test, trained on, validation and held-out clips by name, scorer) of a finished run."""
    run = restore(epath.Path(workdir))
    config = run.config
    parts = build.build(config, build.prepare_data(config), run.tokenizer)
    if parts.holdout is None:
        raise SystemExit(f"{workdir}: expected a run with data.bank_holdout, it held out no clip")
    evaluator = Evaluator(config, parts, sharding.data_mesh())
    data = config.data
    found = {
        "test": parts.splits[data.test_split],
        TRAIN: parts.splits[data.train_split],
        VALIDATION: parts.splits[data.validation_split],
        HOLDOUT: parts.holdout,
    }
    embedded = {name: evaluator.embed(run.params, split) for name, split in found.items()}
    return embedded, evaluator.scorer(run.params)


def banks_of(splits: dict[str, Embedded]) -> Iterator[tuple[str, Banks]]:
    """Every bank alone, of its own size and of smaller ones, and what pairs not trained on say."""
    sizes = sorted({len(split.video) for split in splits.values()}, reverse=True)
    for name, split in splits.items():
        for size in (size for size in sizes if size <= len(split.video)):
            yield f"{name}, {size} clips", bank_of(sample(split, size, 0, 0), name)
    for judge in (VALIDATION, HOLDOUT):
        yield f"train, tried on {judge} pairs", make_banks(splits, judge, [TRAIN])
    some = {name: splits[name] for name in (TRAIN, VALIDATION)}
    yield "train or validation, tried on validation pairs", make_banks(some, VALIDATION, list(some))
    yield "any, tried on holdout pairs", make_banks(splits, HOLDOUT, list(splits))


def measure(workdir: pathlib.Path) -> Rows:
    """R@1 of every kind of scores with every bank."""
    splits, scorer = splits_of(workdir)
    test = splits.pop("test")
    rows: Rows = {}
    for bank, given in banks_of(splits):
        found = evaluate(test, given, scorer, 4).metrics
        rows["plain", ""] = {d: found[d]["plain"]["R@1"] for d in DIRECTIONS}
        if "tried on" not in bank:  # else the fixed row is that of a bank above
            rows["fixed", bank] = {d: found[d]["inductive"]["R@1"] for d in DIRECTIONS}
        rows["auto", bank] = {d: found[d]["inductive_auto"]["R@1"] for d in DIRECTIONS}
        chosen = [f"{s['source']}: {s['choice']}" for s in found["fit"]["inductive_auto"].values()]
        print(f"{workdir}, {bank}: to video {chosen[0]}; to text {chosen[1]}", flush=True)
    return rows


def summary(runs: list[Rows]) -> list[dict[str, Any]]:
    """One row per kind of scores and bank."""
    plain = [run["plain", ""] for run in runs]
    shown = []
    for scores, bank in runs[0]:
        row: dict[str, Any] = {"scores": scores, "bank": bank}
        for direction, title in DIRECTIONS.items():
            value = np.asarray([run[scores, bank][direction] for run in runs])
            gain = value - [p[direction] for p in plain]
            row[title] = f"{value.mean():.1f} ± {value.std(ddof=1):.1f}"
            row[f"{title} over plain"] = "" if scores == "plain" else interval(gain)
        shown.append(row)
    return shown


def interval(gain: np.ndarray) -> str:
    """`+1.0 [-0.5, +2.5]`: mean and 95 % interval of paired differences.

    Example:
      >>> interval(np.array([1.0, 1.0, 1.0]))
      '+1.0 [+1.0, +1.0]'
    """
    half = special.stdtrit(len(gain) - 1, 0.975) * gain.std(ddof=1) / np.sqrt(len(gain))
    return f"{gain.mean():+.1f} [{gain.mean() - half:+.1f}, {gain.mean() + half:+.1f}]"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="finished runs, two or more")
    args = parser.parse_args()
    if len(args.runs) < 2:
        raise SystemExit("expected at least two runs, without which there is no spread")
    found = [measure(workdir) for workdir in args.runs]
    show(f"Banks of {len(found)} runs on {jax.default_backend()}", summary(found))


if __name__ == "__main__":
    main()
