"""Arrays of a torch file, read without torch and without running anything from it.

A file of `torch.save` and a TorchScript archive are both a zip with a pickle (`data.pkl`) that
names tensors, and one record of raw bytes per tensor. The pickle is read by an unpickler that
knows a fixed list of names and refuses every other one; a module of a TorchScript archive becomes
a plain holder of its attributes, its code is never looked at.
"""

import collections
import math
import os
import pathlib
import pickle
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from ncl_jax.errors import InputError

DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}  # fmt: skip


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays by their dotted names, as they are stored; a wrapper `state_dict` is opened.

    Raises:
      ValueError: not such a file, damaged, or its pickle asks for anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _unpickle(archive, str(path))
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: {_not_a_zip(path, error)}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    arrays = dict(_flat(content, "", set()))
    if not arrays:
        raise InputError(f"{path}: expected tensors by name (a state dict), found none")
    return arrays


class _Module:
    """What is left of a TorchScript module: its attributes."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Dtype:
    """Stands for a storage class such as `torch.FloatStorage`."""

    def __init__(self, name: str):
        self.dtype = np.dtype(DTYPES[name])


class _Unpickler(pickle.Unpickler):
    """Tensors, containers and holders; every other name in the pickle is an error."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}data.pkl"))
        self._archive, self._root = archive, root
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in DTYPES:
            return _Dtype(name)
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which is no tensor")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, *_ = pid
        if kind != "storage" or not isinstance(storage, _Dtype):
            raise pickle.UnpicklingError(f"its pickle refers to a {kind!r}, expected a storage")
        if key not in self._storages:
            record = self._archive.read(f"{self._root}data/{key}")
            self._storages[key] = np.frombuffer(record, storage.dtype)
        return self._storages[key]


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    count = math.prod(size)  # no larger than its bytes: a stride of 0 could make it endless
    if min((offset, *size, *stride)) < 0 or count > len(storage) or last >= len(storage) > 0:
        raise pickle.UnpicklingError("a tensor reaches beyond its bytes")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _first(value: Any, *_: Any) -> Any:
    return value


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): list
       for kind in ("int", "double", "bool", "tensor")},
}  # fmt: skip


def _unpickle(archive: zipfile.ZipFile, path: str) -> Any:
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise InputError(f"{path}: a zip, but not of torch: expected one data.pkl in its folder")
    root = pickles[0].removesuffix("data.pkl")
    for info in archive.infolist():  # a small file must not unfold into a large one
        if info.filename.startswith(f"{root}data") and info.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{path}: compressed tensors; torch writes plain ones")
    try:
        return _Unpickler(archive, root).load()
    except zipfile.BadZipFile:
        raise
    except Exception as error:  # a damaged or hostile pickle fails in any way it likes
        raise InputError(f"{path}: cannot be read: {error}; nothing in it was run") from error


def _flat(value: Any, prefix: str, seen: set[int]) -> list[tuple[str, np.ndarray]]:
    """Arrays of nested modules and dicts with dotted names; other attributes are left out.

    A part met again is left out too: a pickle may contain itself, or one part many times over.
    """
    if isinstance(value, np.ndarray):
        return [(prefix, value)]
    inner = value.attributes if isinstance(value, _Module) else value
    if not isinstance(inner, dict) or id(inner) in seen:
        return []
    seen.add(id(inner))
    dot = f"{prefix}." if prefix else ""
    return [pair for name, part in inner.items() for pair in _flat(part, f"{dot}{name}", seen)]


def _not_a_zip(path: str | os.PathLike[str], error: Exception) -> str:
    with pathlib.Path(path).open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return f"a damaged zip ({error}); fetch the file again"
    if start[:1] == b"\x80":
        return "a torch file older than version 1.6; save it again with a newer torch"
    return "expected a torch file (a zip), got something else"
