"""MSVD with CLIP ViT-B/32 sizes, 5 epochs of its 48,774 pairs.

    python -m ncl_jax.main --config=configs/msvd.py --workdir=runs/msvd

Needs the clips below data/manual/msvd (tfds_builders/msvd/README.md) and an accelerator. The
towers start from random weights.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: loss=ncl|infonce, seed=INT."""
    choice = common.parse_arg(arg, loss="ncl", seed=0)
    c = common.get_config()
    c.name = "msvd"
    c.seed = choice.seed
    c.data.builder = "msvd"
    c.loss.name = choice.loss
    c.train.batch_size = 128
    c.train.steps = 5 * 48_774 // 128
    return c
