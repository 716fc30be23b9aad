"""mteb's own nDCG and recall beside ours, on the clips and captions of a finished demo run.

    python -m benchmarks.mteb_demo runs/demo [--videos data/manual/demo/videos]

mteb embeds the video files and captions anew and ranks by its own code; ours are the embeddings and
metrics of the run. Needs requirements-mteb.txt.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import ncl_jax
from ncl_jax import metrics
from ncl_jax.data.records import Split, load_split
from ncl_jax.experiment.finished import FinishedRun, open_run
from ncl_jax.normalizers import Auto, Bank, Ncl, Plain, SinkhornTest

KS = (1, 5, 10)


class Compared(NamedTuple):
    """One number of a row: what it is, by mteb and by ours, in percent."""

    name: str
    theirs: float
    ours: float


class Once:
    """A model that embeds each text and each file once, however many rows of the table ask."""

    def __init__(self, model: Any):
        self.model, self.rows = model, dict[str, np.ndarray]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode_text(self, texts: Sequence[str], **kwargs: Any) -> np.ndarray:
        return self._rows(texts, self.model.encode_text)

    def encode_video(self, videos: Sequence[str], **kwargs: Any) -> np.ndarray:
        return self._rows(videos, self.model.encode_video)

    def _rows(self, names: Sequence[str], encode: Any) -> np.ndarray:
        new = list(dict.fromkeys(name for name in names if name not in self.rows))
        if new:
            self.rows.update(zip(new, encode(new), strict=True))
        return np.stack([self.rows[name] for name in names])


def task_of(category: str, splits: dict[str, Split], videos: pathlib.Path) -> Any:
    """A retrieval task of mteb, category "t2v" or "v2t", evaluated on the split "test"."""
    from mteb import TaskMetadata
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class Demo(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"NclDemo{category.upper()}", description="Moving shapes and their captions.",
            dataset={"path": "ncl_jax/demo", "revision": "1"}, type="Any2AnyRetrieval",
            category=category, modalities=["text", "video"], eval_splits=["test"],
            eval_langs=["eng-Latn"], main_score="ndcg_at_10",
        )  # fmt: skip

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            found = {name: data_of(category, split, videos) for name, split in splits.items()}
            self.dataset, self.data_loaded = {"default": found}, True

    return Demo()


def data_of(category: str, split: Split, videos: pathlib.Path) -> dict[str, Any]:
    """A split as mteb's `RetrievalSplitData`."""
    from datasets import Dataset, Features, Value, Video

    words, files = Features(id=Value("string"), text=Value("string")), {"id": Value("string")}
    of = [split.video_ids[v] for v in split.video_of_text]
    names = [f"t{n:05}" for n in range(len(of))]
    texts = Dataset.from_dict({"id": names, "text": list(split.captions)}, words)
    paths = [str(videos / f"{clip}.mp4") for clip in split.video_ids]
    clips = Dataset.from_dict(
        {"id": split.video_ids, "video": paths}, Features(**files, video=Video())
    )
    relevant: dict[str, dict[str, int]] = {}
    for text, clip in zip(names, of, strict=True):
        query, item = (text, clip) if category == "t2v" else (clip, text)
        relevant.setdefault(query, {})[item] = 1
    queries, corpus = (texts, clips) if category == "t2v" else (clips, texts)
    return {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "top_ranked": None}


def ours(run: FinishedRun, category: str, normalizer: Any) -> dict[str, float]:
    """Recall and nDCG of the run's embeddings; those of clips by the rule "best caption"."""
    test, train, ids = run.test, run.bank, np.arange(len(run.bank.video))
    if category == "t2v":
        bank = Bank(train.text, train.video, train.video_of_text, ids)
        scores = normalizer.fit(bank, test.video).lazy(test.text)
        ranks = metrics.ranks_of_texts(scores, test.video_of_text)
        return {"nDCG@10": metrics.ndcg(ranks), **metrics.summarize(ranks)}
    bank = Bank(train.video, train.text, ids, train.video_of_text)
    scores = normalizer.fit(bank, test.text).lazy(test.video).T
    return metrics.video_to_text(scores, test.video_of_text, rule="best_caption")


def compared(
    run: FinishedRun, category: str, task: Any, encoder: Any, normalizer: Any
) -> list[Compared]:
    """Numbers of mteb beside ours."""
    import mteb

    from ncl_jax.integrations.mteb import NormalizedSearch, TransductiveSearch, training_bank

    model = encoder
    if normalizer.kind == "transductive":
        model = TransductiveSearch(encoder, normalizer)
    elif not isinstance(normalizer, Plain):
        model = NormalizedSearch(encoder, training_bank(task), normalizer)
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    theirs = result.task_results[0].scores["test"][0]
    mine = ours(run, category, normalizer)
    keys = {"nDCG@10": "ndcg_at_10"} if category == "t2v" else {}
    keys |= {f"R@{k}": f"{'recall' if category == 't2v' else 'hit_rate'}_at_{k}" for k in KS}
    return [Compared(name, 100 * theirs[key], mine[name]) for name, key in keys.items()]


def table_of(rows: Sequence[tuple[str, str, list[Compared]]]) -> Table:
    """One line per scores and direction; "=" where mteb's five digits are ours."""
    table = Table("scores", *(f"{n}" for n in ("nDCG@10", *(f"R@{k}" for k in KS))),
                  title="mteb | ncl_jax, percent")  # fmt: skip
    for category, name, numbers in rows:
        cells = {
            n.name: f"{n.theirs:.3f} {'=' if abs(n.theirs - n.ours) < 1e-3 else '≠'} {n.ours:.3f}"
            for n in numbers
        }
        columns = ("nDCG@10", *(f"R@{k}" for k in KS))
        table.add_row(f"{category} {name}", *(cells.get(column, "") for column in columns))
    return table


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path, help="folder of a finished run of the demo")
    parser.add_argument("--videos", type=pathlib.Path, default="data/manual/demo/videos")
    flags = parser.parse_args()
    from ncl_jax.integrations.mteb import Encoder

    run = open_run(flags.run)
    data = run.results["config"]["data"]
    train = load_split(run.results["data"]["directory"], data["train_split"])
    splits = {"train": train, "test": run.split}
    encoder, rows = Encoder(Once(ncl_jax.load(flags.run)), "ncl_jax/demo"), []
    for category in ("t2v", "v2t"):
        task = task_of(category, splits, flags.videos)
        task.load_data()
        for name, normalizer in (
            ("plain", Plain(run.scale)), ("ncl", Ncl(run.scale)), ("auto", Auto()),
            ("transductive", SinkhornTest(run.scale)),
        ):  # fmt: skip
            rows.append((category, name, compared(run, category, task, encoder, normalizer)))
    Console(width=110).print(table_of(rows))


if __name__ == "__main__":
    main()
