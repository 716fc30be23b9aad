"""Public docstrings are contracts: shapes, errors, an example that runs, and every argument."""

import inspect
import re

import numpy as np
import pytest

from ncl_jax.types import Biases
from tests import contracts

UNITS = contracts.units(contracts.modules([f"ncl_jax.{name}" for name in contracts.OURS]))


def test_shares_of_docstrings_that_state_shapes_errors_and_an_example():
    shares = contracts.shares(UNITS)
    assert shares["docstring"] == 100
    assert shares["shapes"] >= 90
    assert shares["errors"] >= 60
    assert shares["errors, of those that raise"] >= 90
    assert shares["example"] >= 60


def test_all_that_the_package_offers_is_measured():
    names = {unit.name for unit in UNITS}
    assert {
        "ncl_jax.losses.ncl", "ncl_jax.losses.infonce", "ncl_jax.sinkhorn.solve",
        "ncl_jax.metrics.text_to_video", "ncl_jax.metrics.hubness", "ncl_jax.normalizers.Ncl",
        "ncl_jax.normalizers.Ncl.fit", "ncl_jax.index.RetrievalIndex",
        "ncl_jax.index.RetrievalIndex.search", "ncl_jax.pretrained.load",
    } <= names  # fmt: skip
    assert not any("._" in name for name in names)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_arguments_that_a_docstring_lists_are_those_of_the_signature(unit):
    section = re.search(r"^Args:\n((?:  .*\n?|\n)+)", unit.text, re.MULTILINE)
    if section:
        listed = re.findall(r"^  (\w+):", section[1], re.MULTILINE)
        assert listed == [p.name for p in unit.parameters if p.name in listed]
        assert {p.name for p in unit.parameters} == set(listed)


def documented(text, annotation=np.ndarray, default=None):
    def call(scores):
        raise ValueError

    call.__doc__, call.__annotations__ = text, {"scores": annotation}
    return contracts.Unit("call", call)


def test_what_a_docstring_leaves_out_is_seen():
    empty = documented("Does it.")
    assert empty.takes_arrays
    assert empty.is_call
    assert empty.raises
    assert not empty.states_shapes
    assert not empty.states_errors
    assert not empty.has_example
    assert documented("Of `scores` [text, video].").states_shapes
    assert not documented("In [0, 1].\n\nRaises:\n  ValueError: shapes do not fit.").states_shapes
    assert documented("Does it.\n\nRaises:\n  ValueError: NaN.").states_errors
    assert documented("Does it.\n\nExample:\n  >>> 1\n  1").has_example
    assert not documented("Does it.", int).takes_arrays
    assert contracts.Unit("Biases", Biases).takes_arrays


def test_a_method_may_have_its_example_in_its_class():
    class Counter:
        """Counts.

        >>> Counter().add(1)
        """

        def add(self, n): ...
        def remove(self, n): ...

    found = list(contracts._with_methods("Counter", Counter))
    assert {unit.name: unit.has_example for unit in found} == {
        "Counter": True, "Counter.add": True, "Counter.remove": False,
    }  # fmt: skip
    assert not inspect.getdoc(Counter.remove)
