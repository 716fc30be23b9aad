"""ActivityNet Captions, paragraphs: 5 epochs of 10,009 videos; retrieval among 4,917.

    python -m ncl_jax.main --config=configs/activitynet.py --workdir=runs/activitynet

Needs the videos below data/manual/activitynet (tfds_builders/activitynet/README.md) and an
accelerator. There is no validation split: the last epoch counts.
"""

import ml_collections

from configs import clip4clip, common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Arguments: protocol=paragraph|val_2; loss, head, arch, seed, seeds, paper, demo."""
    choice = common.parse_arg(arg, protocol=("paragraph", "val_2"), **clip4clip.ARGUMENTS)
    name = "activitynet" if choice.protocol == "paragraph" else "activitynet-val_2"
    c = clip4clip.build(choice, name=name, pairs=10_009)
    c.data.builder = f"activitynet/{choice.protocol}"
    c.data.validation_split = ""
    if not choice.demo:
        c.data.max_frames, c.data.max_tokens = 64, 64
        c.batch.micro_batch_size = 4
    return c
