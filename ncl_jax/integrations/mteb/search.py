"""Retrieval by normalised scores: mteb encodes and ranks, an index of ours scores.

mteb's own search scores the corpus in chunks, and a similarity sees a chunk at a time. A bias
needs the whole corpus. So mteb embeds, through an index that keeps what it is given
(`mteb.IndexEncoderSearchProtocol`), and the scores of all items are taken here. mteb's own way from
an index to its results reads the id of every result from the data set, at 120 microseconds each.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from mteb.models import ModelMeta, SearchEncoderWrapper
from mteb.models.model_meta import ScoringFunction

from ncl_jax import metrics
from ncl_jax.errors import InputError
from ncl_jax.integrations.mteb.bank import TaskBank, check_unseen, digest, text_bank
from ncl_jax.integrations.rows import paired_ids, rows_of, unit
from ncl_jax.normalizers import Auto, Bank, Fitted, SinkhornTest

LENGTH = 1e-3
"""How far from 1 the length of an embedding may be where the similarity is the inner product."""


class _KeptRows:
    """An index of mteb that keeps the embeddings it is given and finds nothing."""

    items: np.ndarray
    queries: np.ndarray

    def add_documents(self, embeddings: Any, idxs: Sequence[str]) -> None:
        self.items = rows_of(embeddings, "items")

    def search(self, embeddings: Any, *args: Any, **kwargs: Any) -> tuple[list[Any], list[Any]]:
        self.queries = rows_of(embeddings, "queries")
        nothing: list[Any] = [[]] * len(self.queries)
        return nothing, nothing

    def clear(self) -> None:
        """Nothing: the embeddings are what it is for."""


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
        self._indexed: tuple[SearchEncoderWrapper, list[str], Fitted] | None = None

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Embeds the corpus and the bank, and fits the normaliser.

        Args:
          corpus: documents of mteb.
          kwargs: of mteb, handed on.

        Raises:
          ValueError: embeddings or a bank that do not fit.
        """
        bank = self._bank(corpus, **kwargs)
        embedding = SearchEncoderWrapper(self.encoder, index_backend=_KeptRows())
        embedding.index(corpus, **kwargs)
        fitted = self.normalizer.fit(bank, self._unit(embedding.index_backend.items, "documents"))
        self._indexed = embedding, list(corpus["id"]), fitted
        place = (kwargs["task_metadata"].name, kwargs["hf_subset"], kwargs["hf_split"])
        self.evidence[place] = getattr(fitted, "evidence", {})

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Any = None, **kwargs: Any
    ) -> dict[str, dict[str, float]]:
        """Query -> item -> score in logits.

        Args:
          queries: of mteb.
          top_k: items per query.
          top_ranked: query -> the items to be reranked; None for all.
          kwargs: of mteb, handed on.

        Raises:
          ValueError: nothing was indexed, or embeddings that do not fit.
        """
        if self._indexed is None:
            raise InputError("expected an indexed corpus; call index first")
        (embedding, items, fitted), self._indexed = self._indexed, None
        embedding.search(queries, top_k=top_k, **kwargs)
        scores = fitted.lazy(self._unit(embedding.index_backend.queries, "queries"))
        names, place = list(queries["id"]), {name: n for n, name in enumerate(items)}
        found: dict[str, dict[str, float]] = {}
        for rows, block in metrics.row_blocks(scores):
            for query, row in zip(np.arange(len(names))[rows].tolist(), block, strict=True):
                ranked = None if top_ranked is None else top_ranked.get(names[query], [])
                own = np.arange(len(row)) if ranked is None else [place[n] for n in ranked]
                best = np.asarray(own, np.int64)[_largest(row[own], top_k)]
                found[names[query]] = {items[n]: float(row[n]) for n in best}
        return found

    def _bank(self, corpus: Any, **kwargs: Any) -> Bank | None:
        raise NotImplementedError

    def _unit(self, rows: np.ndarray, what: str) -> np.ndarray:
        product = self.encoder.mteb_model_meta.similarity_fn_name is ScoringFunction.DOT_PRODUCT
        length = np.linalg.norm(rows, axis=1)
        if product and np.abs(length - 1).max(initial=0) > LENGTH:
            raise InputError(
                f"{what}: expected embeddings of length 1, got lengths from {length.min():.3g} to "
                f"{length.max():.3g}: this encoder's similarity is the inner product, which is "
                "normalised only where it is the cosine"
            )
        return unit(rows)


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
                "at other test queries; use TransductiveSearch, whose results say so"
            )
        if isinstance(bank, str) or not len(bank):
            raise InputError("bank: expected training queries, got none; see training_bank")
        super().__init__(encoder, normalizer, {"bank": digest(bank)})
        self.bank: TaskBank | Sequence[str] = bank
        self._asked: Any = None

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Any = None, **kwargs: Any
    ) -> dict[str, dict[str, float]]:
        """Query -> item -> score in logits; refuses a bank that holds all test queries.

        Args:
          queries: of mteb.
          top_k: items per query.
          top_ranked: query -> the items to be reranked; None for all.
          kwargs: of mteb, handed on.

        Raises:
          ValueError: such a bank, nothing was indexed, or embeddings that do not fit.
        """
        if self._asked is not None:
            check_unseen(self._asked, queries)
        return super().search(queries, top_k=top_k, top_ranked=top_ranked, **kwargs)

    def _bank(self, corpus: Any, **kwargs: Any) -> Bank:
        subset = kwargs["hf_subset"]
        if isinstance(self.bank, dict) and subset not in self.bank:
            raise InputError(
                f"bank: expected queries of the subset {subset!r}, got those of "
                f"{', '.join(self.bank)}; see training_bank"
            )
        bank = self.bank
        data = bank[subset] if isinstance(bank, dict) else text_bank(bank, corpus)
        self._asked = data["queries"]
        kept = _KeptRows()
        embedding = SearchEncoderWrapper(self.encoder, index_backend=kept)
        embedding.index(data["corpus"], **kwargs)
        embedding.search(data["queries"], top_k=1, **kwargs)
        if not isinstance(bank, dict):
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


def _largest(row: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest values, in any order."""
    if count >= len(row):
        return np.arange(len(row))
    return np.argpartition(-row, count)[:count]


def _described(normalizer: Any) -> str:
    """Its name and what differs from the defaults."""
    fields = [f for f in dataclasses.fields(normalizer)
              if getattr(normalizer, f.name) != f.default]  # fmt: skip
    told = ", ".join(f"{f.name}={getattr(normalizer, f.name)!r}" for f in fields)
    return f"{type(normalizer).__name__}({told})"
