# ruff: noqa: E402
"""Normalised scores in sentence-transformers, by its own evaluator: its numbers must be ours.

Needs requirements-mteb.txt; without it every test here is skipped.
"""

import numpy as np
import pytest
import tokenizers

from ncl_jax import metrics
from ncl_jax.errors import InputError
from ncl_jax.normalizers import Auto, Bank, Ncl, QbNorm, SinkhornTest

reason = "needs requirements-mteb.txt: sentence-transformers"
pytest.importorskip("sentence_transformers", reason=reason)

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from ncl_jax.integrations.sentence_transformers import (
    NormalizedRetrievalEvaluator,
    TextBank,
    build_index,
)

WORDS = ("red", "green", "blue", "dark", "bright", "small", "fast", "round", "calm", "loud", "old",
         "new", "wide", "thin")  # fmt: skip


@pytest.fixture(scope="module")
def model():
    """A model of sentence-transformers whose embedding of a text is the mean of its words'."""
    vocabulary = {word: n for n, word in enumerate([*WORDS, "?"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    weights = np.random.default_rng(0).normal(size=(len(vocabulary), 8)).astype(np.float32)
    embedding = StaticEmbedding(tokenizer, embedding_weights=weights)
    return SentenceTransformer(modules=[embedding], device="cpu")


def split(seed, items, per_item=2):
    """(queries, corpus, relevant_docs): a query has three of an item's five words."""
    rng = np.random.default_rng(seed)
    corpus = {f"{n:03}": " ".join(rng.choice(WORDS, 5, replace=False)) for n in range(items)}
    queries, relevant = {}, {}
    for n, (name, text) in enumerate(corpus.items()):
        for m in range(per_item):
            queries[f"q{n}.{m}"] = " ".join(rng.choice(text.split(), 3))
            relevant[f"q{n}.{m}"] = {name}
    return queries, corpus, relevant


TEST, TRAIN = split(1, 40), split(2, 90)


def ours(model, normalizer):
    """Ranks by our own code."""
    rows = [model.encode(list(part.values()), normalize_embeddings=True)
            for part in (*TEST[:2], *TRAIN[:2])]  # fmt: skip
    ids = np.repeat(np.arange(90), 2)
    fitted = normalizer.fit(Bank(rows[2], rows[3], ids, np.arange(90)), rows[1])
    return metrics.ranks_of_texts(fitted.lazy(rows[0]), np.repeat(np.arange(40), 2)), fitted


@pytest.mark.parametrize("chunk", [7, 50_000])
def test_their_numbers_are_ours_whatever_the_chunks(model, chunk):
    scores = {"ncl": Ncl(20.0), "auto": Auto()}
    evaluator = NormalizedRetrievalEvaluator(
        *TEST, bank=TextBank(*TRAIN), normalizers=scores, corpus_chunk_size=chunk, write_csv=False
    )
    found = evaluator(model)
    for name, normalizer in scores.items():
        ranks, fitted = ours(model, normalizer)
        summary = metrics.summarize(ranks)
        assert 0 < summary["R@1"] < 100
        for k in (1, 5, 10):
            assert 100 * found[f"{name}_recall@{k}"] == pytest.approx(summary[f"R@{k}"])
        assert 100 * found[f"{name}_ndcg@10"] == pytest.approx(metrics.ndcg(ranks))
        assert evaluator.evidence[name]["bank"] == fitted.evidence["bank"]
    assert found["ncl_accuracy@1"] != found["cosine_accuracy@1"]


def test_plain_scores_are_those_of_the_evaluator_without_normalisation(model):
    theirs = InformationRetrievalEvaluator(*TEST, write_csv=False)(model)
    bank = TextBank(TRAIN[0])
    found = NormalizedRetrievalEvaluator(
        *TEST, bank=bank, normalizers={"ncl": Ncl(20.0)}, write_csv=False
    )(model)
    plain = {name: value for name, value in found.items() if name.startswith("cosine")}
    assert plain == pytest.approx(theirs)


def test_it_names_its_primary_metric_and_writes_its_table(model, tmp_path):
    evaluator = NormalizedRetrievalEvaluator(
        *TEST, bank=TextBank(TRAIN[0]), normalizers={"ncl": Ncl(20.0)}, name="test"
    )
    found = evaluator(model, output_path=str(tmp_path))
    assert found[evaluator.primary_metric] == max(
        found["test_ncl_ndcg@10"], found["test_cosine_ndcg@10"]
    )
    (table,) = tmp_path.glob("*.csv")
    assert "ncl-Recall@10" in table.read_text()


def test_embeddings_of_the_corpus_may_be_given(model):
    rows = model.encode_document(list(TEST[1].values()), convert_to_tensor=True)
    empty = dict.fromkeys(TEST[1], "")
    given = {"bank": TextBank(TRAIN[0]), "normalizers": {"ncl": Ncl(20.0)}, "write_csv": False}
    found = NormalizedRetrievalEvaluator(TEST[0], empty, TEST[2], **given)(
        model, corpus_embeddings=3 * rows
    )
    assert found == pytest.approx(NormalizedRetrievalEvaluator(*TEST, **given)(model))


@pytest.mark.parametrize(
    ("bank", "normalizers", "said"),
    [
        (TextBank({}), None, "expected training queries, got none"),
        (TextBank(TEST[0]), None, "got all 80 test queries among them"),
        (TextBank(TRAIN[0]), {"s": SinkhornTest()}, "expected an inductive normaliser, got Sinkh"),
        (TextBank(TRAIN[0]), {"cosine": Ncl()}, "'cosine' is the name of the plain scores"),
    ],
)
def test_what_would_not_be_a_fair_score_is_refused(bank, normalizers, said):
    with pytest.raises(InputError, match=said):
        NormalizedRetrievalEvaluator(*TEST, bank=bank, normalizers=normalizers)


def test_normalisers_without_one_bias_per_item_are_refused(model):
    evaluator = NormalizedRetrievalEvaluator(
        *TEST, bank=TextBank(TRAIN[0]), normalizers={"q": QbNorm()}
    )
    with pytest.raises(InputError, match="q: expected a normaliser with one bias per item, got Qb"):
        evaluator(model)


def test_an_index_of_texts_ranks_as_ncl_does(model):
    index = build_index(model, TEST[1], list(TRAIN[0].values()), scale=20.0, batch_size=16)
    found = index.search(model.encode_query(list(TEST[0].values())), k=1).ids
    hits = [names[0] in TEST[2][query] for names, query in zip(found, TEST[0], strict=True)]
    ranks, _ = ours(model, Ncl(20.0))
    assert 100 * np.mean(hits) == pytest.approx(metrics.summarize(ranks, "optimistic")["R@1"])
    assert not build_index(model, TEST[1]).bias.any()
    with pytest.raises(InputError, match="expected a corpus"):
        build_index(model, {}, ["a"])
