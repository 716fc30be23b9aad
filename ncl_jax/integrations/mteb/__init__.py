"""Models of ours in `mteb`, and any encoder of `mteb` with normalised scores.

    Encoder               a model of `ncl_jax.load` as an encoder of mteb, for text and video tasks
    training_bank         the training queries of a task, as a bank
    NormalizedSearch      a retrieval with scores normalised against a bank: inductive
    TransductiveSearch    the same with all test queries together, under a name that says so

Needs `mteb` (`pip install "ncl_jax[mteb]"`, or requirements-mteb.txt).
"""

try:
    import mteb as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        'ncl_jax.integrations.mteb needs mteb: pip install "mteb>=2.26,<3"'
    ) from error

from ncl_jax.integrations.mteb.bank import TaskBank, training_bank
from ncl_jax.integrations.mteb.encoder import Encoder
from ncl_jax.integrations.mteb.search import NormalizedSearch, TransductiveSearch

__all__ = ["Encoder", "NormalizedSearch", "TaskBank", "TransductiveSearch", "training_bank"]
