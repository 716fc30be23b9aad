"""Indexes of format 1: all arrays and a JSON header in one `.npz`. They are read, not written."""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from ncl_jax.errors import InputError, blame_input
from ncl_jax.readers.npy import read_npz
from ncl_jax.readers.text import parse_json

NAME = "index.npz"


def read(file: pathlib.Path) -> tuple[dict[str, np.ndarray], Any]:
    """(arrays, header) of an index that ncl_jax 0.1 has saved.

    Raises:
      ValueError: not an index, or damaged.
    """
    problem, advice = f"{file} is damaged or not an index", "rebuild it"
    arrays = read_npz(file, problem, advice, stored=True)
    with blame_input(problem, advice):
        # Names of files may be no text.
        header = parse_json(arrays.pop("header").tobytes().decode(), str(file), is_text=False)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        if any(array.dtype.kind not in "biufcSU" for array in arrays.values()):
            raise ValueError("its arrays have other types")
        if not isinstance(header["data"], dict):
            raise ValueError("its header has no fields")
        version, sha256, data = int(str(header["version"])), header["sha256"], header["data"]
    if version != 1:
        raise InputError(f"{file} has format {version}, expected 1; upgrade ncl_jax")
    if sha256 != digest(arrays, data):
        raise InputError(f"{file} is damaged (its checksum does not match); rebuild it")
    return arrays, data


def digest(arrays: dict[str, np.ndarray], header: Any) -> str:
    """Of all that an index of format 1 holds."""
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha256.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha256.update(array.data if array.size else b"")
    return sha256.hexdigest()
