"""Every reader of files from elsewhere: sound files for it, how they are changed, how it is called.

A reader takes a path whose file has been changed; what lies beside it is sound.
"""

import hashlib
import io
import json
import pathlib
import pickle
import random
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath
from safetensors.numpy import save

from ncl_jax.cli import embedding_files, inputs
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.experiment import finished
from ncl_jax.index import RetrievalIndex, single_file, storage
from ncl_jax.models import convert, torch_file, weights
from ncl_jax.report import curves, runs, tables
from ncl_jax.video_search.manifest import FileRecord, GalleryManifest, Stamp
from ncl_jax.video_search.snapshot import IndexSnapshot
from tests import tiny
from tests.index import format1
from tests.models.convert_test import tensor, typed
from tests.readers import mutations as m
from tests.report.report_test import config
from tfds_builders import caption_files, text_files
from tfds_builders.activitynet import annotations as activitynet
from tfds_builders.msrvtt import annotations as msrvtt

Change = Callable[[bytes, random.Random], bytes]


class Reader(NamedTuple):
    """What is read, by what, how changed; `share` of all inputs."""

    file: str
    make: Callable[[pathlib.Path], object]
    read: Callable[[pathlib.Path], object]
    changes: tuple[Change, ...]
    share: float = 1.0


WORDS = {f"clip{n}": ["a dog runs", "a \u00e9 cat"] for n in range(4)}
SENTENCES = {
    "videos": [{"video_id": f"video{n}", "split": "train"} for n in range(3)],
    "sentences": [{"video_id": f"video{n}", "caption": "a dog", "sen_id": n} for n in range(3)],
}
PARAGRAPHS = {"v_a": {"duration": 9.5, "timestamps": [[0, 2], [2, 9]], "sentences": ["A.", "B."]}}
ROWS = np.eye(4, 3, dtype=np.float32) + 1
ROW = {"R@1": 40.0, "R@5": 70.0, "MdR": 2.0}
RESULTS = {
    "schema": 1, "run": {"name": "msvd", "seed": 0, "step": 3}, "config": config(),
    "metrics": {d: {"plain": ROW, "inductive": ROW} for d in ("text_to_video", "video_to_text")},
    "data": {"directory": "d"},
}  # fmt: skip


def _json(content: object) -> Callable[[pathlib.Path], object]:
    return lambda path: path.write_text(json.dumps(content))


def _text(content: str) -> Callable[[pathlib.Path], object]:
    return lambda path: path.write_text(content)


def _pickled(path: pathlib.Path) -> None:
    words = {clip: [text.split() for text in texts] for clip, texts in WORDS.items()}
    path.write_bytes(pickle.dumps(words, 2))


def _tokenizer(path: pathlib.Path) -> None:
    path.write_text(Tokenizer.train(["a dog runs", "a cat"], 520).to_json())


def _tables(path: pathlib.Path) -> None:
    content = json.loads(Tokenizer.train(["a dog runs", "a cat"], 520).to_json())["model"]
    path.with_name("vocab.json").write_text(json.dumps(content["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in content["merges"]]
    path.with_name("merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def _encoded(path: pathlib.Path) -> Any:
    place = path if path.name == "tokenizer.json" else path.parent
    return Tokenizer.load(epath.Path(place))(["a dog <|endoftext|>"], 8)


def _safetensors(path: pathlib.Path) -> None:
    types = (np.float32, np.float16, np.int64, np.uint8, ml_dtypes.bfloat16)
    path.write_bytes(save({np.dtype(t).name: np.ones((2, 3), t) for t in types}))


def of_safetensors(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = m.of_json(data[8 : 8 + size].replace(b'"F16"', b'"F8_E4M3"'), rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _folder(path: pathlib.Path) -> None:
    convert.save(path.parent, convert.from_params(tiny.towers()[1]), tiny.SIZES)


def _torch(path: pathlib.Path) -> None:
    parts = {"w": tensor(), "b": tensor("HalfStorage", "h"), "f": typed("float8_e4m3fn", "8")}
    content = b"(" + b"".join(f"V{n}\n".encode() + code for n, code in parts.items()) + b"d."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key in parts and ("0", "h", "8"):
            archive.writestr(f"archive/data/{key}", bytes(16))


def _index(path: pathlib.Path) -> None:
    record = FileRecord(Stamp(5, 7), [(0.0, 10.0), (10.0, 20.0)], ("a remark",))
    files = {"a.mp4": record, "b.mp4": record}
    manifest = GalleryManifest("/videos", "/run", "model", 10.0, 1, files)
    meta = manifest.as_meta() | {"bank_captions": ["a dog", "a cat", "a dog"]}
    index = RetrievalIndex.build(["a", "b", "c", "d"], ROWS, ROWS[:3], meta=meta)
    if path.suffix == ".npz":
        format1.write(path, *format1.content(index))
    else:
        index.save(path.parent)


def of_header(data: bytes, rng: random.Random) -> bytes:
    """A header of another program, signed as ours is."""
    header = json.loads(data)
    header["data"] = json.loads(m.of_json(json.dumps(header["data"]).encode(), rng))
    return json.dumps(header | {"sha256": storage.digest(header["data"])}).encode()


def of_single_file(data: bytes, rng: random.Random) -> bytes:
    """A header of another program, signed as ours is."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(arrays.pop("header").tobytes())
    if rng.random() < 0.7:
        header["data"] = json.loads(m.of_json(json.dumps(header["data"]).encode(), rng))
    else:
        name = rng.choice(list(arrays))
        stream = io.BytesIO()
        np.save(stream, arrays[name])
        try:
            arrays[name] = np.load(io.BytesIO(m.of_array(stream.getvalue(), rng)))
        except Exception:  # changed beyond what NumPy reads
            arrays.pop(name)
    header["sha256"] = _digest(arrays, header["data"])
    out = io.BytesIO()
    text = json.dumps(header)
    np.savez(out, header=np.frombuffer(text.encode(), np.uint8), **arrays)
    return out.getvalue()


def _digest(arrays: dict[str, np.ndarray], header: object) -> str:
    try:
        return single_file.digest(arrays, header)
    except (TypeError, ValueError):
        return hashlib.sha256(b"").hexdigest()


def _shown(path: pathlib.Path) -> None:
    shown = IndexSnapshot.of(RetrievalIndex.load(path, check=True), "1")
    shown.search(ROWS[:1], 2, "normalised")
    shown.best_captions(0, 2, "normalised")
    assert shown.index.refit_due in (True, False)


def _embeddings(path: pathlib.Path) -> None:
    of = np.asarray([0, 1, 2, 3])
    sides = {"text": ROWS, "video": ROWS, "video_of_text": of}
    names = np.asarray(["a", "b", "c", "d"])
    bank = {f"bank_{name}": array for name, array in sides.items()}
    np.savez(path, **sides, **bank, video_ids=names, scale=np.float32(3), ids=names)


def _run(path: pathlib.Path) -> None:
    groups = runs.group(runs.load([path.parent]))
    for table in tables.results(groups):
        table.markdown()


BYTES, JSON, ZIP = (m.of_bytes,), (m.of_json, m.of_json, m.of_bytes), (m.of_zip, m.of_bytes)
READERS = {
    "pickled captions": Reader("raw-captions.pkl", _pickled,
                               lambda p: caption_files.read_pickle(epath.Path(p)), BYTES, 2),
    "captions in JSON": Reader("captions.json", _json(WORDS),
                               lambda p: caption_files.read_json(epath.Path(p)), JSON),
    "captions in lines": Reader("AllVideoDescriptions.txt", _text("# x\nclip1 a dog\nclip2 a c\n"),
                                lambda p: caption_files.read_lines(epath.Path(p)), BYTES),
    "captions in a table": Reader(
        "video_corpus.csv",
        _text('VideoID,Start,End,Language,Description\nv,1,2,English,"a, dog"\nv,1,2,German,x\n'),
        lambda p: caption_files.read_corpus_csv(epath.Path(p)), BYTES),
    "MSR-VTT": Reader("MSRVTT_data.json", _json(SENTENCES),
                      lambda p: msrvtt._read_captions([epath.Path(p)]), JSON),
    "ActivityNet": Reader("train.json", _json(PARAGRAPHS),
                          lambda p: activitynet._read_split(epath.Path(p)), JSON),
    "lists": Reader("train_list.json", _json(["a", "b"]),
                    lambda p: text_files.read_list(epath.Path(p)), JSON),
    "tokenizer.json": Reader("tokenizer.json", _tokenizer, _encoded, JSON, 0.5),
    "vocab.json": Reader("vocab.json", _tables, _encoded, JSON, 0.3),
    "merges.txt": Reader("merges.txt", _tables, _encoded, BYTES, 0.3),
    "safetensors": Reader("x.safetensors", _safetensors, weights.read_safetensors,
                          (of_safetensors, m.of_bytes)),
    "config of weights": Reader("config.json", _folder,
                                lambda p: weights.read(str(p.parent)), JSON, 0.1),
    "torch files": Reader("x.pt", _torch, torch_file.read, ZIP, 2),
    "index": Reader("index.json", _index, lambda p: _shown(p.parent),
                    (of_header, of_header, m.of_json, m.of_bytes), 0.3),
    "index, format 1": Reader("index.npz", _index, _shown,
                              (of_single_file, of_single_file, m.of_zip, m.of_bytes), 0.3),
    "embeddings, .npz": Reader("e.npz", _embeddings,
                               lambda p: embedding_files.read_embeddings(str(p)), ZIP, 0.8),
    "embeddings, .npy": Reader("e.npy", lambda p: np.save(p, ROWS),
                               lambda p: inputs._unit(str(p)), (m.of_array, m.of_bytes)),
    "embeddings of a run": Reader("embeddings.npz", _embeddings,
                                  lambda p: (inputs._of_run(str(p)),
                                             finished.read_embeddings(epath.Path(p))), ZIP, 0.5),
    "results.json": Reader("results.json", _json(RESULTS), _run, JSON),
    "metrics.jsonl": Reader("metrics.jsonl", _text('{"step": 1, "loss": 2.5}\n{"step": 2}\n'),
                            lambda p: curves.read(p.parent), BYTES),
}  # fmt: skip
