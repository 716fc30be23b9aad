"""What each equation of a jaxpr is in ONNX, for the equations that our models use."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ncl_jax.export import onnx_operations as operations
from ncl_jax.export.onnx_graph import Graph, Value, unsupported
from ncl_jax.export.onnx_operations import ints, shape_of

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
        return run(graph, equation.params[CALLS[name]], inputs)
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


def scan(graph: Graph, equation: Any, *inputs: Value) -> list[Value]:
    """Step by step: clips have few frames. Stacked arrays have one axis more outside the body."""
    body, length = equation.params["jaxpr"], equation.params["length"]
    stacked = [
        len(shape_of(outer)) > len(shape_of(inner))
        for outer, inner in zip(equation.invars, body.jaxpr.invars, strict=True)
    ]
    carries = sum(
        len(shape_of(outer)) == len(shape_of(inner))
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
    return graph.add("Concat", *(graph.add("Unsqueeze", x, ints([0])) for x in rows), axis=0)


def _node(operation: str) -> Rule:
    return lambda graph, equation, *inputs: graph.add(operation, *inputs)


def _reduce(operation: str) -> Rule:
    return lambda graph, equation, x: graph.add(
        operation, x, ints(equation.params["axes"]), keepdims=0
    )


CALLS = {"jit": "jaxpr", "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Equations that are calls, and the parameter that holds what is called."""
RULES: dict[str, Rule] = {
    **{name: _node(operation) for name, operation in {
        "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "neg": "Neg",
        "exp": "Exp", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt", "erf": "Erf",
        "and": "And", "lt": "Less", "ge": "GreaterOrEqual",
    }.items()},
    **{name: lambda graph, equation, x: x for name in ("copy", "stop_gradient")},
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "square": lambda graph, equation, x: graph.add("Mul", x, x),
    "rsqrt": lambda graph, equation, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "transpose": lambda graph, equation, x: graph.add(
        "Transpose", x, perm=[int(axis) for axis in equation.params["permutation"]]
    ),
    "concatenate": lambda graph, equation, *inputs: graph.add(
        "Concat", *inputs, axis=int(equation.params["dimension"])
    ),
    "scan": scan,
    "reshape": operations.reshape, "squeeze": operations.reshape,
    "broadcast_in_dim": operations.broadcast, "dot_general": operations.dot,
    "gather": operations.gather, "pad": operations.pad, "select_n": operations.select,
    "split": operations.split, "top_k": operations.top_k, "erfc": operations.erfc,
    "convert_element_type": operations.cast,
}  # fmt: skip
"""Equation -> what it becomes."""
