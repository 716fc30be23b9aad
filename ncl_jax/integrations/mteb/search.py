"""Retrieval by normalised scores: mteb encodes and ranks, an index of ours scores.

mteb's own search scores the corpus in chunks, and a similarity sees a chunk at a time. A bias
needs the whole corpus, so the scores come from where mteb takes those of FAISS: an index that is
given all documents first (`indexes`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mteb.models import ModelMeta, SearchEncoderWrapper
from mteb.models.model_meta import ScoringFunction

from ncl_jax.errors import InputError
from ncl_jax.integrations.mteb.bank import TaskBank, check_unseen, digest, text_bank
from ncl_jax.integrations.mteb.indexes import FittedIndex, KeptRows
from ncl_jax.integrations.rows import paired_ids, unit
from ncl_jax.normalizers import Auto, Bank, SinkhornTest


class _Search:
    """A `mteb.SearchProtocol` of any encoder and any normaliser; see `NormalizedSearch`."""

    def __init__(self, encoder: Any, normalizer: Any, settings: dict[str, str]):
        self.encoder, self.normalizer = encoder, normalizer
        meta: ModelMeta = encoder.mteb_model_meta
        known = (ScoringFunction.COSINE, ScoringFunction.DOT_PRODUCT, None)
        if meta.similarity_fn_name not in known:
            raise InputError(
                f"{meta.name}: expected an encoder whose similarity is the cosine, got "
                f"{meta.similarity_fn_name}; normalise another encoder"
            )
        # Part of where mteb stores results: else those of the plain encoder would be returned.
        kwargs = {**(meta.experiment_kwargs or {}), "normalizer": _described(normalizer)}
        self.mteb_model_meta = meta.model_copy(update={"experiment_kwargs": kwargs | settings})
        self.evidence: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._search: SearchEncoderWrapper | None = None

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Embeds the corpus and the bank, and fits the normaliser.

        Args:
          corpus: documents of mteb.
          kwargs: of mteb, handed on.

        Raises:
          ValueError: embeddings or a bank that do not fit.
        """
        bank = self._bank(corpus, **kwargs)
        unit_only = self.encoder.mteb_model_meta.similarity_fn_name is ScoringFunction.DOT_PRODUCT
        backend = FittedIndex(lambda gallery: self.normalizer.fit(bank, gallery), unit_only)
        self._search = SearchEncoderWrapper(self.encoder, index_backend=backend)
        self._search.index(corpus, **kwargs)
        place = (kwargs["task_metadata"].name, kwargs["hf_subset"], kwargs["hf_split"])
        self.evidence[place] = getattr(backend.fitted, "evidence", {})

    def search(self, queries: Any, **kwargs: Any) -> dict[str, dict[str, float]]:
        """Query -> item -> score in logits, of the best `top_k` items or of those to be reranked.

        Args:
          queries: of mteb.
          kwargs: of mteb, handed on.

        Raises:
          ValueError: nothing was indexed, or embeddings that do not fit.
        """
        if self._search is None:
            raise InputError("expected an indexed corpus; call index first")
        search, self._search = self._search, None
        return dict(search.search(queries, **kwargs))

    def _bank(self, corpus: Any, **kwargs: Any) -> Bank | None:
        raise NotImplementedError


class NormalizedSearch(_Search):
    """Any encoder of mteb with scores normalised against a bank of training queries.

    A `mteb.SearchProtocol`, for retrieval and reranking tasks; each test query is scored the same
    whatever the other test queries are. Results are stored under the encoder's name with
    normaliser and bank, so they are not mixed with plain ones.

    Args:
      encoder: of mteb, with the cosine as similarity: `mteb.get_model(...)`, `Encoder`, or a
        `mteb.SentenceTransformerEncoderWrapper`.
      bank: as from `training_bank`; or texts that look like the queries, for normalisers that
        need no items.
      normalizer: an inductive one of `ncl_jax.normalizers`.

    Attributes:
      evidence: (task, subset, split) -> what the fit says, with `Auto` its choice.

    Raises:
      ValueError: a transductive normaliser, an empty bank, or an encoder without a cosine.

    Example:
      >>> import mteb
      >>> def score(encoder, task):
      ...     plain = mteb.evaluate(encoder, task)
      ...     return plain, mteb.evaluate(NormalizedSearch(encoder, training_bank(task)), task)
    """

    def __init__(self, encoder: Any, bank: TaskBank | Sequence[str], normalizer: Any = None):
        normalizer = Auto() if normalizer is None else normalizer
        if normalizer.kind != "inductive":
            raise InputError(
                f"expected an inductive normaliser, got {type(normalizer).__name__}, which looks "
                "at all test queries together; use TransductiveSearch, whose results say so"
            )
        if isinstance(bank, str) or not len(bank):
            raise InputError("bank: expected training queries, got none; see training_bank")
        super().__init__(encoder, normalizer, {"bank": digest(bank)})
        self.bank, self._asked = bank, None

    def search(self, queries: Any, **kwargs: Any) -> dict[str, dict[str, float]]:
        """As of the class; refuses a bank that holds all test queries.

        Args:
          queries: of mteb.
          kwargs: of mteb, handed on.

        Raises:
          ValueError: such a bank.
        """
        check_unseen(self._asked, queries)
        return super().search(queries, **kwargs)

    def _bank(self, corpus: Any, **kwargs: Any) -> Bank:
        subset = kwargs["hf_subset"]
        if isinstance(self.bank, dict) and subset not in self.bank:
            raise InputError(
                f"bank: expected queries of the subset {subset!r}, got those of "
                f"{', '.join(self.bank)}; see training_bank"
            )
        texts = not isinstance(self.bank, dict)
        data = text_bank(self.bank, corpus) if texts else self.bank[subset]
        self._asked = data["queries"]
        kept = KeptRows()
        embedding = SearchEncoderWrapper(self.encoder, index_backend=kept)
        embedding.index(data["corpus"], **kwargs)
        embedding.search(data["queries"], top_k=1, **kwargs)
        if texts:
            return Bank(unit(kept.queries))
        names = list(data["queries"]["id"]), list(data["corpus"]["id"])
        return Bank(unit(kept.queries), unit(kept.items),
                    *paired_ids(*names, data["relevant_docs"]))  # fmt: skip


class TransductiveSearch(_Search):
    """Any encoder of mteb with scores normalised over all test queries together.

    A deployed system cannot do this: never compare it with plain or inductive results. The word
    stands in what mteb stores.

    Args:
      encoder: as in `NormalizedSearch`.
      normalizer: a transductive one, `SinkhornTest` or `Dsl`.

    Raises:
      ValueError: an inductive normaliser, or an encoder without a cosine.
    """

    def __init__(self, encoder: Any, normalizer: Any = None):
        normalizer = SinkhornTest() if normalizer is None else normalizer
        if normalizer.kind != "transductive":
            raise InputError(
                f"expected a transductive normaliser, got {type(normalizer).__name__}; use "
                "NormalizedSearch with a bank"
            )
        super().__init__(encoder, normalizer, {"looks_at": "all test queries, transductive"})

    def _bank(self, corpus: Any, **kwargs: Any) -> None:
        return None


def _described(normalizer: Any) -> str:
    """Its name and what differs from the defaults."""
    fields = [f for f in dataclasses.fields(normalizer)
              if getattr(normalizer, f.name) != f.default]  # fmt: skip
    told = ", ".join(f"{f.name}={getattr(normalizer, f.name)!r}" for f in fields)
    return f"{type(normalizer).__name__}({told})"
