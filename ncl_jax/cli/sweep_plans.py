"""Named sweeps: each generates the overrides of its runs, in the order of its table.

    python -m ncl_jax.cli.sweep --config=configs/demo.py --sweep=iterations --jobs=2

A sweep takes the config it varies and yields one dict per run, config key -> value. Runs that
differ in `seed` alone are one column of the table; the first column is what the others are
compared with. Every sweep trains from scratch, so a run costs what one run of the config costs.
"""

from collections.abc import Callable, Iterable, Iterator

import ml_collections

Overrides = dict[str, int | float | str]
Settings = Iterable[Overrides]

SEEDS = (0, 1, 2)
ITERATIONS = (0, 1, 2, 4, 8, 16, 32)
BATCH_SIZES = (16, 32, 64, 128, 256)
LEARNING_RATES = (5e-4, 1e-3, 2e-3, 4e-3)
INIT_SCALES = (7.0, 14.3, 30.0)
TUNING_SEED = 100  # not among those that are reported


def seeds(config: ml_collections.ConfigDict) -> Iterator[Overrides]:
    """InfoNCE against NCL, five seeds each."""
    del config
    settings: Settings = ({"loss.name": name} for name in ("infonce", "ncl"))
    yield from _repeated(settings, range(5))


def loss(config: ml_collections.ConfigDict) -> Iterator[Overrides]:
    """The losses, and what counts as a positive."""
    del config
    settings: Settings = (
        {"loss.name": name, "loss.positives": positives}
        for name in ("infonce", "ncl")
        for positives in ("same_clip", "diagonal")
    )
    yield from _repeated(settings)


def gradient(config: ml_collections.ConfigDict) -> Iterator[Overrides]:
    """Gradient semantics of the NCL loss, after the usual iterations and converged."""
    del config
    converged: Overrides = {"loss.iterations": 200, "loss.tolerance": 1e-3}
    ncl: Overrides = {"loss.name": "ncl"}
    settings: Settings = (
        ncl | {"loss.gradient": "stop"},
        ncl | {"loss.gradient": "unroll"},
        ncl | {"loss.gradient": "stop"} | converged,
        ncl | {"loss.gradient": "implicit"} | converged,
    )
    yield from _repeated(settings)


def iterations(config: ml_collections.ConfigDict) -> Iterator[Overrides]:
    """Sinkhorn iterations of the NCL loss."""
    del config
    yield from _repeated({"loss.name": "ncl", "loss.iterations": k} for k in ITERATIONS)


def batch_size(config: ml_collections.ConfigDict) -> Iterator[Overrides]:
    """Pairs per batch for both losses; all runs see as many pairs as the config's own."""
    pairs = config.train.steps * config.train.batch_size
    settings: Settings = (
        {"loss.name": name, "train.batch_size": size, "train.steps": max(1, pairs // size)}
        for name in ("infonce", "ncl")
        for size in BATCH_SIZES
    )
    yield from _repeated(settings)


def tuning(config: ml_collections.ConfigDict) -> Iterator[Overrides]:
    """Peak learning rate and initial scale of both losses, judged by the validation split."""
    for name in ("infonce", "ncl"):
        for rate in LEARNING_RATES:
            for scale in INIT_SCALES:
                yield {
                    "loss.name": name,
                    "optim.learning_rate": rate,
                    "model.init_scale": scale,
                    "data.test_split": config.data.validation_split,
                    "seed": TUNING_SEED,
                }


SWEEPS: dict[str, Callable[[ml_collections.ConfigDict], Iterator[Overrides]]] = {
    "seeds": seeds,
    "loss": loss,
    "gradient": gradient,
    "iterations": iterations,
    "batch_size": batch_size,
    "tuning": tuning,
}


def _repeated(settings: Settings, values: Iterable[int] = SEEDS) -> Iterator[Overrides]:
    """Every setting with every seed; seed by seed, so that a stopped sweep can be compared."""
    settings = list(settings)
    for seed in values:
        for setting in settings:
            yield setting | {"seed": seed}
