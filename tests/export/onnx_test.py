"""The rules from jaxpr to ONNX, each against JAX; onnxruntime is the judge."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from ncl_jax.errors import InputError
from ncl_jax.export import functions
from ncl_jax.models import clip
from tests import tiny

onnx = pytest.importorskip("onnx", reason="needs requirements-export.txt: onnx")
ort = pytest.importorskip("onnxruntime", reason="needs requirements-export.txt: onnxruntime")

from ncl_jax.export import onnx_model, onnx_rules  # noqa: E402

ROWS = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)


def outputs(function, *inputs):
    """What onnxruntime makes of the function, whose model passes ONNX's own checks."""
    model = onnx_model.convert(function)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(function.inputs, inputs, strict=True)))


def function_of(call, params, *inputs):
    """`call` as a function whose inputs have a first axis of any size."""
    (size,) = export.symbolic_shape("row")
    specs = {
        f"x{n}": jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for n, x in enumerate(inputs)
    }  # fmt: skip
    return functions.Function(
        "f", lambda p, *x: (call(p["p"], *x),), {"p": params}, specs, ("y",), lambda *_: (),
        lambda *_: 0.0,
    )  # fmt: skip


def backwards(p, x):
    def step(carry, row):
        return carry + p * row, carry * row

    return lax.scan(step, x[:, 0], x.swapaxes(0, 1), reverse=True)[1]


CALLS = {
    "scan from the end": (backwards, (ROWS,)),
    "columns by constant numbers": (lambda p, x: x[:, 2] + x[:, -2], (ROWS,)),
    "an axis dropped": (
        lambda p, x: lax.squeeze(x[:, :1], (1,)) + lax.sqrt(jnp.square(x[:, 1])), (ROWS,)
    ),
    "a slice": (lambda p, x: x[:, 1:3] * p, (ROWS,)),
    "batched product": (lambda p, x: jnp.einsum("brd,bsd->bsr", x, x + p), (ROWS,)),
    "rows of a table": (
        lambda p, x, i: p[i] + x[:, :1],
        (ROWS, np.array([[2, 0], [1, 1], [0, 2], [2, 2], [0, 1]], np.int32)),
    ),
    "one row of each": (
        lambda p, x, i: jnp.take_along_axis(x, i[:, None, None], axis=1),
        (ROWS, np.array([2, 0, 1, 1, 0], np.int32)),
    ),
    "split and joined": (
        lambda p, x: jnp.concatenate(jnp.split(x, 2, axis=-1)[::-1], axis=1), (ROWS,)
    ),
    "padded": (lambda p, x: jnp.pad(x, ((0, 0), (2, 0), (0, 1)), constant_values=7.0), (ROWS,)),
    "chosen": (lambda p, x, m: jnp.where(m[..., None], x, -x), (ROWS, ROWS[..., 0] > 0)),
    "a call that is recomputed": (lambda p, x: jax.checkpoint(jnp.tanh)(x * p), (ROWS,)),
    "a function with its own gradient": (lambda p, x: jax.nn.relu(x) * p, (ROWS,)),
    "a new axis as long as the batch": (
        lambda p, x: jnp.broadcast_to(jnp.arange(4.0), (2, x.shape[0], 4)) @ p, (ROWS,)
    ),
    "twice as many rows": (lambda p, x: jnp.broadcast_to(p, (2 * x.shape[0], 4)), (ROWS,)),
    "only constants": (lambda p, x: p * 2, (ROWS,)),
    "erf and its complement": (lambda p, x: lax.erf(x) + jax.nn.gelu(x, False), (ROWS,)),
    "top 2, with ties": (lambda p, x: lax.top_k(x[:, 0], 2)[1], (np.round(ROWS),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_rule_gives_the_numbers_of_jax(name):
    call, inputs = CALLS[name]
    table = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    params = table if name == "rows of a table" else np.float32([1.5, -0.5, 2.0, 1.0])
    got = outputs(function_of(call, params, *inputs), *inputs)
    want = np.asarray(call(jnp.asarray(params), *map(jnp.asarray, inputs)))
    assert got[0].dtype == want.dtype
    np.testing.assert_allclose(got[0], want, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda p, x: jnp.cumsum(x, axis=1), "cumsum"),
        (lambda p, x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0))), "padding inside"),
        (lambda p, x: x[:, jnp.array([0, 1]), jnp.array([2, 3])], "gather"),
        (lambda p, x: lax.select_n(jnp.int32(x[:, 0]), *[x[:, 0]] * 3), "choice among 3"),
        (lambda p, x: jnp.zeros((x.shape[0] + 1, 2)), r"row \+ 1"),
    ],
)
def test_what_has_no_rule_is_named(call, named):
    with pytest.raises(InputError, match=rf"(?s){named}.*use --format stablehlo"):
        outputs(function_of(call, np.float32(1.0), ROWS), ROWS)


@functools.cache
def towers(**changes):
    sizes = dataclasses.replace(tiny.SIZES, **changes)
    return (*clip.functional(tiny.model(sizes)), sizes)


def check(function, batches=(1, 3, 5)):
    model = onnx_model.convert(function)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in batches:
        inputs = function.example(np.random.default_rng(batch), batch)
        got = session.run(None, dict(zip(function.inputs, inputs, strict=True)))
        assert function.error(inputs, tuple(got)) < 1e-5
    return model


HEADS = [
    ("meanP", 3, "gelu"), ("seqLSTM", 1, "quick_gelu"), ("seqTransf", 3, "quick_gelu"),
    ("tightTransf", 1, "gelu"),
]  # fmt: skip
REST = [
    (head, frames, activation)
    for head in ("meanP", "seqLSTM", "seqTransf", "tightTransf") for frames in (1, 3)
    for activation in ("quick_gelu", "gelu") if (head, frames, activation) not in HEADS
]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "frames", "activation"),
    [*HEADS, *(pytest.param(*x, marks=pytest.mark.slow) for x in REST)],
)
@pytest.mark.usefixtures("unchecked")  # tightTransf returns its frames
def test_video_towers_give_the_numbers_of_jax(head, frames, activation):
    model, params, sizes = towers(temporal=head, patch_frames=frames, activation=activation)
    check(functions.video(model, params, sizes, sizes.max_frames), (1, 3))


@pytest.mark.parametrize(
    "changes", [{"activation": "gelu"}, {"temporal": "tightTransf"}, {"remat": True}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_text_towers_give_the_numbers_of_jax(changes):
    model, params, sizes = towers(**changes)
    check(functions.text(model, params, sizes, 6))


def test_a_model_has_names_of_our_tree_and_free_first_axes():
    made = onnx_model.convert(functions.text(*towers(), 8))
    assert {x.name for x in made.graph.initializer} >= {
        "text_model.embeddings.token_embedding.embedding", "text_projection.kernel",
        "text_model.encoder.layers.0.mlp.fc1.bias",
    }  # fmt: skip
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*made.graph.input, *made.graph.output)
    }
    assert shapes == {"tokens": ["text", 8], "token_mask": ["text", 8], "embedding": ["text", 16]}
    assert (made.opset_import[0].version, made.ir_version) == (onnx_model.OPSET, 8)
    numbers = sum(int(np.prod(x.dims)) for x in made.graph.initializer)
    text = {k: v for k, v in towers()[1].items() if k.startswith("text")}
    assert numbers < 1.2 * sum(x.size for x in jax.tree.leaves(text))  # only what it needs


def test_a_rule_that_is_wrong_is_seen(monkeypatch):
    monkeypatch.setitem(
        onnx_rules.RULES, "logistic", lambda graph, equation, x: graph.add("Tanh", x)
    )
    with pytest.raises(AssertionError):
        check(functions.text(*towers(), 8), (3,))
