"""Each mutation still finds its place; `python -m tests.mutations` runs the tests against them."""

import shutil

import pytest

from tests import mutations


@pytest.mark.parametrize("name", mutations.MUTATIONS)
def test_mutation_applies(name, tmp_path):
    mutation = mutations.MUTATIONS[name]
    shutil.copytree(mutations.ROOT / "ncl_jax", tmp_path / "ncl_jax")
    before = (tmp_path / mutation.file).read_text()
    mutations.apply(mutation, tmp_path)
    after = (tmp_path / mutation.file).read_text()
    assert after != before
    compile(after, mutation.file, "exec")
