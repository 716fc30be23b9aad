"""Large batches in little memory: gradient caching.

A contrastive loss needs the embeddings of the whole batch at once, but not the activations that
made them. Here the towers see a few rows at a time and keep nothing but their inputs; once the
loss has given the gradient of every embedding, each micro-batch is encoded again and its share of
the parameters' gradient added up. The price is one more forward pass.

Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
The two phases are those of a rematerialised function inside a scan, so JAX derives them.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from ncl_jax.errors import InputError

Encode = Callable[..., Float[Array, "batch dim"]]


def in_micro_batches(encode: Encode, micro: int) -> Encode:
    """The same function of (params, *rows), computed `micro` rows at a time.

    Args:
      encode: a function of parameters and arrays with one row per example, that treats every row
        alone. Randomness, as of dropout, comes in as one key per row: so the second forward pass
        draws what the first drew, and the result does not depend on `micro`.
      micro: rows at a time; must divide their number where there are more. 0 for all at once,
        with nothing recomputed.

    Relations: values and gradients equal those of `encode` up to the order of sums.

    Example:
      >>> import jax.numpy as jnp
      >>> square = in_micro_batches(lambda w, x: w * x * x, micro=2)
      >>> jax.grad(lambda w: square(w, jnp.ones((4, 1))).sum())(3.0).item()
      4.0
    """
    if not micro:
        return encode

    def encoded(params: Any, *rows: Array) -> Array:
        count = rows[0].shape[0]
        if count <= micro:
            return encode(params, *rows)
        if count % micro:
            raise InputError(f"micro-batches of {micro} rows do not divide {count} rows")
        parts = [x.reshape(count // micro, micro, *x.shape[1:]) for x in rows]
        # Inside a scan nothing can undo the recomputation, so XLA needs no barrier against it.
        one = jax.checkpoint(lambda part: encode(params, *part), prevent_cse=False)
        embeddings = jax.lax.map(one, parts)
        return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), embeddings)

    return encoded
