"""MSVD: 5 epochs of 48,774 pairs; retrieval among 670 clips.

    python -m ncl_jax.main --config=configs/msvd.py --workdir=runs/msvd
    python -m ncl_jax.main --config=configs/msvd.py:loss=infonce,seeds=3 --workdir=runs/msvd-infonce

Needs the clips below data/manual/msvd (tfds_builders/msvd/README.md) and an accelerator.
"""

import ml_collections

from configs import clip4clip, common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: loss, head, arch, seed, seeds, paper, demo (see README.md in this folder)."""
    c = clip4clip.build(common.parse_arg(arg, **clip4clip.ARGUMENTS), name="msvd", pairs=48_774)
    c.data.builder = "msvd"
    return c
