"""The model of a run's last checkpoint, from its folder alone."""

import contextlib
from typing import Any, NamedTuple

import ml_collections
from etils import epath

from ncl_jax.checkpoint.checkpointer import Checkpointer
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.distributed import sharding
from ncl_jax.experiment import build
from ncl_jax.experiment.renamed import updated
from ncl_jax.models import clip
from ncl_jax.training.run_state import CHECKPOINTS
from ncl_jax.types import Towers


class RestoredRun(NamedTuple):
    """The model of a run's last checkpoint, and what belongs to it."""

    config: ml_collections.ConfigDict
    sizes: clip.ClipConfig
    tokenizer: Tokenizer
    towers: Towers
    params: Any
    step: int


def restore(workdir: epath.Path) -> RestoredRun:
    """The last checkpoint of a run, which may be training; nothing is drawn, fetched or changed.

    Raises:
      FileNotFoundError: there is no checkpoint in `workdir`.
    """
    folder = workdir / CHECKPOINTS
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: expected the checkpoints of a training run")
    with contextlib.closing(Checkpointer(folder, read_only=True)) as checkpointer:
        if checkpointer.latest_step() is None:
            raise FileNotFoundError(f"{folder}: holds no complete checkpoint")
        metadata = checkpointer.metadata()
        config = ml_collections.ConfigDict(updated(metadata["config"]))
        tokenizer = Tokenizer.from_json(metadata["tokenizer"])
        sizes = build.build_sizes(config, tokenizer.vocab_size)
        towers, blank = build.build_blank_towers(config, tokenizer.vocab_size)
        shardings = sharding.state_sharding(blank, sharding.data_mesh(), "replicated")
        params, step = checkpointer.restore_params(sharding.place_state(blank, shardings))
    return RestoredRun(config, sizes, tokenizer, towers, params, step)
