"""Names on the hub: its own library, against a server of this machine and without a network."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from ncl_jax.models import convert, weights
from tests import tiny
from tests.pretrained.hub_server import serving

pytest.importorskip("huggingface_hub")
NAME = "openai/clip-vit-tiny"
READ = """
import sys, pathlib
from ncl_jax.errors import InputError
from ncl_jax.models import weights
try:
    read = weights.read(sys.argv[1])
except (InputError, FileNotFoundError) as error:
    print("refused:", error)
else:
    print(len(read.arrays), read.activation, read.tokenizer is not None)
"""


@pytest.fixture
def hub(tmp_path):
    convert.save(tmp_path / "repo", convert.from_params(tiny.towers()[1]), tiny.SIZES)
    with serving(tmp_path) as server:
        server.repos[NAME] = tmp_path / "repo"
        yield server


def at(server):
    return f"http://127.0.0.1:{server.server_port}"


def read(cache, endpoint, name=NAME, **more):
    """What a process of its own reads; the library looks at its settings when it is imported."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = here | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache)} | more
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, name],
        env=environment, cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_name_is_fetched_once_and_then_needs_no_network(hub, tmp_path):
    here = at(hub)
    own = weights.read(str(tmp_path / "repo"))
    expected = f"{len(own.arrays)} {own.activation} False\n"
    printed, said = read(tmp_path / "cache", here)
    assert printed == expected
    size = sum(path.stat().st_size for path in (tmp_path / "repo").iterdir()) / 1e6
    assert f"{NAME}: downloading {size:,.0f} MB; licence: mit\n" in said
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"model.safetensors", *weights.COMPANIONS}
    hub.asked.clear()
    assert read(tmp_path / "cache", here) == (expected, "")
    assert hub.asked == []  # not even the list of files


@pytest.mark.slow
def test_what_others_have_cached_is_used_without_a_network(hub, tmp_path):
    """Other programs fetch weights and config, and leave open what else there is."""
    here = at(hub)
    cache = tmp_path / "cache"
    expected = read(cache, here)[0]
    (missing,) = cache.rglob(".no_exist")
    for path in missing.rglob("*.json"):
        path.unlink()
    hub.asked.clear()
    assert read(cache, here)[0] == expected
    assert hub.asked  # there might be more
    for path in missing.rglob("*.json"):
        path.unlink()
    printed, said = read(cache, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert printed == expected
    assert "using the files in its cache: " in said


@pytest.mark.parametrize(
    "lost", ["model.safetensors", pytest.param("config.json", marks=pytest.mark.slow)]
)
def test_an_incomplete_cache_without_a_network_is_one_sentence(hub, tmp_path, lost):
    cache = tmp_path / "cache"
    read(cache, at(hub))
    (link,) = cache.rglob(f"snapshots/*/{lost}")
    link.unlink()
    printed, _ = read(cache, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert printed.startswith(f"refused: {NAME}: cannot be fetched from the Hugging Face hub (")
    assert printed.endswith("without a network, give the path of a downloaded folder\n")


def test_a_repository_without_weights_is_one_sentence(hub, tmp_path):
    (tmp_path / "repo" / "model.safetensors").unlink()
    printed, _ = read(tmp_path / "cache", at(hub))
    assert printed.startswith(f"refused: {NAME}: expected one of model.safetensors, ")


def test_without_the_library_it_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        weights.read(NAME)


def test_what_the_hub_refuses_is_one_sentence(hub, tmp_path):
    hub.gated.add(NAME)
    printed, _ = read(tmp_path / "cache", at(hub))
    assert "because it is gated; accept its terms on its page there and log in by" in printed
    printed, _ = read(tmp_path / "cache", at(hub), name="openai/clip-vit-tinny")
    assert "which has no such public model; check the name" in printed


@pytest.mark.slow
def test_half_a_download_is_fetched_again(hub, tmp_path):
    hub.broken.add("model.safetensors")
    printed, _ = read(tmp_path / "cache", at(hub))
    assert printed.startswith(f"refused: {NAME}: cannot be fetched from the Hugging Face hub (")
    hub.broken.clear()
    printed, _ = read(tmp_path / "cache", at(hub))
    assert not printed.startswith("refused")


@pytest.mark.slow
def test_without_a_network_a_wrong_name_is_known_soon(tmp_path):
    start = time.monotonic()
    printed, _ = read(tmp_path / "cache", "http://127.0.0.1:9")
    assert printed.startswith(f"refused: {NAME}: cannot be fetched from the Hugging Face hub (")
    assert time.monotonic() - start < 30  # importing takes most of it


def test_a_name_below_a_folder_that_is_here_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="has no demmo; did you mean demo"):
        weights.read("runs/demmo")
