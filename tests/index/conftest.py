"""An index that tests do not change."""

import pytest

from ncl_jax.index import RetrievalIndex
from tests.index.made import names, rows


@pytest.fixture(scope="module")
def index():
    return RetrievalIndex.build(names(300), rows(0, 300), rows(1, 90), scale=20.0, meta={"a": 1})
