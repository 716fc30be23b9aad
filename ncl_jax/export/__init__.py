"""A model and a search as files that run without ncl_jax: StableHLO for JAX, or ONNX.

The story: `folder.write` takes `functions` (towers, search), stores each in one of the `formats`,
runs the file, and compares. `onnx_model` goes through a function's jaxpr, operation by operation
(`onnx_rules`, `onnx_operations`), into a graph (`onnx_graph`).
"""
