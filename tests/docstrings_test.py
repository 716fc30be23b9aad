"""The examples in docstrings run and give what they say."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("ncl_jax", "configs")
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text()
)


COMPILES_A_MODEL = {"ncl_jax.models.clip"}


@pytest.mark.parametrize(
    "name", [pytest.param(m, marks=[pytest.mark.slow] * (m in COMPILES_A_MODEL)) for m in MODULES]
)
def test_examples_in_docstrings_run(name):
    if name.startswith("ncl_jax.integrations."):
        pytest.importorskip(name, reason="needs requirements-mteb.txt", exc_type=ImportError)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed
