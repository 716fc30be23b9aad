"""What each equation of a jaxpr is in ONNX, for the equations that our models use."""

import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from ncl_jax.pretrained.onnx_graph import Graph, Value, unsupported

Rule = Callable[..., Value | list[Value]]
"""(graph, equation, *inputs) -> output, or a list of outputs."""


def run(graph: Graph, closed: Any, inputs: Iterable[Value]) -> list[Value]:
    """Adds all equations; the values of the jaxpr's outputs.

    Raises:
      InputError: an equation has no rule.
    """
    jaxpr, stored = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
    known = dict(zip(jaxpr.constvars, map(np.asarray, stored), strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def value(atom: Any) -> Value:
        return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        outputs = _apply(graph, equation, [value(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, outputs, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, inputs: list[Value]) -> Sequence[Value]:
    name = equation.primitive.name
    if name in CALLS:
        return run(graph, next(equation.params[key] for key in CALLS[name]), inputs)
    if name != "scan" and _is_known(equation, inputs):
        return _computed(graph, equation, inputs)
    if name not in RULES:
        raise unsupported(repr(name))
    outputs = RULES[name](graph, equation, *inputs)
    return outputs if isinstance(outputs, list) else [outputs]


def _is_known(equation: Any, inputs: list[Value]) -> bool:
    sizes = [size for variable in equation.outvars for size in variable.aval.shape]
    arrays = all(isinstance(x, np.ndarray) for x in inputs)
    return arrays and all(isinstance(size, int) for size in sizes)


def _computed(graph: Graph, equation: Any, inputs: list[Any]) -> list[Value]:
    """By JAX; what comes of one array keeps its name."""
    got = equation.primitive.bind(*inputs, **equation.params)
    arrays = [np.asarray(x) for x in (got if equation.primitive.multiple_results else [got])]
    if len(inputs) == 1:
        arrays = [graph.name(array, graph.name_of(inputs[0])) for array in arrays]
    return list(arrays)


def _shape(variable: Any) -> tuple[Any, ...]:
    return tuple(variable.aval.shape)


def _ints(values: Iterable[Any]) -> np.ndarray:
    return np.asarray([int(value) for value in values], np.int64)


def _node(operation: str) -> Rule:
    return lambda graph, equation, *inputs: graph.add(operation, *inputs)


def _reduce(operation: str) -> Rule:
    return lambda graph, equation, x: graph.add(
        operation, x, _ints(equation.params["axes"]), keepdims=0
    )


def _reshaped(graph: Graph, x: Value, old: Sequence[Any], new: Sequence[Any]) -> Value:
    """At most one size is symbolic: the one that ONNX finds by itself."""
    if tuple(old) == tuple(new):
        return x
    sizes = [size if isinstance(size, int) else -1 for size in new]
    if sizes.count(-1) > 1:
        raise unsupported(f"a reshape to {tuple(new)}")
    return graph.add("Reshape", x, _ints(sizes))


def reshape(graph: Graph, equation: Any, x: Value) -> Value:
    """Also expand_dims and squeeze."""
    return _reshaped(graph, x, _shape(equation.invars[0]), _shape(equation.outvars[0]))


def broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    """New axes of size 1, which are then repeated where they have to be."""
    old, new = _shape(equation.invars[0]), _shape(equation.outvars[0])
    thin: list[Any] = [1] * len(new)
    for size, axis in zip(old, equation.params["broadcast_dimensions"], strict=True):
        thin[axis] = size
    x = _reshaped(graph, x, old, thin)
    if thin == list(new):
        return x
    return graph.add(
        "Expand", x, graph.shape([1 if a == b else b for a, b in zip(thin, new, strict=True)])
    )


def dot(graph: Graph, equation: Any, x: Value, y: Value) -> Value:
    """A matrix product where it is one, else Einsum."""
    (sum_x, sum_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    ranks = [len(_shape(variable)) for variable in equation.invars]
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
    shape, places = _shape(equation.invars[0]), _shape(equation.invars[1])
    batch, axes = tuple(numbers.operand_batching_dims), tuple(numbers.start_index_map)
    rest = [size for axis, size in enumerate(shape) if axis not in (*axes, *batch)]
    whole = [size for axis, size in enumerate(sizes) if axis not in (*axes, *batch)] == rest
    if len(axes) != 1 or not whole or batch != tuple(range(len(batch))):
        raise unsupported(f"a gather by {numbers}")
    axis, out = axes[0], _shape(equation.outvars[0])
    if isinstance(index, np.ndarray) and index.shape == (1,) and not batch:
        start = np.clip(index, 0, shape[axis] - sizes[axis])
        cut = graph.add("Slice", x, _ints(start), _ints(start + sizes[axis]), _ints([axis]))
        return _reshaped(graph, cut, (*shape[:axis], sizes[axis], *shape[axis + 1 :]), out)
    first = 0 if batch else axis
    index_axes = range(first, first + len(places) - 1)
    offsets = tuple(i for i in range(len(out)) if i not in index_axes)
    if sizes[axis] != 1 or not numbers.collapsed_slice_dims or numbers.offset_dims != offsets:
        raise unsupported(f"a gather by {numbers}")
    if batch:
        index = graph.add("Cast", index, to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)))
        return graph.add("GatherND", x, index, batch_dims=len(batch))
    return graph.add("Gather", x, _reshaped(graph, index, places, places[:-1]), axis=axis)


def scan(graph: Graph, equation: Any, *inputs: Value) -> list[Value]:
    """Step by step: clips have few frames. Stacked arrays have one axis more outside the body."""
    body, length = equation.params["jaxpr"], equation.params["length"]
    stacked = [
        len(_shape(outer)) > len(_shape(inner))
        for outer, inner in zip(equation.invars, body.jaxpr.invars, strict=True)
    ]
    carries = sum(
        len(_shape(outer)) == len(_shape(inner))
        for outer, inner in zip(equation.outvars, body.jaxpr.outvars, strict=True)
    )
    fixed = [x for x, moves in zip(inputs, stacked, strict=True) if not moves]
    rows = [x for x, moves in zip(inputs, stacked, strict=True) if moves]
    constants, state = fixed[: len(fixed) - carries], fixed[len(fixed) - carries :]
    steps = reversed(range(length)) if equation.params["reverse"] else range(length)
    made: list[list[Value]] = [[] for _ in range(length)]
    for step in steps:
        at = np.asarray(step, np.int64)
        now = [graph.add("Gather", x, at, axis=0) for x in rows]
        result = run(graph, body, [*constants, *state, *now])
        state, made[step] = result[:carries], result[carries:]
    columns = zip(*made, strict=True)
    return [*state, *(_stacked(graph, column) for column in columns)]


def _stacked(graph: Graph, rows: Iterable[Value]) -> Value:
    return graph.add("Concat", *(graph.add("Unsqueeze", x, _ints([0])) for x in rows), axis=0)


def pad(graph: Graph, equation: Any, x: Value, filling: Value) -> Value:
    """At both ends of each axis."""
    low, high, inner = zip(*equation.params["padding_config"], strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise unsupported("padding inside an array, or less than none")
    return graph.add("Pad", x, _ints([*low, *high]), filling)


def select(graph: Graph, equation: Any, which: Value, *cases: Value) -> Value:
    """`cases[which]` of two cases."""
    if len(cases) != 2:
        raise unsupported(f"a choice among {len(cases)}")
    return graph.add("Where", which, cases[1], cases[0])


def split(graph: Graph, equation: Any, x: Value) -> list[Value]:
    """Along one axis."""
    sizes = _ints(equation.params["sizes"])
    axis = int(equation.params["axis"])
    return list(graph.add_many("Split", len(sizes), x, sizes, axis=axis))


def top_k(graph: Graph, equation: Any, x: Value) -> list[Value]:
    """The first of equal ones comes first, in both."""
    count, axis = _ints([equation.params["k"]]), int(equation.params.get("axis", -1))
    best, place = graph.add_many("TopK", 2, x, count, axis=axis, largest=1, sorted=1)
    return [best, graph.add("Cast", place, to=_type(equation.outvars[1].aval.dtype))]


def _type(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _cast(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.add("Cast", x, to=_type(equation.params["new_dtype"]))


def _erfc(graph: Graph, equation: Any, x: Value) -> Value:
    one = np.ones((), equation.outvars[0].aval.dtype)
    return graph.add("Sub", one, graph.add("Erf", x))


CALLS = {
    "jit": ("jaxpr",), "pjit": ("jaxpr",), "closed_call": ("call_jaxpr",),
    "checkpoint": ("jaxpr",), "remat": ("jaxpr",), "remat2": ("jaxpr",),
    "custom_jvp_call": ("call_jaxpr",), "custom_vjp_call": ("call_jaxpr",),
}  # fmt: skip
"""Equations that are calls, and the parameter that holds what is called."""
RULES: dict[str, Rule] = {
    **{name: _node(operation) for name, operation in {
        "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "neg": "Neg",
        "exp": "Exp", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt", "erf": "Erf",
        "and": "And", "lt": "Less", "ge": "GreaterOrEqual",
    }.items()},
    **{name: lambda graph, equation, x: x for name in ("copy", "copy_p", "stop_gradient")},
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "square": lambda graph, equation, x: graph.add("Mul", x, x),
    "rsqrt": lambda graph, equation, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "erfc": _erfc,
    "convert_element_type": _cast,
    "transpose": lambda graph, equation, x: graph.add(
        "Transpose", x, perm=[int(axis) for axis in equation.params["permutation"]]
    ),
    "concatenate": lambda graph, equation, *inputs: graph.add(
        "Concat", *inputs, axis=int(equation.params["dimension"])
    ),
    "reshape": reshape, "squeeze": reshape, "expand_dims": reshape,
    "broadcast_in_dim": broadcast, "dot_general": dot, "gather": gather, "scan": scan,
    "pad": pad, "select_n": select, "split": split, "top_k": top_k,
}  # fmt: skip
