"""Banks: the training queries of a task, and what keeps test queries out of them."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import datasets
from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

from ncl_jax.errors import InputError

TaskBank = dict[str, dict[str, Any]]
"""Subset -> mteb's `RetrievalSplitData` of training queries, their items and what answers what."""


def training_bank(task: Any, split: str = "train", queries: int | None = None) -> TaskBank:
    """The queries of a split that a retrieval task is not evaluated on, with their items.

    A split that the task has loaded is taken from it, as from tasks that load data in their own
    way; others are fetched from the task's dataset.

    Args:
      task: a retrieval task of mteb.
      split: of training queries.
      queries: at most so many, drawn by a fixed seed; None for all. Items that answer none of them
        are left out, so this bounds the time of embedding the bank.

    Returns:
      {subset: data} for `NormalizedSearch`.

    Raises:
      ValueError: the task is evaluated on this split, has no such split, or is no retrieval task.

    Example:
      >>> import mteb
      >>> try:
      ...     training_bank(mteb.get_task("MSVDT2VRetrieval"), "test")
      ... except ValueError as error:
      ...     print(str(error).partition(";")[0])
      MSVDT2VRetrieval: expected a split of training queries, got 'test', which it is evaluated on
    """
    name = task.metadata.name
    if split in task.metadata.eval_splits or split in task.eval_splits:
        raise InputError(
            f"{name}: expected a split of training queries, got {split!r}, which it is evaluated "
            "on; name another split, give captions as a bank, or use TransductiveSearch"
        )
    subsets = task.hf_subsets if task.metadata.is_multilingual else ["default"]
    return {subset: _drawn(_data(task, subset, split), queries) for subset in subsets}


def text_bank(captions: Sequence[str], corpus: datasets.Dataset) -> dict[str, Any]:
    """A bank of texts alone. mteb embeds queries only beside a corpus: one item of the task's."""
    texts = list(captions)
    queries = {"id": [str(n) for n in range(len(texts))], "text": texts}
    return {
        "queries": datasets.Dataset.from_dict(queries), "corpus": corpus.select([0]),
        "relevant_docs": {},
    }  # fmt: skip


def check_unseen(bank: datasets.Dataset, queries: datasets.Dataset) -> None:
    """Refuses a bank that holds every test query, where queries are texts.

    Raises:
      ValueError: as said.
    """
    if not {"text"} <= set(bank.column_names) & set(queries.column_names):
        return
    asked = set(map(str, queries["text"]))
    if len(asked) > 1 and asked <= set(map(str, bank["text"])):
        raise InputError(
            f"bank: expected training queries, got all {len(asked)} test queries among them; leave "
            "them out, or use TransductiveSearch, whose results say what was looked at"
        )


def digest(bank: TaskBank | Sequence[str]) -> str:
    """Differs between banks of different queries."""
    parts = [[*bank]] if not isinstance(bank, dict) else [
        [subset, *map(str, data["queries"]["id"]),
         *(map(str, data["queries"]["text"]) if "text" in data["queries"].column_names else ())]
        for subset, data in sorted(bank.items())
    ]  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _data(task: Any, subset: str, split: str) -> dict[str, Any]:
    held = getattr(task, "dataset", None) or {}
    if split in held.get(subset, {}):
        return dict(held[subset][split])
    path, revision = task.metadata.dataset["path"], task.metadata.dataset["revision"]
    config = None if subset == "default" else subset
    known = datasets.get_dataset_config_names(path, revision)
    qrels = f"{config}-qrels" if config else "default" if "default" in known else "qrels"
    splits = datasets.get_dataset_split_names(path, config_name=qrels, revision=revision)
    if split not in splits:  # the loader would take the only split there is, a test split too
        raise InputError(
            f"{task.metadata.name}: {path} has no split {split!r} of its queries, only "
            f"{', '.join(map(str, splits))}; give captions that look like its queries as a bank"
        )
    loader = RetrievalDatasetLoader(path, revision, split=split, config=subset)
    return dict(loader.load())


def _drawn(data: dict[str, Any], most: int | None) -> dict[str, Any]:
    """Queries that have an answer, `most` of them, and the items that answer them."""
    relevant = {
        q: [item for item, grade in found.items() if grade > 0]
        for q, found in data["relevant_docs"].items()
    }
    asked = [n for n, q in enumerate(data["queries"]["id"]) if relevant.get(q)]
    if most is not None and most < len(asked):
        asked = sorted(random.Random(0).sample(asked, most))
    queries = data["queries"].select(asked)
    needed = {item for q in queries["id"] for item in relevant[q]}
    kept = [n for n, item in enumerate(data["corpus"]["id"]) if item in needed]
    return {"queries": queries, "corpus": data["corpus"].select(kept), "relevant_docs": relevant}
