#!/usr/bin/env bash
# Of equal scores mteb ranks the larger id first and sentence-transformers the smaller one.
#
# Three items have the same score, as where a corpus repeats a text. From two evaluators of the same
# field one expects the same recall. mteb 2.26.24 (through pytrec_eval) puts the largest id first,
# sentence-transformers 6.2.0 the smallest: by one of them R@1 is 0, by the other 1, and renaming the
# items turns it round. Neither gives the mean of the places that tied items share.
#
# Seen with Python 3.11:
#   right item a: mteb recall@1 0.0, sentence-transformers 1.0
#   right item b: mteb recall@1 0.0, sentence-transformers 0.0
#   right item c: mteb recall@1 1.0, sentence-transformers 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0
"$folder/env/bin/pip" install -q mteb==2.26.24 sentence-transformers==6.2.0
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore - << 'PYTHON'
import torch
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator


class Equal:
    """A model that gives every text the same embedding."""

    similarity_fn_name = "cosine"

    def encode_query(self, texts, **kwargs):
        return torch.ones(len(texts), 2)

    encode_document = encode_query

    def similarity(self, one, other):
        return torch.nn.functional.normalize(one) @ torch.nn.functional.normalize(other).T


for right, expected in (("a", (0.0, 1.0)), ("b", (0.0, 0.0)), ("c", (1.0, 0.0))):
    evaluator = InformationRetrievalEvaluator(
        {"q": "query"}, dict.fromkeys("abc", "item"), {"q": {right}}, write_csv=False
    )
    scores = evaluator.compute_all_metrics
    evaluator.score_functions = {"cosine": Equal().similarity}
    evaluator.score_function_names = ["cosine"]
    theirs = float(scores(Equal())["cosine"]["recall@k"][1])
    given = {"q": dict.fromkeys("abc", 1.0)}
    mteb = float(calculate_retrieval_scores(given, {"q": {right: 1}}, [1]).recall["Recall@1"])
    print(f"right item {right}: mteb recall@1 {mteb}, sentence-transformers {theirs}")
    assert (mteb, theirs) == expected
PYTHON
