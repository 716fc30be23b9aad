"""Names on the hub: its own library, against a server of this machine and without a network."""

import http.server
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from ncl_jax.models import convert, weights
from tests import tiny

pytest.importorskip("huggingface_hub")
NAME, COMMIT = "openai/clip-vit-tiny", "0" * 39 + "1"
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


class Hub(http.server.BaseHTTPRequestHandler):
    """Files of one repository at one commit, as the hub serves them."""

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        self.server.asked.append(self.path)
        path = self.server.folder / self.path.rpartition("/")[2]
        found = path.is_file() and f"/{NAME}/resolve/" in self.path
        content = path.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{path.name}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    convert.save(tmp_path / "repo", convert.from_params(tiny.towers()[1]), tiny.SIZES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.folder, server.asked = tmp_path / "repo", []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


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
    here = f"http://127.0.0.1:{hub.server_port}"
    own = weights.read(str(tmp_path / "repo"))
    expected = f"{len(own.arrays)} {own.activation} False\n"
    assert read(tmp_path / "cache", here)[0] == expected
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"model.safetensors", *weights.COMPANIONS}
    hub.asked.clear()
    assert read(tmp_path / "cache", here) == (expected, "")
    assert hub.asked == []  # not even the list of files


@pytest.mark.slow
def test_what_others_have_cached_is_used_without_a_network(hub, tmp_path):
    """Other programs fetch weights and config, and leave open what else there is."""
    here = f"http://127.0.0.1:{hub.server_port}"
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
    read(cache, f"http://127.0.0.1:{hub.server_port}")
    (link,) = cache.rglob(f"snapshots/*/{lost}")
    link.unlink()
    printed, _ = read(cache, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert printed.startswith(f"refused: {NAME}: cannot be fetched from the Hugging Face hub (")
    assert printed.endswith("without a network, give the path of a downloaded folder\n")


def test_a_repository_without_weights_is_one_sentence(hub, tmp_path):
    (tmp_path / "repo" / "model.safetensors").unlink()
    printed, _ = read(tmp_path / "cache", f"http://127.0.0.1:{hub.server_port}")
    assert printed.startswith(f"refused: {NAME}: expected one of model.safetensors, ")


def test_without_the_library_it_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        weights.read(NAME)
