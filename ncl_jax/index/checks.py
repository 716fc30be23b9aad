"""Checks of what an index is made of: embeddings, ids, biases, and the content of its file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ncl_jax import arrays
from ncl_jax.biases import Biases
from ncl_jax.errors import InputError

ARRAYS = {"video": 2, "bias": 1, "bank_text": 2, "bank_bias": 1, "row_sum": 1}
"""Arrays of an index file, and how many axes each has."""
_NUMBERS = ("scale", "strength", "log_mass")


def wrong_content(arrays: dict[str, np.ndarray], header: Any) -> str:
    """The first way in which a file differs from what `save` writes; "" if it does not."""
    if not isinstance(header, dict) or header.keys() != {"ids", "meta", *_NUMBERS}:
        return "its header has other fields"
    if arrays.keys() != ARRAYS.keys():
        return "it has other arrays"
    if any(a.ndim != ARRAYS[n] or a.dtype.kind != "f" for n, a in arrays.items()):
        return "its arrays have other types"
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return "its arrays are not finite"
    video, bank, ids = arrays["video"], arrays["bank_text"], header["ids"]
    if video.shape[1] != bank.shape[1] or arrays["bias"].shape != video.shape[:1] or not (
        len(bank) == len(arrays["bank_bias"]) == len(arrays["row_sum"])
    ):
        return "its arrays do not fit together"
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        return "its ids are not strings"
    if len(set(ids)) != len(ids) or len(ids) != len(video):
        return "it needs one id per item"
    if not all(type(header[n]) in (int, float) and abs(header[n]) < 1e30 for n in _NUMBERS):
        return "its scale, strength or log_mass is not a finite number"
    if not header["scale"] > 0 or not isinstance(header["meta"], dict):
        return "its scale is not positive, or its meta is not an object"
    if len(ids) and len(bank) and not arrays["row_sum"].mean() > 0:
        return "its row sums are not positive"
    if type(header["meta"].get("drift_at_fit", 0.0)) not in (int, float):
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
