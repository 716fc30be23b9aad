"""The embedded corpus with small towers: trains in minutes on a laptop CPU.

    python -m ncl_jax.main --config=configs/demo.py --workdir=runs/demo
    python -m ncl_jax.main --config=configs/demo.py:loss=infonce,seed=1 --workdir=runs/infonce1

The clips differ partly only in the order of events, so the head over frames is seqTransf: meanP
cannot see time.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: loss=ncl|infonce, seed=INT, seeds=INT."""
    choice = common.parse_arg(arg, loss=("ncl", "infonce"), seed=0, seeds=1)
    c = common.get_config()
    c.name = "demo"
    c.seed, c.seeds = choice.seed, choice.seeds
    c.data.builder = "demo"
    c.data.settings.update(train=1200, val=100, test=400, seed=0)  # clips, and their seed
    set_sizes(c)
    c.model.temporal = "seqTransf"
    c.loss.name = choice.loss
    c.optim.learning_rate = 1e-3
    c.optim.weight_decay = 0.1
    c.train.batch_size = 64
    c.train.steps = 900
    return c


def set_sizes(c: ml_collections.ConfigDict) -> None:
    """Small frames, few of them, and small towers."""
    c.data.settings.short_side = 48
    c.data.image_size, c.data.max_frames, c.data.max_tokens = 48, 4, 28
    c.data.cache_clips = 2000
    c.tokenizer.vocab_size = 1024
    c.model.patch_size = 16
    c.model.vision.update(width=64, layers=2, heads=4)
    c.model.text.update(width=64, layers=2, heads=4)
    c.model.embed_dim, c.model.context_length = 64, c.data.max_tokens
    c.model.temporal_layers, c.model.temporal_heads = 1, 4
