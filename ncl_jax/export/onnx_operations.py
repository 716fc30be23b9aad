"""Operations of JAX in ONNX, where one is more than a node of another name."""

import string
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from ncl_jax.export.onnx_graph import Graph, Value, unsupported


def shape_of(variable: Any) -> tuple[Any, ...]:
    """Sizes of the axes; the first may be symbolic."""
    return tuple(variable.aval.shape)


def ints(values: Iterable[Any]) -> np.ndarray:
    """As ONNX takes axes, sizes and places."""
    return np.asarray([int(value) for value in values], np.int64)


def reshaped(graph: Graph, x: Value, old: Sequence[Any], new: Sequence[Any]) -> Value:
    """At most one size is symbolic: the one that ONNX finds by itself."""
    if tuple(old) == tuple(new):
        return x
    sizes = [size if isinstance(size, int) else -1 for size in new]
    if sizes.count(-1) > 1:
        raise unsupported(f"a reshape to {tuple(new)}")
    return graph.add("Reshape", x, ints(sizes))


def reshape(graph: Graph, equation: Any, x: Value) -> Value:
    """Also squeeze."""
    return reshaped(graph, x, shape_of(equation.invars[0]), shape_of(equation.outvars[0]))


def broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    """New axes of size 1, which are then repeated where they have to be."""
    old, new = shape_of(equation.invars[0]), shape_of(equation.outvars[0])
    thin: list[Any] = [1] * len(new)
    for size, axis in zip(old, equation.params["broadcast_dimensions"], strict=True):
        thin[axis] = size
    x = reshaped(graph, x, old, thin)
    if thin == list(new):
        return x
    return graph.add("Expand", x, graph.shape(new))


def dot(graph: Graph, equation: Any, x: Value, y: Value) -> Value:
    """A matrix product where it is one, else Einsum."""
    (sum_x, sum_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    ranks = [len(shape_of(variable)) for variable in equation.invars]
    if not batch_x and tuple(sum_x) == (ranks[0] - 1,) and tuple(sum_y) == (0,) and ranks[1] == 2:
        return graph.add("MatMul", x, y)
    letters = iter(string.ascii_lowercase)
    of_x, of_y = ([next(letters) for _ in range(rank)] for rank in ranks)
    for i, j in zip((*batch_x, *sum_x), (*batch_y, *sum_y), strict=True):
        of_y[j] = of_x[i]
    out = [of_x[i] for i in batch_x]
    out += [a for i, a in enumerate(of_x) if i not in (*batch_x, *sum_x)]
    out += [b for j, b in enumerate(of_y) if j not in (*batch_y, *sum_y)]
    return graph.add("Einsum", x, y, equation=f"{''.join(of_x)},{''.join(of_y)}->{''.join(out)}")


def gather(graph: Graph, equation: Any, x: Value, index: Value) -> Value:
    """One axis indexed: by numbers known now (a slice), by rows (a table), or per batch entry."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, places = shape_of(equation.invars[0]), shape_of(equation.invars[1])
    batch, axes = tuple(numbers.operand_batching_dims), tuple(numbers.start_index_map)
    rest = [size for axis, size in enumerate(shape) if axis not in (*axes, *batch)]
    whole = [size for axis, size in enumerate(sizes) if axis not in (*axes, *batch)] == rest
    if len(axes) != 1 or not whole or batch != tuple(range(len(batch))):
        raise unsupported(f"a gather by {numbers}")
    axis, out = axes[0], shape_of(equation.outvars[0])
    if isinstance(index, np.ndarray) and index.shape == (1,) and not batch:
        start = np.clip(index, 0, shape[axis] - sizes[axis])
        cut = graph.add("Slice", x, ints(start), ints(start + sizes[axis]), ints([axis]))
        return reshaped(graph, cut, (*shape[:axis], sizes[axis], *shape[axis + 1 :]), out)
    first = 0 if batch else axis
    index_axes = range(first, first + len(places) - 1)
    offsets = tuple(i for i in range(len(out)) if i not in index_axes)
    if sizes[axis] != 1 or not numbers.collapsed_slice_dims or numbers.offset_dims != offsets:
        raise unsupported(f"a gather by {numbers}")
    if batch:
        index = graph.add("Cast", index, to=_type(np.int64))
        return graph.add("GatherND", x, index, batch_dims=len(batch))
    return graph.add("Gather", x, reshaped(graph, index, places, places[:-1]), axis=axis)


def pad(graph: Graph, equation: Any, x: Value, filling: Value) -> Value:
    """At both ends of each axis."""
    low, high, inner = zip(*equation.params["padding_config"], strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise unsupported("padding inside an array, or less than none")
    return graph.add("Pad", x, ints([*low, *high]), filling)


def select(graph: Graph, equation: Any, which: Value, *cases: Value) -> Value:
    """`cases[which]` of two cases."""
    if len(cases) != 2:
        raise unsupported(f"a choice among {len(cases)}")
    return graph.add("Where", which, cases[1], cases[0])


def split(graph: Graph, equation: Any, x: Value) -> list[Value]:
    """Along one axis."""
    sizes = ints(equation.params["sizes"])
    axis = int(equation.params["axis"])
    return list(graph.add_many("Split", len(sizes), x, sizes, axis=axis))


def top_k(graph: Graph, equation: Any, x: Value) -> list[Value]:
    """The first of equal ones comes first, in both."""
    count, axis = ints([equation.params["k"]]), int(equation.params.get("axis", -1))
    best, place = graph.add_many("TopK", 2, x, count, axis=axis, largest=1, sorted=1)
    return [best, graph.add("Cast", place, to=_type(equation.outvars[1].aval.dtype))]


def cast(graph: Graph, equation: Any, x: Value) -> Value:
    """To the type that the equation names."""
    return graph.add("Cast", x, to=_type(equation.params["new_dtype"]))


def erfc(graph: Graph, equation: Any, x: Value) -> Value:
    """`1 - erf(x)`."""
    one = np.ones((), equation.outvars[0].aval.dtype)
    return graph.add("Sub", one, graph.add("Erf", x))


def _type(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
