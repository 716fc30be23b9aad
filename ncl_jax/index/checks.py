"""Checks of what an index is made of: embeddings, ids, biases, and the content of its file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ncl_jax import arrays
from ncl_jax.biases import Biases
from ncl_jax.errors import InputError
from ncl_jax.index.items import Ids
from ncl_jax.index.storage import LARGE, Content

_TYPES = {
    "video": (np.float32, 2), "bias": (np.float32, 1), "text": (np.uint8, 1), "ends": (np.int64, 1),
    "bank_text": (np.float32, 2), "bank_bias": (np.float32, 1), "row_sum": (np.float64, 1),
}  # fmt: skip
"""Type and number of axes of every array."""
_NUMBERS = ("scale", "strength", "log_mass")


def wrong_content(content: Content, check: bool) -> str:
    """The first way in which an index differs from what `save` writes; "" if it does not.

    Args:
      content: as it was read.
      check: whether the vectors are looked at too, which reads all of them.
    """
    fields, bank, row_sum = content.fields, content.bank.arrays, content.sums.arrays["row_sum"]
    if fields.keys() != {"meta", *_NUMBERS}:
        return "its header has other fields"
    parts = [part.arrays for part in content.parts]
    arrays = [*parts, bank, content.sums.arrays]
    if not parts or not all(_is_typed(n, a) for group in arrays for n, a in group.items()):
        return "its arrays have other types"
    small = [a for group in arrays for n, a in group.items() if check or n not in LARGE]
    if not all(np.isfinite(array).all() for array in small):
        return "its arrays are not finite"
    dims = {part["video"].shape[1] for part in parts} | {bank["bank_text"].shape[1]}
    fit = all(len(p["video"]) == len(p["bias"]) == len(p["ends"]) for p in parts)
    if len(dims) > 1 or not fit or not (
        len(bank["bank_text"]) == len(bank["bank_bias"]) == len(row_sum)
    ):  # fmt: skip
        return "its arrays do not fit together"
    if wrong := next(filter(None, map(_wrong_ids, parts)), ""):
        return wrong
    if check and len(set(ids := [i for p in parts for i in Ids(p["text"], p["ends"])])) < len(ids):
        return "it needs one id per item"
    return _wrong_fields(fields) or (
        "its row sums are not positive" if len(row_sum) and any(len(p["ends"]) for p in parts)
        and not row_sum.mean() > 0 else ""
    )  # fmt: skip


def _is_typed(name: str, array: np.ndarray) -> bool:
    dtype, axes = _TYPES[name]
    return array.dtype == dtype and array.ndim == axes


def _wrong_ids(part: Mapping[str, np.ndarray]) -> str:
    text, ends = part["text"], part["ends"]
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    if (starts > ends).any() or (ends[-1] if len(ends) else 0) != len(text):
        return "its ids do not fit together"
    inside = starts[starts < len(text)]
    try:
        text.tobytes().decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return "its ids are not text"
    return "its ids are not text" if ((text[inside] & 0xC0) == 0x80).any() else ""


def _wrong_fields(fields: dict[str, Any]) -> str:
    if not all(type(fields[n]) in (int, float) and abs(fields[n]) < 1e30 for n in _NUMBERS):
        return "its scale, strength or log_mass is not a finite number"
    if not fields["scale"] > 0 or not isinstance(fields["meta"], dict):
        return "its scale is not positive, or its meta is not an object"
    if type(fields["meta"].get("drift_at_fit", 0.0)) not in (int, float):
        return "its drift is not a number"
    return ""


def unit_rows(rows: Any, what: str, dim: int | None = None) -> Float[np.ndarray, "row dim"]:
    """`rows` at unit norm; `what` names them in the error."""
    rows = arrays.single(rows, what)
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim) or not rows.shape[1]:
        want = "width > 0" if dim is None else f"width {dim}"
        raise InputError(f"{what} must be a matrix [row, dim] of {want}, got shape {rows.shape}")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] > 0)))
    if len(bad):
        raise InputError(
            f"{what} must be finite and not zero, got {len(bad)} bad rows, the first is row "
            f"{bad[0]}; drop or repair them"
        )
    return rows / length


def check_biases(biases: Biases, texts: int, items: int) -> None:
    """Refuses biases without their bank, of another size, or that are not finite."""
    if not texts:
        raise InputError(
            "biases need the bank_text they were solved for, got none; give it, or leave biases out"
        )
    for name, bias, size in (("text", biases.text, texts), ("video", biases.video, items)):
        values = np.asarray(bias)
        if values.shape != (size,) or not np.isfinite(values).all():
            raise InputError(
                f"biases.{name} must be {size} finite numbers, got shape {values.shape} and "
                f"{int((~np.isfinite(values)).sum())} that are not finite"
            )


def checked_ids(ids: Sequence[str], count: int) -> tuple[str, ...]:
    """One unique string per embedding."""
    ids = tuple(map(str, ids))
    if len(ids) != count:
        raise InputError(f"expected one id per embedding, got {len(ids)} ids for {count} rows")
    if len(set(ids)) != count:
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(f"ids must be unique, {twice!r} is there more than once")
    return ids
