"""Annotations as checks: in the fast tests every call of the library is held to its own types.

jaxtyping's import hook wraps the functions of `ROOMS` as they are imported: shapes, dtypes and
choices must be what the signature says, and equal axis names must have equal lengths.
"""

import jaxtyping
from beartype import BeartypeConf, beartype

ROOMS = (
    "ncl_jax.evaluation", "ncl_jax.index", "ncl_jax.losses", "ncl_jax.metrics", "ncl_jax.models",
    "ncl_jax.normalizers", "ncl_jax.scores", "ncl_jax.sinkhorn",
)  # fmt: skip

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An `int` serves where a `float` is declared, as for the static type checker."""


def install() -> None:
    """To be called before anything imports `ncl_jax`."""
    jaxtyping.install_import_hook(ROOMS, "tests.typecheck.checked")
