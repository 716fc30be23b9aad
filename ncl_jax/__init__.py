"""Text-video retrieval by Normalized Contrastive Learning, in JAX and Flax.

    losses, sinkhorn, metrics, normalizers    the library: arrays in, arrays out
    RetrievalIndex                            exact search with a bias per item
    load                                      a finished training run as encoders

A name is imported when it is first used, so `import ncl_jax` itself imports neither JAX nor NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncl_jax import losses, metrics, normalizers, sinkhorn
    from ncl_jax.index import RetrievalIndex
    from ncl_jax.pretrained.model import load

__version__ = "0.1.0"
__all__ = ["RetrievalIndex", "load", "losses", "metrics", "normalizers", "sinkhorn"]

_HOMES = {
    "RetrievalIndex": "ncl_jax.index",
    "load": "ncl_jax.pretrained.model",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name)
    if home is None:
        return importlib.import_module(f"{__name__}.{name}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
