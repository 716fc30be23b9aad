#!/usr/bin/env bash
# mteb's loader of retrieval data answers split="train" with the test split where that is the only one.
#
# A dataset holds queries and answers of the split "test" alone. Asked for "train",
# `RetrievalDatasetLoader` (mteb 2.26.24) could raise, as it does where there are two splits without
# "train" among them; with one it takes that one in silence. Who fetches training queries this way, to
# train on them or to normalise by them, gets the test queries.
#
# Seen with Python 3.11:
#   mteb 2.26.24: split 'train' of ['test']: ['a test query']
#   mteb 2.26.24: split 'train' of ['dev', 'test']: ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0  # mteb would take the newest, several GB
"$folder/env/bin/pip" install -q mteb==2.26.24 datasets==5.2.0
cd "$folder"
HF_HOME="$folder/home" "$folder/env/bin/python" - << 'PYTHON'
import json
import pathlib

import mteb
from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

ROWS = {
    "queries": {"id": "q", "text": "a test query"},
    "corpus": {"id": "d", "text": "an item", "title": ""},
    "default": {"query-id": "q", "corpus-id": "d", "score": 1},
}


def write(folder: str, splits: list[str]) -> str:
    """A dataset on the disk, in the layout of mteb's own."""
    configs = []
    for config, row in ROWS.items():
        configs.append(f"- config_name: {config}\n  data_files:")
        for split in splits:
            path = pathlib.Path(folder, config, f"{split}.jsonl")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row))
            configs.append(f"  - split: {split}\n    path: {config}/{split}.jsonl")
    card = "\n".join(["---", "configs:", *configs, "---", ""])
    pathlib.Path(folder, "README.md").write_text(card)
    return folder


def asked(splits: list[str]) -> object:
    loader = RetrievalDatasetLoader(write("-".join(splits), splits), None, split="train")
    try:
        return list(loader.load()["queries"]["text"])
    except ValueError as error:
        return type(error).__name__


for splits, expected in ((["test"], ["a test query"]), (["dev", "test"], "ValueError")):
    found = asked(splits)
    print(f"mteb {mteb.__version__}: split 'train' of {splits}: {found}")
    assert found == expected
PYTHON
