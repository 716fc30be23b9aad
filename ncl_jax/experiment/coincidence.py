"""Settings that move no weight under the others of a config, so that two runs would be one.

Which pairs of a batch are positives makes no difference where pairs of one clip have equal videos:
both targets then have the same sum over the batch, and only rounding differs.
"""

import json
from typing import Any

import ml_collections

_SOLVER = ("iterations", "tolerance", "overrelaxation", "gradient")


def without_effect(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Keys that have no effect in this config -> why."""
    loss, found = config.loss, dict[str, str]()
    if config.data.distinct_clips:
        found["loss.positives"] = "data.distinct_clips leaves no clip twice in a batch"
    elif _same_frames(config.data):
        found["loss.positives"] = "pairs of one clip show the same frames"
    if loss.name == "infonce":
        found |= {f"loss.{key}": "InfoNCE solves for no biases" for key in _SOLVER}
    return found


def _same_frames(data: ml_collections.ConfigDict) -> bool:
    """Whether a training clip is looked at in the same way every time."""
    return bool(
        data.train_frames != "tsn_random" and data.train_frame_order != "random"
        and data.crop == "centre" and not data.flip
    )  # fmt: skip


def essence(config: ml_collections.ConfigDict) -> str:
    """Equal for configs whose runs cannot differ: all settings but those without effect.

    Example:
      >>> import configs.demo
      >>> one, other = (configs.demo.get_config("loss=infonce") for _ in range(2))
      >>> other.loss.iterations = 32
      >>> essence(one) == essence(other)
      True
    """
    settings: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    for key in without_effect(config):
        section, _, name = key.partition(".")
        del settings[section][name]
    return json.dumps(settings, sort_keys=True)
