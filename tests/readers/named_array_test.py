"""A `.npz` is taken wherever a `.npy` is: by the usual name, the only one, or the one given."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ncl_jax.cli import index, metrics, normalize
from ncl_jax.readers import npy
from tests.normalizers.normalizers_test import hubby


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Test pairs and a bank, as separate files and all in one."""
    monkeypatch.chdir(tmp_path)
    text, video = hubby(3, 0.5, clips=80)
    of = np.arange(40)[::-1].copy()
    arrays = {"text": text[:40][of], "video": video[:40], "video_of_text": of,
              "bank_text": text[40:], "bank_video": video[40:]}  # fmt: skip
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
        np.savez(f"{name}.only.npz", whatever=array)
    np.savez("all.npz", **arrays)
    np.savez("other.npz", **{f"my {name}": array for name, array in arrays.items()})
    return arrays


FORMS = {
    ".npy": "{}.npy", "the only array": "{}.only.npz", "usual names": "all.npz",
    "named": "all.npz:{}", "other names": "other.npz:my {}",
}  # fmt: skip


def flags(form, *names):
    return [part for name in names for part in (f"--{name.replace('_', '-')}", form.format(name))]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_metrics_and_normalize(files, form, capsys):
    assert metrics.main([*flags(".".join(["{}", "npy"]), "text", "video", "video_of_text"),
                         "--json", "wanted.json"]) == 0  # fmt: skip
    assert metrics.main([*flags(form, "text", "video", "video_of_text"), "--json", "m.json"]) == 0
    wanted, found = (json.loads(pathlib.Path(f).read_text()) for f in ("wanted.json", "m.json"))
    assert found == wanted
    assert wanted["text to video"]["average"]["R@1"] > 50
    bank = flags(form, "text", "video", "video_of_text", "bank_text", "bank_video")
    assert normalize.main([*bank, "--samples", "1", "--direction", "t2v"]) == 0
    assert "Cosines of bank and test queries" in capsys.readouterr().out
    np.savez("s.npz", text=files["text"], scores=files["text"] @ files["video"].T)
    assert metrics.main(["--scores", "s.npz", *flags(form, "video_of_text")]) == 0


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_index(files, form, capsys):
    given = [*flags(form, "video", "bank_text"), "--scale", "50"]
    assert index.main(["build", "i", *given]) == 0
    capsys.readouterr()
    assert index.main(["search", "i", "--query", form.format("text"), "-k", "1"]) == 0
    hits = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(hits) == 40
    right = np.mean([int(item) == files["video_of_text"][int(query)] for query, _, item, _ in hits])
    assert right > 0.5  # the texts were the queries, not the videos themselves
    assert right < 1
    assert index.main(["add", "i", "--video", form.format("bank_video")]) == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("other.npz", "other.npz: expected one array, got my text, my video, my video_of_text, "
         "my bank_text, my bank_video; name one, as other.npz:my text"),
        ("all.npz:txet", "all.npz: expected the array 'txet', got text, video,"),
        ("text.npy:text", "text.npy: expected a .npz with 'text', got a .npy of one array"),
        ("gone.npz:text", "gone.npz"),
    ],
)  # fmt: skip
def test_what_is_meant_must_be_clear(files, given, says, capsys):
    assert normalize.main(["--text", given, "--video", "video.npy"]) == 2
    assert says in capsys.readouterr().err
    assert index.main(["build", "i", "--video", given]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", ["normalize", "metrics"])
def test_the_first_line_need_not_wait_for_jax(command):
    """Of a command on embeddings: what is refused is refused before JAX is imported."""
    code = (f"import sys\nfrom ncl_jax.cli import {command}\n"
            f"code = {command}.main(['--text', 'gone.npy', '--video', 'gone.npy'])\n"
            "assert 'jax' not in sys.modules\nsys.exit(code)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot read gone.npy" in done.stderr


def test_a_file_may_have_a_colon_in_its_name(files):
    shutil.copy("text.npy", "a:text.npy")
    assert npy.split_name("a:text.npy") == ("a:text.npy", "")


def test_an_index_of_embeddings_has_no_words(files, capsys):
    assert index.main(["build", "i", "--video", "video.npy"]) == 0
    capsys.readouterr()
    assert index.main(["search", "i", "a red ball"]) == 2
    said = capsys.readouterr().err
    assert "i was built from embeddings and has no model" in said
    assert "--query Q.npy" in said
