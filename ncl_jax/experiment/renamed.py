"""Config keys and values of former versions: refused in a config, read in what a run left."""

from collections.abc import Mapping
from typing import Any

from ncl_jax.errors import InputError

KEYS = {
    "mapper": "parallel_backend",
    "placement": "sharding",
    "batch.micro": "batch.micro_batch_size",
    "loss.relax": "loss.overrelaxation",
    "loss.execution": "loss.materialize",
}
"""Former key -> key."""
VALUES: dict[str, dict[Any, Any]] = {
    "loss.gradient": {"through": "unroll"},
    "loss.materialize": {"stored": "always", "tiled": "never"},
}
"""Key -> former value -> value."""
ADDED = {
    "data.bank_holdout": 0.0,
    "eval.bank": "train",
    "eval.online": False,
    "eval.online_every": 100,
}
"""Key -> what a run did before there was this key."""


def refuse_former(config: Mapping[str, Any]) -> None:
    """Makes sure that a config uses no former key, which would do nothing, and no former value.

    Raises:
      ValueError: it does; the message names the new one.
    """
    for old, new in KEYS.items():
        if _get(config, old) is not None:
            raise InputError(f"config.{old} is now called config.{new}; change it in your config")
    for key, values in VALUES.items():
        if (value := _get(config, key)) in values:
            raise InputError(f"config.{key}={value} is now config.{key}={values[value]}")


def updated(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run of any age in the present words; the given one stays as it is.

    Example:
      >>> updated({"mapper": "pmap", "batch": {"micro": 4}})
      {'batch': {'micro_batch_size': 4}, 'parallel_backend': 'pmap'}
    """
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
    for old, new in KEYS.items():
        *path, name = old.split(".")
        section = _get(config, ".".join(path)) if path else config
        if isinstance(section, dict) and name in section:
            section[new.rpartition(".")[2]] = section.pop(name)
    for key, values in VALUES.items():
        *path, name = key.split(".")
        section = _get(config, ".".join(path)) if path else config
        if isinstance(section, dict) and isinstance(section.get(name), str):
            section[name] = values.get(section[name], section[name])
    for key, value in ADDED.items():
        where, _, name = key.rpartition(".")
        if isinstance(section := _get(config, where), dict):
            section.setdefault(name, value)
    return config


def _get(config: Any, key: str) -> Any:
    for name in key.split("."):
        if not hasattr(config, "get") or name not in config:
            return None
        config = config[name]
    return config
