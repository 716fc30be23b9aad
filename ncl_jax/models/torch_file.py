"""Reads the arrays of a torch file without torch and without running any code from the file.

A file of `torch.save` and a TorchScript archive are both a zip with a pickle (`data.pkl`) that
names tensors, and one record of raw bytes per tensor. An unpickler reads the pickle; it accepts a
fixed list of names, that of `torch.load(weights_only=True)`, and refuses all others. Tensors become
arrays. A module of a TorchScript archive becomes an object with its attributes; its code is never
read. Other objects (settings of an optimizer or a scheduler) become empty placeholders.
"""

import contextlib
import io
import math
import os
import pathlib
import pickle
import types
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from ncl_jax.errors import InputError, blame_input, reason
from ncl_jax.readers import limits
from ncl_jax.readers.plain_pickle import PlainUnpickler, as_dict

DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
    "BoolStorage": np.bool_, "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128, "UntypedStorage": np.uint8,
}  # fmt: skip
ELEMENTS: dict[str, Any] = {
    "float64": np.float64, "double": np.float64, "float32": np.float32, "float": np.float32,
    "float16": np.float16, "half": np.float16, "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64, "long": np.int64, "int32": np.int32, "int": np.int32, "int16": np.int16,
    "short": np.int16, "int8": np.int8, "uint8": np.uint8, "uint16": np.uint16,
    "uint32": np.uint32, "uint64": np.uint64, "bool": np.bool_,
    "complex64": np.complex64, "cfloat": np.complex64, "complex128": np.complex128,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2": ml_dtypes.float8_e5m2, "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
}  # fmt: skip
"""Types by the names that `torch.dtype` has for them."""


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays by their dotted names, in stored types; a wrapping `state_dict` is unwrapped.

    Raises:
      ValueError: not a torch file, damaged, or its pickle refers to anything but tensors.
    """
    problem, advice = f"{path}: cannot be read", "nothing in it was run; fetch it again"
    try:
        with (
            blame_input(problem, advice, _control),
            zipfile.ZipFile(path) as archive,
        ):
            content = _unpickle(archive, str(path))
    except InputError as error:
        if isinstance(error.__cause__, zipfile.BadZipFile):
            raise InputError(f"{path}: {_not_a_zip(path, error.__cause__)}") from error
        raise
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    arrays = dict(_flatten(content, "", set()))
    if not arrays:
        raise InputError(f"{path}: expected tensors by name (a state dict), found none")
    return arrays


class _Module:
    """Replaces a TorchScript module: holds its attributes only."""

    attributes: Mapping[str, Any] = types.MappingProxyType({})

    def take_state(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Placeholder:
    """Replaces any object that is neither a tensor nor a container."""

    def __init__(self, *_: Any) -> None:
        pass


class _Dtype:
    """Stands for a storage class such as `torch.FloatStorage`, or a `torch.dtype`."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class _Unpickler(PlainUnpickler):
    """Accepts names of tensors, containers and placeholders; any other name is an error."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.read(f"{root}data.pkl"))
        self._archive, self._root = archive, root
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module in ("torch", "torch.storage"):
            if name in DTYPES:
                return _Dtype(DTYPES[name])
            if name in ELEMENTS:
                return _Dtype(ELEMENTS[name])
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, not a tensor")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, *_ = pid
        if kind != "storage" or not isinstance(storage, _Dtype):
            raise pickle.UnpicklingError(f"its pickle refers to a {kind!r:.40}, expected a storage")
        if key not in self._storages:
            record = self._archive.read(f"{self._root}data/{key}")
            self._storages[key] = np.frombuffer(record, storage.dtype)
        return self._storages[key]


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    count = math.prod(size)  # unbounded if a stride is 0
    most = max(len(storage), limits.EXPANDED if 0 in stride else 0)
    if min((offset, *size, *stride)) < 0 or count > most or (count and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor extends beyond its bytes")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _rebuild_typed_tensor(
    storage: np.ndarray, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any,
    *_: Any,
) -> np.ndarray:  # fmt: skip
    """Rebuilds a tensor of a type without its own storage class, such as float8."""
    return _rebuild_tensor(storage.view(dtype.dtype), offset, size, stride)


def _rebuild_subclass(rebuild: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Rebuilds a tensor without its additional attributes."""
    return rebuild(*arguments) if rebuild in _REBUILDERS else _Placeholder()


def _first(value: Any, *_: Any) -> Any:
    return value


def _list(items: Any = (), *_: Any) -> list[Any]:
    return list(items) if isinstance(items, (list, tuple)) else []


_REBUILDERS = (_rebuild_tensor, _rebuild_typed_tensor, _first)
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): as_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_subclass,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): _list
       for kind in ("int", "double", "bool", "tensor")},
    **{("torch._utils", f"_rebuild_{kind}"): _Placeholder
       for kind in ("qtensor", "sparse_tensor", "meta_tensor_no_storage", "nested_tensor",
                    "wrapper_subclass", "device_tensor_from_numpy",
                    "device_tensor_from_cpu_tensor")},
    **dict.fromkeys((
        ("collections", "Counter"), ("collections", "defaultdict"), ("torch", "Size"),
        ("torch", "device"), ("torch", "Tensor"), ("torch.nn.parameter", "Parameter"),
        ("torch.nn.parameter", "Buffer"), ("torch.serialization", "_get_layout"),
        ("_codecs", "encode"),
    ), _Placeholder),
    **{(module, name): _Placeholder for module in ("builtins", "__builtin__")
       for name in ("bytearray", "set", "complex", "frozenset")},
    **{("torch", name): _Placeholder
       for name in ("complex32", "chalf", "quint8", "qint8", "qint32", "quint4x2", "quint2x4",
                    "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2",
                    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)))},
}  # fmt: skip
"""The names that `torch.load(weights_only=True)` accepts; a file may pass them any arguments."""


def _unpickle(archive: zipfile.ZipFile, path: str) -> Any:
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise InputError(
            f"{path}: expected a zip of torch with one data.pkl in its folder, got {len(pickles)}; "
            "choose another file"
        )
    root = pickles[0].removesuffix("data.pkl")
    for info in archive.infolist():  # a small file must not expand into a large one
        needed = info.filename.startswith((f"{root}data", f"{root}byteorder"))
        if needed and info.compress_type != zipfile.ZIP_STORED:
            raise InputError(
                f"{path}: expected uncompressed tensors, got compressed ones; save it with torch"
            )
    with contextlib.suppress(KeyError):
        if archive.read(f"{root}byteorder").strip() == b"big":
            raise InputError(
                f"{path}: expected little-endian numbers, got big-endian numbers; save it on a "
                "little-endian machine"
            )
    if archive.getinfo(pickles[0]).file_size > limits.PICKLE:
        raise InputError(f"{path}: expected a pickle of at most {limits.PICKLE:,} bytes")
    problem, advice = f"{path}: cannot be read", "nothing in it was run; fetch it again"
    with blame_input(problem, advice, _control):
        return _Unpickler(archive, root).load()


def _control() -> None:
    """Reads a valid file; an error here is a bug of the program, not bad input."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", b"")
    assert zipfile.ZipFile(stream).namelist() == ["a/data.pkl"]
    assert PlainUnpickler(pickle.dumps({"a": [(1, 2.0)]}, 2)).load()["a"] == [(1, 2.0)]
    assert _rebuild_tensor(np.ones(4), 1, (1, 2), (2, 1)).sum() == 2
    assert _rebuild_typed_tensor(np.ones(8, np.uint8), 0, (2,), (1,), 0, 0, _Dtype("f4")).size == 2


def _flatten(
    value: Any, prefix: str, seen: set[int], depth: int = 0
) -> list[tuple[str, np.ndarray]]:
    """Arrays of nested modules and dicts with dotted names; skips other attributes.

    Skips repeated parts too: a pickle may contain itself, or the same part many times.
    """
    if isinstance(value, np.ndarray):
        return [(prefix, value)]
    inner = value.attributes if isinstance(value, _Module) else value
    if not isinstance(inner, Mapping) or id(inner) in seen or depth > limits.DEPTH:
        return []
    seen.add(id(inner))
    dot = f"{prefix}." if prefix else ""
    return [
        pair
        for name, part in inner.items()
        if isinstance(name, str)
        for pair in _flatten(part, f"{dot}{name}", seen, depth + 1)
    ]


def _not_a_zip(path: str | os.PathLike[str], error: Exception) -> str:
    with pathlib.Path(path).open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return f"a damaged zip ({reason(error)}); fetch the file again"
    if start[:1] == b"\x80":
        return "a file of torch before version 1.6; save it again with a newer torch"
    return "expected a torch file (a zip), got something else"
