"""The recipe of CLIP4Clip (Luo et al. 2021) for a dataset; msvd, msrvtt and activitynet use it.

As published (`paper`): BertAdam, 1e-4 for new modules and 1e-7 for CLIP, batches of 128, 5 epochs,
only the diagonal is positive, embeddings frozen ("stem": what the README's `--freeze_layer_num 0`
does). 1e-7 belongs to float16 weights with float16 moments, whose rounding makes the steps many
times larger; here weights are float32, so `paper` will barely move CLIP.

The default differs in three things: 1e-5 for CLIP (what mmaction2's float32 reproduction uses with
the same batch and epochs; others use 1e-6 to 1e-5), products in bfloat16, and captions of one clip
count as positives of each other.
"""

import ml_collections

from configs import common, demo

CHECKPOINTS = {
    "B/32": "openai/clip-vit-base-patch32",
    "B/16": "openai/clip-vit-base-patch16",
    "L/14": "openai/clip-vit-large-patch14",
}
EPOCHS = 5
BATCH = 128
ARGUMENTS: dict[str, bool | int | float | str | tuple[str, ...]] = {
    "loss": ("ncl", "infonce"),
    "head": ("meanP", "seqLSTM", "seqTransf", "tightTransf"),
    "arch": tuple(common.ARCHITECTURES),
    "seed": 0,
    "seeds": 1,
    "paper": False,
    "demo": False,
}


def build(
    choice: ml_collections.ConfigDict, *, name: str, pairs: int
) -> ml_collections.ConfigDict:
    """Everything but the dataset's own keys.

    Args:
      choice: of `ARGUMENTS`; `demo` shrinks model, clips and batch to what a laptop trains, for a
        try of the whole road with these data.
      name: of the dataset.
      pairs: (caption, clip) pairs of its train split.
    """
    c = common.get_config()
    c.name = "-".join([name, *(flag for flag in ("paper", "demo") if choice[flag])])
    c.seed, c.seeds = choice.seed, choice.seeds
    c.data.settings.short_side = 224
    common.set_arch(c, choice.arch)
    c.init.checkpoint = CHECKPOINTS[choice.arch]
    c.model.temporal = choice.head
    c.model.dtype = "float32" if choice.paper else "bfloat16"
    c.loss.name = choice.loss
    c.loss.positives = "diagonal" if choice.paper else "same_clip"
    c.optim.algorithm = "bert_adam"
    c.optim.learning_rate = 1e-4
    c.optim.tower_learning_rate = 1e-7 if choice.paper else 1e-5
    c.optim.clip_each_norm = 1.0
    c.optim.freeze = "stem"
    c.train.batch_size = BATCH
    c.batch.micro_batch_size = 16
    c.train.steps = EPOCHS * (pairs // BATCH)
    if choice.demo:
        set_demo(c)
    return c


def set_demo(c: ml_collections.ConfigDict) -> None:
    """Small towers from random weights, few and small frames, one short epoch."""
    demo.set_sizes(c)
    c.init.checkpoint = ""
    c.model.dtype = "float32"
    c.optim.freeze = "none"
    c.optim.learning_rate, c.optim.tower_learning_rate = 1e-3, None
    c.train.batch_size, c.train.steps = 64, 200
