#!/usr/bin/env bash
# WordLlama's wheel carries its tokenizer, but `load` looks for it in another folder.
#
# The wheel has weights and tokenizer, and one expects `WordLlama.load()` to need no download. 0.4.0.post1 finds the
# weights, and looks for the tokenizer in `tokenizer/` beside them (the name of the kind of file), while it
# lies in `tokenizers/` (the name used for the cache): with downloads off it says that there is none, with them on
# it fetches the file that is there already. With the package's own folder as `cache_dir`, it is found.
#
# Seen with Python 3.11:
#   wordllama 0.4.0.post1: carried: tokenizers/l2_supercat_tokenizer_config.json
#   wordllama 0.4.0.post1: load: FileNotFoundError: Tokenizer file 'l2_supercat_tokenizer_config.json' not found in project root or cache, and downloads are disabled.
#   wordllama 0.4.0.post1: load(cache_dir=its own folder): (1, 256)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q wordllama==0.4.0.post1 "numpy>=2,<3"
HOME="$folder" "$folder/env/bin/python" - << 'PYTHON'
import importlib.metadata
import pathlib

import wordllama
from wordllama import WordLlama

said = f"wordllama {importlib.metadata.version('wordllama')}"
carried = pathlib.Path(wordllama.__file__).parent
found = [str(p.relative_to(carried)) for p in carried.rglob("l2_supercat_tokenizer*.json")]
print(f"{said}: carried: {', '.join(found)}")
assert found
try:
    WordLlama.load(disable_download=True)
except FileNotFoundError as error:
    print(f"{said}: load: {type(error).__name__}: {error}")
else:
    raise SystemExit("the carried tokenizer was found")
model = WordLlama.load(cache_dir=carried, disable_download=True)
print(f"{said}: load(cache_dir=its own folder): {model.embed(['a red ball']).shape}")
PYTHON
