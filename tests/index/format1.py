"""Indexes as ncl_jax 0.1 wrote them: one `.npz` with a header in JSON."""

import json
import pathlib

import numpy as np

from ncl_jax.index import single_file

ARRAYS = ("video", "bias", "bank_text", "bank_bias", "row_sum")


def content(index):
    """(arrays, header) of an index."""
    names = ("scale", "strength", "log_mass", "meta")
    fields = {name: getattr(index, name) for name in names}
    return {name: getattr(index, name) for name in ARRAYS}, {"ids": list(index.ids), **fields}


def write(file, arrays, header, **changes):
    """Signs and writes it."""
    signed = {"version": 1, "sha256": single_file.digest(arrays, header), "data": header}
    text = json.dumps(signed | changes)
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, header=np.frombuffer(text.encode(), np.uint8), **arrays)
