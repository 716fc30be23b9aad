"""Every config key once, with its meaning, unit and allowed values.

A config file states its difference from this one. See README.md in this folder.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config() -> ml_collections.ConfigDict:
    """The defaults: CLIP ViT-B/32 sizes, 12 frames, NCL."""
    c = ml_collections.ConfigDict()
    c.name = "default"  # what the run calls itself in its table and results
    c.seed = 0  # fixes initial weights and the order of samples
    c.seeds = 1  # runs, with seed, seed + 1, ...; more than one: mean and deviation over them
    c.parallel_backend = "shard_map"  # maps the step over devices: "shard_map" or "pmap"
    c.sharding = "replicated"  # of weights and optimizer state: "replicated" or "fsdp" (shard_map)
    c.profile_input = False  # measure the share of step time spent waiting for input

    c.data = d = ml_collections.ConfigDict()
    d.builder = "msvd"  # of tfds_builders: "demo", "msvd", "msrvtt/9k", "activitynet/paragraph" ...
    d.manual_dir = "data/manual"  # holds <builder>/ with the files as published
    d.data_dir = "data/tfds"  # where prepared datasets are saved
    d.settings = ml_collections.ConfigDict()  # the builder's own fields
    d.settings.fps = 1.0  # frames stored per second of video
    d.settings.short_side = 224  # pixels of the shorter side of stored frames
    d.settings.look = "stored"  # as the published pipelines read frames; "shown": as players do
    d.train_split = "train"  # trained on, and by default the bank of the normaliser
    d.bank_holdout = 0.0  # share of its clips held out of training as a bank, in [0, 0.5]
    d.validation_split = "val"  # watched during training; "" for none
    d.test_split = "test"  # reported
    d.image_size = 224  # pixels, the square the model sees
    d.max_frames = 12  # frames per clip; shorter clips are padded
    # Which ones: "uniform" (evenly from first to last), "head", "tail", or of as many equal
    # segments the centre, "tsn_centre", or a random frame, "tsn_random".
    d.train_frames = "uniform"  # in training
    d.eval_frames = "uniform"  # in evaluation
    d.train_frame_order = "ordinary"  # or "reverse" or "random", in training
    d.eval_frame_order = "ordinary"  # likewise, in evaluation
    d.crop = "centre"  # as CLIP; or in training "random_resized", one crop for a whole clip
    d.crop_least_area = 0.5  # smallest share of the picture "random_resized" keeps, in (0, 1]
    d.flip = False  # mirror every other training clip; wrong where captions say left and right
    d.distinct_clips = False  # no clip twice in a training batch
    d.max_tokens = 32  # tokens per caption, start and end included
    d.threads = 4  # decoding threads; 0 leaves it to the one that makes batches
    d.cache_clips = 0  # decoded clips cached in memory; 0, and random views, decode every time

    c.tokenizer = ml_collections.ConfigDict()
    # A tokenizer.json, a folder with that or with vocab.json and merges.txt, or OpenAI's
    # bpe_simple_vocab_16e6.txt.gz.
    c.tokenizer.path = ""  # "" learns byte pairs from the train captions
    c.tokenizer.vocab_size = 8192  # upper limit of a learned vocabulary

    c.model = m = ml_collections.ConfigDict()
    m.patch_size = 32  # pixels
    m.patch_frames = 1  # frames a patch spans: 1, or 3 (CLIP4Clip's --linear_patch 3d)
    m.vision = _tower(width=768, layers=12, heads=12)
    m.text = _tower(width=512, layers=12, heads=8)
    m.embed_dim = 512  # width of the shared space
    m.context_length = 77  # rows of the table of token positions, at least data.max_tokens
    m.activation = "quick_gelu"  # of the blocks: "quick_gelu" (OpenAI) or "gelu" (most OpenCLIP)
    m.dtype = "float32"  # of the towers' products, or "bfloat16"; weights and loss stay float32
    m.remat = False  # recompute the blocks in the backward pass: less memory, a third more work
    m.temporal = "meanP"  # head over frames: "meanP", "seqLSTM", "seqTransf" or "tightTransf"
    m.temporal_layers = 4  # blocks of seqTransf and tightTransf
    m.temporal_heads = 8  # of seqTransf and tightTransf
    m.init_scale = 1 / 0.07  # logits per cosine at the start, in (0, 100]; learned from there

    c.init = ml_collections.ConfigDict()
    # Weights to start from: a Hugging Face name or folder, an OpenAI .pt, a CLIP4Clip checkpoint,
    # an OpenCLIP file (docs/models.md); "" draws them at random from the seed.
    c.init.checkpoint = ""  # the sizes below `model` must be those of the checkpoint: see set_arch
    c.init.positions = "exact"  # position tables of another length: refuse, "cut" or "interpolate"
    c.init.head = "text"  # a head the checkpoint has not: CLIP's first text layers, or "random"

    c.loss = ml_collections.ConfigDict()
    c.loss.name = "ncl"  # "ncl" or "infonce"
    c.loss.iterations = 4  # Sinkhorn iterations of ncl, video side first and last
    c.loss.tolerance = 0.0  # stop at this largest row error, after at most `iterations`; 0: never
    c.loss.overrelaxation = False  # over-relaxed iterations, with a tolerance
    c.loss.gradient = "stop"  # biases constant; "unroll" all iterations; "implicit": tolerance
    c.loss.materialize = "auto"  # store the kernel: "always", "never", "auto" up to 2 GB
    c.loss.positives = "same_clip"  # captions of one clip are positives; or "diagonal"

    c.optim = o = ml_collections.ConfigDict()
    o.algorithm = "adamw"  # or "bert_adam": CLIP4Clip's, without bias correction
    o.learning_rate = 1e-4  # peak
    o.tower_learning_rate = placeholder(float)  # peak of CLIP's own parameters; None: the same
    o.warmup = 0.1  # share of the steps with a rising learning rate
    o.weight_decay = 0.2  # adamw: of matrices; bert_adam: of everything but biases
    o.b1, o.b2, o.eps = 0.9, 0.98, 1e-6  # of Adam
    o.clip_norm = 1.0  # limit of the norm of the whole gradient
    o.clip_each_norm = 0.0  # and then of each parameter's; 0: none
    o.freeze = "none"  # "stem": embeddings; "layers<N": and the first N blocks of both towers

    c.batch = ml_collections.ConfigDict()
    c.batch.micro_batch_size = 0  # pairs that a device's towers see at a time; 0: all of its

    c.train = t = ml_collections.ConfigDict()
    t.batch_size = 128  # pairs over all devices
    t.steps = 1000  # the learning rate decays to 0 over these; 0 only evaluates
    t.log_every = 10  # steps between lines of metrics.jsonl
    t.validate_every = 200  # steps
    t.checkpoint_every = 200  # steps; validated and last states are checkpointed too
    t.keep_checkpoints = 2  # the latest ones; the best by validation stays beside them
    t.on_nonfinite = "stop"  # at a loss or gradient that is not finite; or "skip" the step
    t.input_timeout = 120  # seconds without a batch that end the run
    t.peer_timeout = 60  # seconds without a sign of life after which a process counts as dead

    c.eval = ml_collections.ConfigDict()
    c.eval.batch_size = 64  # clips or captions embedded at a time
    c.eval.iterations = 4  # Sinkhorn iterations of the test-time normaliser
    # What the normaliser's biases are fitted on: "train", "validation", "holdout" (the clips of
    # data.bank_holdout), "auto" (of these the one that gains most on pairs that were not trained
    # on) or a file of captions (.txt, .csv, .tsv, .npy, .npz).
    c.eval.bank = "train"  # or another of these
    c.eval.bank_clips = 0  # of its clips that are used, drawn without replacement; 0: all
    c.eval.bank_captions = 0  # of each of them; 0: all
    c.eval.bank_seed = 0  # of the sample
    c.eval.online = False  # also the row "online": biases refitted with the queries answered so far
    c.eval.online_every = 100  # queries between two refits
    return c


ARCHITECTURES = {
    # patch, vision width, layers, heads, text width, layers, heads, shared width
    "B/32": (32, (768, 12, 12), (512, 12, 8), 512),
    "B/16": (16, (768, 12, 12), (512, 12, 8), 512),
    "L/14": (14, (1024, 24, 16), (768, 12, 12), 768),
}


def set_arch(config: ml_collections.ConfigDict, arch: str) -> None:
    """Sizes of OpenAI's ViT-`arch` at 224 pixels: "B/32", "B/16" or "L/14"."""
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch: expected one of {', '.join(ARCHITECTURES)}, got {arch!r}")
    model = config.model
    patch, vision, text, model.embed_dim = ARCHITECTURES[arch]
    model.patch_size = patch
    model.vision, model.text = _tower(*vision), _tower(*text)
    model.temporal_heads = text[2]


Value = bool | int | float | str


def parse_arg(arg: str, **defaults: Value | tuple[str, ...]) -> ml_collections.ConfigDict:
    """`"loss=infonce,seed=3"` -> typed values, each of the type of its default.

    A tuple lists the allowed words, the default first; a name without a value is `True`.

    Example:
      >>> from configs.common import parse_arg
      >>> parse_arg("seed=3,paper", seed=0, loss=("ncl", "infonce"), paper=False).to_dict()
      {'loss': 'ncl', 'paper': True, 'seed': 3}
    """
    values = {k: v[0] if isinstance(v, tuple) else v for k, v in defaults.items()}
    given: dict[str, Value] = {}
    for part in filter(None, arg.split(",")):
        name, equals, text = part.partition("=")
        if name not in defaults or not (equals or isinstance(defaults[name], bool)):
            known = ", ".join(f"{k}={v}" for k, v in values.items())
            raise ValueError(f"config argument {part!r}: expected some of {known}")
        if name in given:
            raise ValueError(f"config argument {name}: given twice")
        given[name] = _typed(name, text if equals else "True", defaults[name])
    return ml_collections.ConfigDict(values | given)


def _typed(name: str, text: str, default: Value | tuple[str, ...]) -> Value:
    words = ("True", "False") if isinstance(default, bool) else default
    expected = ", ".join(words) if isinstance(words, tuple) else type(default).__name__
    try:
        if not isinstance(words, tuple):
            return type(words)(text)
        if text in words:
            return text == "True" if isinstance(default, bool) else text
    except ValueError:
        pass
    raise ValueError(f"config argument {name}: expected {expected}, got {text!r}")


def _tower(width: int, layers: int, heads: int) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"width": width, "layers": layers, "heads": heads})
