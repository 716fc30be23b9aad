"""MSR-VTT 1k-A: 5 epochs of 180,000 pairs; retrieval among 1,000 clips with one caption each.

    python -m ncl_jax.main --config=configs/msrvtt.py --workdir=runs/msrvtt
    python -m ncl_jax.main --config=configs/msrvtt.py:protocol=7k,loss=infonce --workdir=runs/m7k

Needs the clips below data/manual/msrvtt (tfds_builders/msrvtt/README.md) and an accelerator. The
protocols: "9k" and "7k" train on so many clips and test on 1k-A; "full" is the official split, with
2,990 test clips of 20 captions each. 9k and 7k have no validation split: the last epoch counts.
"""

import ml_collections

from configs import clip4clip, common

PAIRS = {"9k": 180_000, "7k": 140_200, "full": 130_260}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: protocol=9k|7k|full; loss, head, arch, seed, seeds, paper, demo."""
    choice = common.parse_arg(arg, protocol=tuple(PAIRS), **clip4clip.ARGUMENTS)
    name = "msrvtt" if choice.protocol == "9k" else f"msrvtt-{choice.protocol}"
    c = clip4clip.build(choice, name=name, pairs=PAIRS[choice.protocol])
    c.data.builder = f"msrvtt/{choice.protocol}"
    c.data.validation_split = "val" if choice.protocol == "full" else ""
    return c
