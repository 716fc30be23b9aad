"""Exported folders: what they hold, that they give JAX's numbers, and what is refused."""

import dataclasses
import functools
import importlib
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from ncl_jax.cli import entry
from ncl_jax.data import frames, transforms
from ncl_jax.data.clips import Shapes, View
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.errors import InputError
from ncl_jax.export import folder as export
from ncl_jax.export import formats, functions
from ncl_jax.index import RetrievalIndex
from ncl_jax.models import clip
from ncl_jax.pretrained import saving
from ncl_jax.pretrained.checkpoint import Checkpoint
from ncl_jax.pretrained.preprocessing import Preprocessing, StoredFrames
from tests import tiny
from tests.cli.train_test import small_run

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
FORMATS = ("onnx", "stablehlo")
SHAPES = Shapes(3, 16, 8)
CAPTIONS = ["a red ball moves left", "A  Dog &amp; a CAT", "two balls"]


def installed(form):
    for package in formats.FORMATS[form].packages:
        pytest.importorskip(package, reason=f"needs requirements-export.txt: {package}")
    return form


@functools.cache
def model(**changes):
    """(towers, params, sizes, tokenizer) of a tiny model whose tokenizer is real."""
    tokenizer = Tokenizer.train(CAPTIONS, 530)
    sizes = dataclasses.replace(tiny.SIZES, vocab_size=tokenizer.vocab_size, **changes)
    return (*clip.functional(tiny.model(sizes)), sizes, tokenizer)


@functools.cache
def index(items=300):
    rows = np.random.default_rng(0).normal(size=(items, 16))
    return RetrievalIndex.build(
        [f"clip{n}" for n in range(items)], rows, rows[:40] + 0.1, scale=30.0
    )


def write(folder, form, changes=(), **options):
    towers, params, sizes, tokenizer = model(**dict(changes))
    return dict(
        export.write(folder, towers, params, sizes, SHAPES, tokenizer, format=form, **options)
    )


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, tmp_path_factory):
    """Folder and format; written by the command, from a saved model."""
    form, folder = installed(request.param), tmp_path_factory.mktemp("export")
    towers, params, sizes, tokenizer = model()
    view = View("tail", order="reverse")
    given = Preprocessing(StoredFrames(2.0, 16), SHAPES, view)
    saving.save(Checkpoint("run", sizes, towers, params, tokenizer, given), folder / "saved")
    index().save(folder / "index")
    line = ["export", str(folder / "saved"), str(folder / "out"), f"--format={form}", "--k=5"]
    assert entry.main([*line, f"--index={folder / 'index'}"]) == 0
    return folder, form


def opened(folder, form, name):
    return formats.FORMATS[form].open(folder / "out" / f"{name}.{form}")


def test_a_folder_holds_what_its_json_says(exported):
    folder, form = exported
    about = json.loads((folder / "out" / "export.json").read_text())
    names = {f"{name}.{form}" for name in ("text", "video", "search")}
    assert {path.name for path in (folder / "out").iterdir()} == {
        *names, "tokenizer.json", "export.json"
    }  # fmt: skip
    assert {part["file"] for part in about["files"].values()} == names
    assert (about["format"], about["jax"]) == (form, jax.__version__)
    assert about["scale"] == pytest.approx(10)
    assert about["search"] == {"scale": 30.0, "ids": list(index().ids)}
    prep = about["preprocessing"]
    assert (prep["frames"], prep["size"], prep["fps"], prep["max_tokens"]) == (3, 16, 2.0, 8)
    assert (prep["choice"], prep["order"]) == ("tail", "reverse")
    for part in about["files"].values():
        batch = [np.zeros([2, *given["shape"][1:]], given["type"]) for given in part["inputs"]]
        given = [x + 1 if x.dtype == np.float32 else x for x in batch]
        made = formats.FORMATS[form].open(folder / "out" / part["file"])(*given)
        assert len(made) == len(part["outputs"])
        assert all(len(x) == 2 for x in made)


@pytest.mark.parametrize("batch", [1, 4])
def test_towers_take_any_number_of_rows(exported, batch):
    towers, params, _, _ = model()
    b = tiny.batch(batch, batch)
    for name, encode, inputs in (
        ("text", towers.encode_text, (b.tokens, b.token_mask)),
        ("video", towers.encode_video, (b.video, b.frame_mask)),
    ):
        (got,) = opened(*exported, name)(*inputs)
        np.testing.assert_allclose(got, jax.jit(encode)(params, *inputs), atol=1e-5)


def test_search_is_that_of_the_index_biases_included(exported):
    query = np.random.default_rng(3).normal(size=(6, 16)).astype(np.float32)
    scores, rows = opened(*exported, "search")(query)
    found = index().search(query, k=5)
    np.testing.assert_allclose(scores, found.scores, atol=1e-4)
    np.testing.assert_array_equal(rows, found.rows)
    assert (rows != index().search(query, k=5, use_bias=False).rows).any()


@pytest.mark.parametrize("form", FORMATS)
def test_equal_items_are_found_in_the_order_of_their_rows(form, tmp_path):
    rows = np.repeat(np.eye(4, 16, dtype=np.float32), 5, axis=0)
    function = functions.search(RetrievalIndex.build([str(n) for n in range(20)], rows), 99)
    chosen = formats.FORMATS[installed(form)]
    scores, found = chosen.open(chosen.write(function, tmp_path / "search"))(rows[7:8])
    assert found[0].tolist() == [5, 6, 7, 8, 9, *range(5), *range(10, 20)]
    np.testing.assert_allclose(scores[0], [100.0] * 5 + [0.0] * 15, atol=1e-4)


@pytest.mark.parametrize("exported", ["stablehlo"], indirect=True)
def test_stablehlo_is_for_three_platforms(exported):
    data = bytearray((exported[0] / "out" / "video.stablehlo").read_bytes())
    assert jax.export.deserialize(data).platforms == ("cpu", "cuda", "tpu")


def test_weights_on_many_devices_become_a_file_for_one(tmp_path):
    installed("stablehlo")
    towers, params, sizes, tokenizer = model()
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    spread = jax.device_put(params, everywhere)
    assert len(jax.tree.leaves(spread)[0].devices()) == 8
    file, error = next(export.write(tmp_path, towers, spread, sizes, SHAPES, tokenizer))
    assert error < 1e-5
    assert jax.export.deserialize(bytearray(file.read_bytes())).nr_devices == 1


@pytest.mark.parametrize("form", FORMATS)
def test_bfloat16_towers_stay_so_only_in_stablehlo(form, tmp_path):
    assert max(write(tmp_path, installed(form), {"dtype": "bfloat16"}).values()) < 1e-5
    b = tiny.batch(0, 4)
    (got,) = formats.FORMATS[form].open(tmp_path / f"text.{form}")(b.tokens, b.token_mask)
    far = {}
    for dtype in ("float32", "bfloat16"):
        towers, params, _, _ = model(dtype=dtype)
        ours = jax.jit(towers.encode_text)(params, b.tokens, b.token_mask)
        far[dtype] = np.abs(got - ours).max()
    assert far["float32" if form == "onnx" else "bfloat16"] < 1e-5
    assert 1e-3 < far["bfloat16" if form == "onnx" else "float32"] < 0.1


@pytest.mark.usefixtures("unchecked")
def test_towers_of_a_head_that_scores_pairs_are_exported_without_an_index(tmp_path):
    installed("onnx")
    with pytest.raises(InputError, match=r"tightTransf scores pairs.*without --index"):
        write(tmp_path, "onnx", {"temporal": "tightTransf"}, index=index())
    found = write(tmp_path, "onnx", {"temporal": "tightTransf"})
    assert [file.name for file in found] == ["text.onnx", "video.onnx"]


def test_many_weights_lie_in_a_second_file_of_onnx_and_are_refused_for_stablehlo(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(formats, "LIMIT", 1000)
    with pytest.raises(InputError, match=r"text: expected at most .* use --format onnx"):
        write(tmp_path / "a", installed("stablehlo"))
    assert max(write(tmp_path / "b", installed("onnx")).values()) < 1e-5
    assert (tmp_path / "b" / "video.onnx.data").stat().st_size > 10_000
    assert (tmp_path / "b" / "video.onnx").stat().st_size < 60_000


def test_a_wrong_file_is_a_fault_and_the_folder_stays_incomplete(monkeypatch, tmp_path):
    installed("onnx")
    rules = importlib.import_module("ncl_jax.export.onnx_rules")
    monkeypatch.setitem(rules.RULES, "logistic", lambda graph, equation, x: graph.add("Tanh", x))
    with pytest.raises(RuntimeError, match=r"text\.onnx differs from JAX by .* more than 0\.0001"):
        write(tmp_path, "onnx")
    assert not (tmp_path / "export.json").exists()


def test_numbers_that_are_not_finite_are_a_fault(monkeypatch, tmp_path):
    function = functions.search(index(), 3)
    query = function.example(np.random.default_rng(0), 2)
    scores, rows = index().search(query[0], 3)[1:]
    assert function.error(query, (scores, rows)) < 1e-6
    assert function.error(query, (scores * np.nan, rows)) == np.inf
    assert function.error(query, (scores, rows[:, ::-1])) > 1e-3
    assert function.error(query, (scores, np.zeros_like(rows))) == np.inf


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k: expected at least 1, got 0"),
        ({"index": RetrievalIndex.build([], np.zeros((0, 16)))}, "the index is empty"),
        ({"index": RetrievalIndex.build(["a"], np.ones((1, 8)))}, "vectors of 8 numbers"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(options, said, tmp_path):
    with pytest.raises(InputError, match=said):
        write(tmp_path / "out", installed("stablehlo"), index=options.pop("index", index()),
              **options)  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_limits_of_captions_and_folders_are_named(tmp_path):
    towers, params, sizes, tokenizer = model()
    for shapes, said in (
        (Shapes(3, 16, 1), "max_tokens: expected 2 to 8"),
        (Shapes(3, 16, 9), "max_tokens: expected 2 to 8"),
        (Shapes(0, 16, 8), "max_frames: expected 1 to 3"),
        (Shapes(4, 16, 8), "max_frames: expected 1 to 3"),
    ):
        with pytest.raises(InputError, match=said):
            next(export.write(tmp_path, towers, params, sizes, shapes, tokenizer))
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="expected a new or empty folder"):
        write(tmp_path, installed("stablehlo"))


def test_the_command_names_packages_to_install_before_it_reads_anything(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert entry.main(["export", "no such run", "out", "--format=onnx"]) == 2
    said = "error: --format onnx needs onnx and onnxruntime: pip install onnx onnxruntime\n"
    assert capsys.readouterr().err == f"importing JAX ...\n{said}"


def page():
    """Blocks of Python in docs/export.md: the arrays, ONNX, StableHLO."""
    text = (ROOT / "docs" / "export.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_code_of_the_page_runs_without_ncl_jax_and_gives_its_numbers(exported):
    folder, form = exported
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (40, 52 + n, 3)).astype(np.uint8) for n in range(3)]
    for n, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{n + 1}.png")
    arrays, onnx, stablehlo = page()
    arrays = arrays.replace("a red ball moves left", CAPTIONS[1])
    code = (
        f"import sys\nsys.modules['ncl_jax'] = None\n{arrays}\n"
        f"{onnx if form == 'onnx' else stablehlo}\n"
        "np.savez('got.npz', video=video, mask=frame_mask, text=text, clip=clip, rows=rows)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = np.load(folder / "got.npz")
    towers, params, _, tokenizer = model()
    seen = np.stack([transforms.resize_and_crop(picture, 16) for picture in pictures])
    np.testing.assert_array_equal(got["video"], seen)
    assert got["mask"].all()
    text = jax.jit(towers.encode_text)(params, *tokenizer(CAPTIONS[1:2], 8))
    clip_ = jax.jit(towers.encode_video)(params, seen[None], np.ones((1, 3), bool))
    np.testing.assert_allclose(got["text"], text, atol=1e-5)
    np.testing.assert_allclose(got["clip"], clip_, atol=1e-5)
    best = index().search(np.asarray(text), 5)
    assert got["rows"].tolist() == best.rows.tolist()
    assert best.ids[0][0] in done.stdout


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_page_makes_arrays_as_ncl_jax_does(count, exported, monkeypatch):
    monkeypatch.chdir(exported[0])
    space = {}
    exec(page()[0].partition("\ntokens, token_mask =")[0], space)
    pictures = np.random.default_rng(count).integers(0, 256, (count, 20, 33, 3)).astype(np.uint8)
    video, mask = space["frames_of"]([Image.fromarray(picture) for picture in pictures])
    chosen = frames.choose_frames(count, 3)
    for place, number in enumerate(chosen):
        want = transforms.resize_and_crop(pictures[number], 16)
        np.testing.assert_array_equal(video[place], want)
    assert mask.tolist() == [place < len(chosen) for place in range(3)]
    broken = "caf\u00e9 \u00e2\u20ac\u2122"
    captions = [*CAPTIONS, "", "a ball <|endoftext|> hidden", "ball " * 20, broken]
    for got, want in zip(space["tokens_of"](captions), model()[3](captions, 8), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_real_run_is_exported(form, real_run, tmp_path):
    installed(form)
    line = [sys.executable, "-m", "ncl_jax.cli.export", f"{real_run}", f"{tmp_path}/out"]
    done = subprocess.run([*line, f"--format={form}", f"--index={real_run}/index"], cwd=ROOT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"differs from JAX by at most [0-9]", done.stdout)) == 3
    assert f"{real_run} -> {tmp_path}/out" in done.stdout
