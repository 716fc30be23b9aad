"""The two formats of an export: how a function is written, and how the file is run again."""

import importlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import export

from ncl_jax.errors import InputError, check_choice
from ncl_jax.export.functions import Function, Rows
from ncl_jax.files import replaced

PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 2_000_000_000
"""Bytes of parameters in one file: both protobuf and FlatBuffers end at 2 GiB."""


class Format(NamedTuple):
    """A way to store a function.

    Attributes:
      packages: what it needs beside JAX.
      write: (function, path without a suffix) -> the file.
      open: file -> a function of its inputs' arrays.
    """

    packages: tuple[str, ...]
    write: Callable[[Function, pathlib.Path], pathlib.Path]
    open: Callable[[pathlib.Path], Callable[..., Rows]]


def find(name: str) -> Format:
    """The format of that name, if what it needs is installed.

    Raises:
      InputError: another name, or a package is missing.
    """
    check_choice("--format", name, FORMATS)
    found = FORMATS[name]
    if missing := [package for package in found.packages if not _is_installed(package)]:
        raise InputError(
            f"--format {name} needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )
    return found


def _is_installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _write_stablehlo(function: Function, path: pathlib.Path) -> pathlib.Path:
    if _parameter_bytes(function) > LIMIT:
        raise InputError(
            f"{function.name}: expected at most {LIMIT / 1e9:g} GB of numbers in one file, got "
            f"{_parameter_bytes(function) / 1e9:.1f} GB; use --format onnx, which may have two"
        )

    def call(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        return function.call(function.params, *inputs)

    exported = export.export(jax.jit(call), platforms=PLATFORMS)(*function.inputs.values())
    file = path.with_suffix(".stablehlo")
    with replaced(file) as stream:
        stream.write(exported.serialize())
    return file


def _open_stablehlo(file: pathlib.Path) -> Callable[..., Rows]:
    call = jax.jit(export.deserialize(bytearray(file.read_bytes())).call)
    return lambda *inputs: tuple(np.asarray(output) for output in call(*inputs))


def _write_onnx(function: Function, path: pathlib.Path) -> pathlib.Path:
    """Numbers beyond the limit lie in a second file, as ONNX prescribes."""
    import onnx

    from ncl_jax.export.onnx_model import convert

    model, file = convert(function), path.with_suffix(".onnx")
    if _parameter_bytes(function) > LIMIT:
        onnx.save_model(
            model, file, save_as_external_data=True, location=f"{file.name}.data"
        )
        return file
    with replaced(file) as stream:
        stream.write(model.SerializeToString())
    return file


def _open_onnx(file: pathlib.Path) -> Callable[..., Rows]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: tuple(session.run(None, dict(zip(names, inputs, strict=True))))


def _parameter_bytes(function: Function) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(function.params))


FORMATS = {
    "stablehlo": Format(("flatbuffers",), _write_stablehlo, _open_stablehlo),
    "onnx": Format(("onnx", "onnxruntime"), _write_onnx, _open_onnx),
}
"""Format -> how to write and read it."""
