"""The model card: README.md of a saved model, made from what its run measured."""

from typing import Any

from ncl_jax.models.clip import ClipConfig
from ncl_jax.pretrained.preprocessing import Preprocessing

ROWS = {
    "plain": "plain cosine",
    "inductive": "normalised by the bank",
    "inductive_auto": "chosen on training pairs (`auto`)",
    "transductive": "normalised by all test queries (transductive)",
    "online": "refitted with the queries answered so far (online)",
}
COLUMNS = {"R@1": ".1f", "R@5": ".1f", "R@10": ".1f", "MdR": ".1f", "norm_error_mean": ".3f"}
FILL_IN = "FILL IN"

_HEAD = """\
---
license: other  # {fill_in}: the licence of the weights; that of the data may limit it
library_name: ncl_jax
tags:
- text-video-retrieval
- normalized-contrastive-learning
- clip
---

# {name}

A text-video retrieval model trained with `ncl_jax`: {what}.

- Licence of the weights: **{fill_in}**
- Weights it started from, and their licence: **{fill_in}**
- Licence of the training data, and whom it shows: **{fill_in}**

## Use

```python
import ncl_jax
model = ncl_jax.load("FOLDER OR OWNER/NAME")
text = model.encode_text(["what you look for"])
video = model.encode_video(["a.mp4", "b.mp4"])
model.rank(text, video).top(10)
```

Or search a folder: `ncl-jax index build --videos FOLDER --checkpoint FOLDER_OR_OWNER/NAME`, then
`ncl-jax serve`. The towers alone load in `transformers.CLIPModel.from_pretrained`.

## What it reads

{frames}
"""

_BANK = """
## Fair scores

`bank.safetensors` holds {count:,} training captions: `text` [bank, dim] and `bias` [bank]. The bias
of a video with the unit-norm embedding v is `-logsumexp({scale:.4f} * text @ v + bias)`; added to
`{scale:.4f} * query @ v`, it gives every video its fair share of the results. `ncl_jax` does this,
and fits the biases anew for each gallery.
"""


def text(checkpoint: Any) -> str:
    """The card of a `checkpoint.Checkpoint`, in Markdown."""
    results = public_part(checkpoint.results or {})
    name = results.get("run", {}).get("name") or "A text-video retrieval model"
    card = _HEAD.format(
        name=name, what=_what(checkpoint.sizes), frames=_frames(checkpoint.preprocessing),
        fill_in=FILL_IN,
    )  # fmt: skip
    if checkpoint.bank is not None:
        scale = float(checkpoint.towers.scale(checkpoint.params))
        card += _BANK.format(count=len(checkpoint.bank.text), scale=scale)
    return card + (_measured(results) if results else f"\n## Results\n\n**{FILL_IN}**\n")


def public_part(results: dict[str, Any]) -> dict[str, Any]:
    """What of `results.json` may be published: no paths, no machine.

    Example:
      >>> public_part({"run": {"name": "a", "seconds": {}}, "files": {"index": "/home/me/index"}})
      {'run': {'name': 'a'}}
    """
    run = {k: v for k, v in results.get("run", {}).items() if k in ("name", "seed", "step")}
    data = results.get("config", {}).get("data", results.get("data", {}))
    found = {
        "run": run,
        "data": {k: data[k] for k in ("builder", "train_split", "test_split") if k in data},
        "metrics": results.get("metrics", {}),
    }
    return {name: part for name, part in found.items() if part}


def _what(sizes: ClipConfig) -> str:
    return (
        f"a CLIP ViT of {sizes.vision.layers} layers with patches of {sizes.patch_size} pixels, "
        f"a text transformer of {sizes.text.layers} layers, and the head {sizes.temporal} over "
        "frames"
    )


def _frames(given: Preprocessing) -> str:
    shapes, frames = given.shapes, given.frames
    return (
        f"{frames.fps:g} frame(s) per second, of which up to {shapes.max_frames} "
        f"({given.view.choice}), resized (bicubic) and cut to the central {shapes.image_size} x "
        f"{shapes.image_size} pixels; "
        f"captions of up to {shapes.max_tokens} tokens, start and end included."
    )


def _measured(results: dict[str, Any]) -> str:
    from ncl_jax.experiment.results import bank_line  # only where there are results to tell

    metrics, data, run = (results.get(k, {}) for k in ("metrics", "data", "run"))
    counts, rules = metrics.get("counts", {}), metrics.get("rules", {})
    test = counts.get("test", {})
    lines = [
        "", "## Results", "",
        f"On the split `{data.get('test_split', '?')}` of `{data.get('builder', '?')}`: "
        f"{test.get('texts', 0):,} captions of {test.get('videos', 0):,} clips; bank: "
        f"{bank_line(metrics)}; ties: "
        f"{rules.get('ties', '?')}; video to text: {rules.get('video_to_text', '?')}; step "
        f"{run.get('step', '?')}, seed {run.get('seed', '?')}. Norm. error: mean of |summed "
        "retrieval probability / fair share - 1|, 0 is fair.",
    ]  # fmt: skip
    for key, title in (("text_to_video", "Text to video"), ("video_to_text", "Video to text")):
        if key in metrics:
            lines += ["", *_table(title, metrics[key])]
    return "\n".join(lines) + "\n"


def _table(title: str, measured: dict[str, dict[str, float]]) -> list[str]:
    heads = ["norm. error" if name == "norm_error_mean" else name for name in COLUMNS]
    rows = [
        f"| {label} | " + " | ".join(
            format(measured[row][name], form) if name in measured[row] else ""
            for name, form in COLUMNS.items()
        ) + " |"
        for row, label in ROWS.items() if row in measured
    ]  # fmt: skip
    return [f"| {title} | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads), *rows]
