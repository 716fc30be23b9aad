"""`normalizers` in the retrieval evaluator of sentence-transformers, and an index of its models.

The evaluator scores the corpus in chunks, and a score function sees a chunk at a time. A bias needs
the whole corpus; so the corpus is embedded first, and every item carries its biases as further
coordinates of its embedding, whatever chunk it comes in.

Needs sentence-transformers (`pip install "ncl_jax[sentence-transformers]"`, or
requirements-mteb.txt).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex
from ncl_jax.integrations.rows import paired_ids, rows_of, unit
from ncl_jax.normalizers import Auto, Bank, BiasFitted

try:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
except ImportError as error:
    raise ImportError(
        "ncl_jax.integrations.sentence_transformers needs sentence-transformers: pip install "
        '"sentence-transformers>=6,<7"'
    ) from error

PLAIN = "cosine"
"""Name of the plain scores among the results."""


class TextBank(NamedTuple):
    """Training queries, in the form in which the evaluator takes its own.

    Attributes:
      queries: id -> text.
      corpus: id -> text; for normalisers that look at training items, as `Auto`.
      relevant_docs: query id -> ids of the items that answer it.

    Example:
      >>> len(TextBank({"q": "a dog runs"}).queries)
      1
    """

    queries: Mapping[str, str]
    corpus: Mapping[str, str] = {}
    relevant_docs: Mapping[str, set[str]] = {}


class NormalizedRetrievalEvaluator(InformationRetrievalEvaluator):
    """The retrieval evaluator with plain and normalised scores side by side.

    Everything else is as in `InformationRetrievalEvaluator`: it can be called with a model or be
    given to a trainer, which then embeds the bank anew at each evaluation.

    Args:
      queries: id -> text of the test queries.
      corpus: id -> text.
      relevant_docs: query id -> ids of the items that answer it.
      bank: training queries; not the test queries.
      normalizers: name in the results -> normaliser with one bias per item. None: {"auto": Auto()}.
      kwargs: of `InformationRetrievalEvaluator`, but for `score_functions`.

    Attributes:
      evidence: name -> what the last fit says, with `Auto` its choice.

    Raises:
      ValueError: an empty bank or one of all test queries, transductive normalisers, or the name
        of the plain scores.

    Example:
      >>> def score(model, test, train):
      ...     bank = TextBank(*train)
      ...     return NormalizedRetrievalEvaluator(*test, bank=bank, name="test")(model)
    """

    def __init__(
        self, queries: Mapping[str, str], corpus: Mapping[str, str],
        relevant_docs: Mapping[str, set[str]], *, bank: TextBank,
        normalizers: Mapping[str, Any] | None = None, **kwargs: Any,
    ):  # fmt: skip
        self.bank, self.normalizers = bank, dict(normalizers or {"auto": Auto()})
        self.evidence: dict[str, dict[str, Any]] = {}
        _check(bank, queries, self.normalizers)
        functions = {PLAIN: _biased(None)}
        functions |= {name: _biased(place) for place, name in enumerate(self.normalizers)}
        super().__init__(
            dict(queries), dict(corpus), dict(relevant_docs), score_functions=functions, **kwargs
        )

    def compute_all_metrics(
        self, model: Any, corpus_model: Any = None, corpus_embeddings: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Metrics of every score: name -> metric -> k -> value.

        Args:
          model: embeds the queries, and the corpus where no other model is given.
          corpus_model: of the corpus.
          corpus_embeddings: tensor [item, dim], instead of embedding the corpus here.
          kwargs: of `InformationRetrievalEvaluator`.

        Raises:
          ValueError: embeddings that do not fit, or a normaliser without one bias per item.
        """
        if corpus_embeddings is None:
            corpus_embeddings = self._documents(corpus_model or model, self.corpus)
        items = unit(rows_of(corpus_embeddings, "corpus"))
        bank, biases = self._embedded_bank(model, corpus_model or model), []
        for name, normalizer in self.normalizers.items():
            fitted = normalizer.fit(bank, items)
            if not isinstance(fitted, BiasFitted):
                raise InputError(
                    f"{name}: expected a normaliser with one bias per item, got "
                    f"{type(normalizer).__name__}; its scores depend on more than the item"
                )
            biases.append(fitted.bias / fitted.scale)
            self.evidence[name] = fitted.evidence
        folded = corpus_embeddings.new_tensor(np.column_stack([items, *biases]))
        return super().compute_all_metrics(model, corpus_model, folded, **kwargs)

    def _embedded_bank(self, model: Any, corpus_model: Any) -> Bank:
        queries, items, relevant = self.bank
        embedded = self.embed_inputs(
            model, list(queries.values()), encode_fn_name="query",
            prompt_name=self.query_prompt_name, prompt=self.query_prompt,
        )  # fmt: skip
        query = unit(rows_of(embedded, "bank queries"))
        if not items:
            return Bank(query)
        item = unit(rows_of(self._documents(corpus_model, list(items.values())), "bank corpus"))
        return Bank(query, item, *paired_ids(list(queries), list(items), relevant))

    def _documents(self, model: Any, texts: Sequence[str]) -> Any:
        return self.embed_inputs(
            model, texts, encode_fn_name="document", prompt_name=self.corpus_prompt_name,
            prompt=self.corpus_prompt,
        )  # fmt: skip


def build_index(
    model: Any, corpus: Mapping[str, str], bank: Sequence[str] = (), *, scale: float = 20.0,
    strength: float = 1.0, **kwargs: Any,
) -> RetrievalIndex:  # fmt: skip
    """A `RetrievalIndex` of texts by any SentenceTransformer, normalised against a bank.

    Search it by `index.search(model.encode_query(texts), k=10)`.

    Args:
      model: a `SentenceTransformer`.
      corpus: id -> text.
      bank: texts that look like the queries to come. None given: plain cosine search.
      scale: logits per cosine; 20 is that of sentence-transformers' losses.
      strength: in [0, 1], as in `normalizers.Ncl`.
      kwargs: of `encode_document` and `encode_query`, as `batch_size`.

    Raises:
      ValueError: an empty corpus, or embeddings that cannot be used.

    Example:
      >>> def search(model, articles, questions, query):
      ...     index = build_index(model, articles, questions)
      ...     return index.search(model.encode_query([query]), k=5).ids[0]
    """
    if isinstance(bank, str) or not corpus:
        raise InputError("expected a corpus {id: text} and a list of texts as bank")
    items = rows_of(model.encode_document(list(corpus.values()), **kwargs), "corpus")
    queries = None
    if len(bank):
        queries = rows_of(model.encode_query(list(bank), **kwargs), "bank")
    return RetrievalIndex.build(list(corpus), items, queries, scale=scale, strength=strength)


def _biased(place: int | None) -> Callable[[Any, Any], Any]:
    """A score function of the evaluator: cosine, plus the bias that stands at `place`."""

    def score(queries: Any, items: Any) -> Any:
        width = queries.shape[1]
        cosine = (queries / queries.norm(dim=1, keepdim=True)) @ items[:, :width].T
        return cosine if place is None else cosine + items[:, width + place]

    return score


def _check(bank: TextBank, queries: Mapping[str, str], normalizers: Mapping[str, Any]) -> None:
    if not bank.queries:
        raise InputError("bank: expected training queries, got none")
    asked = set(queries.values())
    if len(asked) > 1 and asked <= set(bank.queries.values()):
        raise InputError(
            f"bank: expected training queries, got all {len(asked)} test queries among them; leave "
            "them out"
        )
    for name, normalizer in normalizers.items():
        if name == PLAIN:
            raise InputError(f"normalizers: {PLAIN!r} is the name of the plain scores")
        if normalizer.kind != "inductive":
            raise InputError(
                f"{name}: expected an inductive normaliser, got {type(normalizer).__name__}, which "
                "looks at all test queries together"
            )
