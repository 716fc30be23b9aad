"""A JAX function as an ONNX model: each equation of its jaxpr becomes a few nodes.

Nothing but the jaxpr is read, whose equations have kept their names over JAX's releases. What is
known beforehand (weights, masks, positions) is computed by JAX and stored. `onnx_rules` has a rule
for each kind of equation.
"""

from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper

from ncl_jax import __version__
from ncl_jax.export.functions import Function
from ncl_jax.export.onnx_graph import Graph, Tensor
from ncl_jax.export.onnx_rules import run

OPSET = 18


def convert(function: Function) -> onnx.ModelProto:
    """The function as a model that holds its parameters, under their names in our tree.

    Raises:
      InputError: it uses an operation that has no rule.
    """
    closed = jax.make_jaxpr(function.call)(function.params, *function.inputs.values())
    graph = Graph(function)
    leaves = [
        graph.name(np.asarray(leaf), jax.tree_util.keystr(path, simple=True, separator="."))
        for path, leaf in jax.tree_util.tree_flatten_with_path(function.params)[0]
    ]
    results = run(graph, closed, [*leaves, *map(Tensor, function.inputs)])
    for result, name in zip(results, function.outputs, strict=True):
        graph.add("Identity", result)
        graph.nodes[-1].output[0] = name
    outputs = dict(zip(function.outputs, closed.out_avals, strict=True))
    made = helper.make_graph(
        graph.nodes, function.name, _infos(function.inputs), _infos(outputs), graph.stored
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(
        made, opset_imports=opset, ir_version=helper.find_min_ir_version_for(opset),
        producer_name="ncl_jax", producer_version=__version__,
    )  # fmt: skip


def _infos(values: dict[str, Any]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)),
            [size if isinstance(size, int) else str(size) for size in value.shape],
        )
        for name, value in values.items()
    ]  # fmt: skip
