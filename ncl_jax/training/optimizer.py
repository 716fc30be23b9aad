"""The optimizer: Adam in two forms, with parameter groups, frozen parts and clipped gradients.

Parameters are distinguished by their path in the tree, which has the names of Hugging Face's CLIP:
*towers* is everything that CLIP brings (both transformers, projections, the logit scale), *new* is
the rest, such as a head over frames. *Frozen* parameters get no update, no moments and no weight
decay, and do not count in the gradient norm.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from ncl_jax.errors import InputError, check_choice
from ncl_jax.types import MAX_SCALE, Towers

MAX_LOGIT_SCALE = math.log(MAX_SCALE)
TOWERS = ("text_model", "vision_model", "text_projection", "visual_projection", "logit_scale")

Algorithm = Literal["adamw", "bert_adam"]
Path = tuple[str, ...]


def build(
    *,
    algorithm: Algorithm,
    steps: int,
    learning_rate: float,
    tower_learning_rate: float | None,
    warmup: float,
    weight_decay: float,
    b1: float,
    b2: float,
    eps: float,
    clip_norm: float,
    clip_each_norm: float,
    freeze: str,
) -> optax.GradientTransformation:
    """The optimizer of a run.

    "adamw" is `optax.adamw` with `schedule`; it decays matrices. "bert_adam" is the optimizer of
    CLIP4Clip: Adam without bias correction and with `uncorrected_schedule`; it decays everything
    but biases, so CLIP's norms and its logit scale too. Both decouple the decay from the moments.

    Args:
      algorithm: which of the two.
      steps: the schedule ends here.
      learning_rate: peak, of new modules.
      tower_learning_rate: peak, of CLIP's own parameters; None for the same.
      warmup: share of the steps with a rising rate, in [0, 1].
      weight_decay: per unit of learning rate.
      b1: decay of the first moment.
      b2: decay of the second.
      eps: added to the denominator.
      clip_norm: limit on the norm of the whole gradient.
      clip_each_norm: then on the norm of each parameter's; 0 for none. It does nothing where it
        is not below `clip_norm`, as in CLIP4Clip, which has 1 and 1.
      freeze: see `is_frozen`.

    Raises:
      ValueError: an unknown algorithm or rule, or a number out of its range.
    """
    check_choice("optim.algorithm", algorithm, get_args(Algorithm))
    peak = learning_rate if tower_learning_rate is None else tower_learning_rate
    _check_ranges(learning_rate=learning_rate, tower_learning_rate=peak, weight_decay=weight_decay)
    _check_ranges(1.0, b1=b1, b2=b2)
    if not (clip_norm > 0 and clip_each_norm >= 0):
        raise InputError(
            "optim: expected clip_norm above 0 and clip_each_norm of at least 0, got "
            f"{clip_norm} and {clip_each_norm}"
        )
    is_frozen((), freeze)  # an unknown rule is refused here, not while tracing

    def group(peak: float) -> optax.GradientTransformation:
        if algorithm == "adamw":
            return optax.adamw(
                schedule(peak, steps, warmup), b1, b2, eps, weight_decay=weight_decay,
                mask=is_matrix,
            )  # fmt: skip
        return optax.chain(
            scale_by_uncorrected_adam(b1, b2, eps),
            optax.add_decayed_weights(weight_decay, mask=is_no_bias),
            optax.scale_by_learning_rate(uncorrected_schedule(peak, steps, warmup)),
        )

    def label(path: Path, _: Any) -> str:
        if is_frozen(path, freeze):
            return "frozen"
        return "towers" if path[0] in TOWERS else "new"

    def frozen(params: Any) -> Any:
        return _map_paths(lambda path, _: is_frozen(path, freeze), params)

    return optax.chain(
        optax.masked(optax.set_to_zero(), frozen),
        optax.clip_by_global_norm(clip_norm),
        clip_each(clip_each_norm) if clip_each_norm else optax.identity(),
        optax.partition(
            {"new": group(learning_rate), "towers": group(peak), "frozen": optax.set_to_zero()},
            lambda params: _map_paths(label, params),
        ),
        limit_logit_scale(),
    )


def _check_ranges(limit: float = math.inf, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < limit:
            raise InputError(f"optim.{name}: expected a number in [0, {limit}), got {value}")


def schedule(learning_rate: float, steps: int, warmup_fraction: float) -> optax.Schedule:
    """Linear warm-up to `learning_rate` over the first part of `steps`, then cosine to 0."""
    warmup = round(steps * warmup_fraction)
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))


def uncorrected_schedule(
    learning_rate: float, steps: int, warmup_fraction: float
) -> optax.Schedule:
    """Linear warm-up, then a cosine that is measured from step 0 on, as in CLIP4Clip.

    At the end of a warm-up of 10 % the rate drops at once, from 1 to .976 of the peak.
    """
    steps = max(steps, 1)

    def rate(count: jax.Array) -> jax.Array:
        x = count / steps
        rising = x / max(warmup_fraction, 1 / steps)
        return learning_rate * jnp.where(
            x < warmup_fraction, rising, (1 + jnp.cos(jnp.pi * x)) / 2
        )

    return rate


class Moments(NamedTuple):
    """Running means of the gradient and of its square."""

    first: Any
    second: Any


def scale_by_uncorrected_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam without bias correction (BertAdam): `m / (sqrt(v) + eps)`.

    Relations: `optax.scale_by_adam` in the limit of many steps.
    """

    def init(params: Any) -> Moments:
        return Moments(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(updates: Any, state: Moments, params: Any = None) -> tuple[Any, Moments]:
        del params
        first = optax.tree.update_moment(updates, state.first, b1, 1)
        second = optax.tree.update_moment(updates, state.second, b2, 2)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), first, second)
        return scaled, Moments(first, second)

    return optax.GradientTransformation(init, update)


def clip_each(limit: float) -> optax.GradientTransformation:
    """Scale down every parameter's gradient whose norm exceeds `limit`."""

    def clip(gradient: jax.Array) -> jax.Array:
        return gradient * jnp.minimum(1.0, limit / jnp.maximum(optax.tree.norm(gradient), 1e-30))

    return optax.stateless(lambda updates, _: jax.tree.map(clip, updates))


def limit_logit_scale() -> optax.GradientTransformation:
    """Cut the update of `params["logit_scale"]` so that its exponential stays at most 100.

    CLIP clamps the parameter, not the forward pass: its gradient stays alive at the limit.
    """

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        room = MAX_LOGIT_SCALE - params["logit_scale"]
        return updates | {"logit_scale": jnp.minimum(updates["logit_scale"], room)}, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def is_matrix(params: Any) -> Any:
    """True for the parameters that adamw decays: not for biases, norms and the logit scale."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def is_no_bias(params: Any) -> Any:
    """True for the parameters that bert_adam decays: all whose own name is not `bias`."""
    return _map_paths(lambda path, _: path[-1] != "bias", params)


def is_frozen(path: Path, rule: str) -> bool:
    """Whether a rule holds the parameter at `path` at its start.

    "none" trains everything. "stem" freezes what comes before the first block of each tower: patch,
    class, token and position embeddings and the norm before the vision blocks. "layers<N" freezes
    the stem and the blocks 0 to N - 1 of both towers. Norms after the blocks, projections, logit
    scale and new modules always train.

    Mind the trap in CLIP4Clip's README: its `--freeze_layer_num 0` is "stem" here and not "train
    everything", which is its -1; N > 0 is "layers<N". With 3d patches its test of names is always
    true, so nothing is frozen whatever its flag says: that is "none" here.

    Example:
      >>> is_frozen(("vision_model", "encoder", "layers", "1", "mlp", "fc1", "bias"), "layers<2")
      True
      >>> is_frozen(("vision_model", "encoder", "layers", "1", "mlp", "fc1", "bias"), "stem")
      False
    """
    if rule == "none":
        return False
    found = re.fullmatch(r"stem|layers<([1-9]\d*)", rule)
    if not found:
        raise InputError(
            f"optim.freeze: expected none, stem or layers<N with N of at least 1, got {rule!r}"
        )
    if not path or path[0] not in ("text_model", "vision_model"):
        return False
    if path[1:3] == ("encoder", "layers"):
        return int(path[3]) < int(found[1] or 0)
    return path[1] in ("embeddings", "pre_layrnorm")


def freeze_towers(towers: Towers, rule: str) -> Towers:
    """The same functions with a gradient of 0 for frozen parameters, so that none is computed."""

    def hold(path: Path, value: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(value) if is_frozen(path, rule) else value

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, *inputs: function(_map_paths(hold, params), *inputs)

    return towers._replace(
        **{name: held(function) for name, function in towers._asdict().items() if function}
    )


def _map_paths(function: Callable[[Path, Any], Any], tree: Any) -> Any:
    """Map over leaves with their paths as tuples of names."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(tuple(str(entry.key) for entry in path), leaf), tree
    )
