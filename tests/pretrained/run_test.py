"""A trained run as a model: the numbers of its evaluation, its folder, its way over the hub."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import ncl_jax
from ncl_jax.cli import convert as command
from ncl_jax.index import RetrievalIndex
from tests.cli.train_test import small_run
from tests.pretrained.hub_server import serving

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
NAME = "somebody/balls"
PUSH = """
import sys
import ncl_jax
model = ncl_jax.load(sys.argv[1])
try:
    print(model.push_to_hub(sys.argv[2]))
except ValueError as error:
    sys.exit(f"refused: {error}")
"""
LOAD = """
import sys
import ncl_jax
model = ncl_jax.load(sys.argv[1])
print(model.fingerprint, len(model.bank.text), *model.encode_text(["a red ball"])[0])
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("run"))


def test_the_numbers_are_those_of_evaluation(workdir):
    """From the files of the clips and the words of the captions, to 1e-6."""
    model = ncl_jax.load(workdir)
    with np.load(workdir / "embeddings.npz") as kept:
        ids, video, scale = kept["video_ids"].tolist(), kept["video"], float(kept["scale"])
        bank = kept["bank_text"]
    files = {path.stem: path for path in workdir.parent.rglob("*.mp4")}
    rows = model.encode_video([files[name.rpartition("/")[2]] for name in ids])
    np.testing.assert_allclose(rows, video, atol=1e-6)
    np.testing.assert_allclose(model.encode_text(model.bank.captions), bank, atol=1e-6)
    assert model.scale == pytest.approx(scale, rel=1e-6)

    index = RetrievalIndex.load(workdir / "index")
    queries = model.encode_text(["a red ball moves left", "two blue cubes grow"])
    ranked = model.rank(queries, rows)
    found = index.search(queries, k=len(ids))
    for row, order in zip(ranked.scores, found.rows, strict=True):
        assert np.all(np.diff(row[order]) <= 1e-3)
    assert "training captions" in ranked.evidence["source"]


def test_convert_writes_what_load_reads(workdir, tmp_path, capsys):
    assert command.main([str(workdir), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith(f"step 4 of {workdir} -> ")
    model, again = ncl_jax.load(workdir), ncl_jax.load(tmp_path / "out")
    assert again.fingerprint == model.fingerprint
    card = (tmp_path / "out" / "README.md").read_text()
    assert "On the split `test` of `demo`" in card
    assert "step 4, seed 0" in card
    for path in (tmp_path / "out").iterdir():
        assert str(workdir.parent).encode() not in path.read_bytes()


def test_a_model_goes_to_the_hub_and_comes_back(workdir, tmp_path):
    """Over the hub's HTTP interface, by its own library, to a stand-in on this machine."""
    with serving(tmp_path) as hub:
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        here = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        here |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
        here |= {"HF_HUB_DISABLE_XET": "1"}

        def start(code, *arguments, **more):
            return subprocess.run(
                [sys.executable, "-c", code, *arguments], env=here | more, cwd=ROOT, timeout=300,
                capture_output=True, text=True, check=False,
            )  # fmt: skip

        refused = start(PUSH, str(workdir), NAME)
        assert refused.returncode == 1
        assert "refused: somebody/balls: cannot be sent to the Hugging Face hub" in refused.stderr
        pushed = start(PUSH, str(workdir), NAME, HF_TOKEN=hub.token)
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.strip() == f"{endpoint}/{NAME}"
        sent = {path.name for path in (tmp_path / NAME).iterdir()}
        assert {"model.safetensors", "bank.safetensors", "ncl_jax.json", "README.md"} <= sent
        loaded = start(LOAD, NAME)
        assert loaded.returncode == 0, loaded.stderr
        assert f"{NAME}: downloading" in loaded.stderr
        hub.asked.clear()
        again = start(LOAD, NAME)
        assert again.stdout == loaded.stdout
        assert hub.asked == []  # the second start needs no network
    model = ncl_jax.load(workdir)
    fingerprint, count, *row = loaded.stdout.split()
    assert (fingerprint, int(count)) == (model.fingerprint, len(model.bank.text))
    np.testing.assert_allclose(np.array(row, float), model.encode_text(["a red ball"])[0],
                               atol=1e-6)  # fmt: skip
