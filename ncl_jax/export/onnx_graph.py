"""An ONNX graph while it is being made: its nodes and the arrays that it holds."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ncl_jax.errors import InputError
from ncl_jax.export.functions import Function


class Tensor(NamedTuple):
    """A value that is known only when the model runs, by its name in the graph."""

    name: str


Value = np.ndarray | Tensor
"""Values known now are arrays."""


class Graph:
    """Nodes and stored arrays, as they are added."""

    def __init__(self, function: Function) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.size = next(iter(function.inputs.values())).shape[0]  # symbolic
        self._first = Tensor(next(iter(function.inputs)))
        self._kept: dict[int, tuple[np.ndarray, str]] = {}  # kept, so that no id is used again
        self._names: dict[int, tuple[np.ndarray, str]] = {}
        self._used: set[str] = set(function.inputs) | set(function.outputs)

    def name(self, array: np.ndarray, name: str) -> np.ndarray:
        """Gives an array the name under which it will be stored if anything uses it."""
        self._names[id(array)] = (array, name)
        return array

    def name_of(self, array: np.ndarray) -> str:
        """What it was called, or "constant"."""
        return self._names.get(id(array), (array, "constant"))[1]

    def add(self, operation: str, *inputs: Value, **attributes: Any) -> Tensor:
        """A node with one output."""
        return self.add_many(operation, 1, *inputs, **attributes)[0]

    def add_many(
        self, operation: str, count: int, *inputs: Value, **attributes: Any
    ) -> list[Tensor]:
        """A node with `count` outputs."""
        made = [Tensor(self._fresh(operation)) for _ in range(count)]
        names = [x.name if isinstance(x, Tensor) else self._store(x) for x in inputs]
        self.nodes.append(helper.make_node(operation, names, [x.name for x in made], **attributes))
        return made

    def shape(self, sizes: Sequence[Any]) -> Value:
        """Sizes of axes as a tensor; symbolic ones are read from the first input."""
        if all(isinstance(size, int) for size in sizes):
            return np.asarray(sizes, np.int64)
        size = self.add("Shape", self._first, start=0, end=1)
        parts = [
            np.asarray([x], np.int64) if isinstance(x, int)
            else self.add("Mul", size, np.asarray([multiple(x, self.size)], np.int64))
            for x in sizes
        ]  # fmt: skip
        return self.add("Concat", *parts, axis=0)

    def _fresh(self, name: str) -> str:
        number, free = 0, name
        while free in self._used:
            number, free = number + 1, f"{name}_{number + 1}"
        self._used.add(free)
        return free

    def _store(self, array: np.ndarray) -> str:
        if id(array) not in self._kept:
            name = self._fresh(self.name_of(array))
            self._kept[id(array)] = (array, name)
            self.stored.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return self._kept[id(array)][1]


def multiple(size: Any, of: Any) -> int:
    """3 for `3*video` and `video`."""
    times = size // of
    if not isinstance(times, int) or times * of != size:
        raise unsupported(f"an axis of size {size}")
    return times


def unsupported(what: str) -> InputError:
    """What a model needs and this module does not know."""
    return InputError(
        f"this model uses {what}, which export to ONNX does not know; use --format stablehlo"
    )
