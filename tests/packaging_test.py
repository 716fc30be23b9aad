"""What is installed: bounds said twice agree, the wheel is whole, and `import ncl_jax` is light."""

import importlib
import pathlib
import re
import subprocess
import sys
import tomllib
import venv
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import ncl_jax
from ncl_jax.cli import entry

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(lines):
    """Package -> the rest of its requirement."""
    plain = [line.partition("#")[0].strip() for line in lines]
    found = [Requirement(line) for line in plain if line and not line.startswith("ncl_jax")]
    return {r.name.lower(): (r.extras, str(r.specifier)) for r in found}


def of_file(name):
    return named((ROOT / name).read_text().splitlines())


def test_extras_together_are_what_requirements_txt_asks_for():
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(line for name in ("train", "video", "report", "serve")
                                         for line in extras[name])]  # fmt: skip
    assert named(asked) == of_file("requirements.txt")
    for name in ("faiss", "export"):
        assert named(extras[name]) == of_file(f"requirements-{name}.txt")
    measured_with = named([*extras["mteb"], *extras["sentence-transformers"]])
    assert measured_with.items() <= of_file("requirements-mteb.txt").items()
    own = {name: [x for x in lines if x.startswith("ncl_jax")] for name, lines in extras.items()}
    assert own["all"] == ["ncl_jax[train,video,report,serve]"]


def test_files_that_name_a_package_agree_on_its_bounds():
    run = of_file("requirements.txt")
    for name in ("requirements-beam.txt", "requirements-test.txt", "requirements-parity.txt",
                 "requirements-mteb.txt"):
        for package, bounds in of_file(name).items():
            if package in run and package != "pillow":  # Beam holds it back
                assert run[package] == bounds, (name, package)
    assert of_file("requirements-mteb.txt")["torch"] == of_file("requirements-parity.txt")["torch"]
    assert of_file("requirements-docs.txt")["ruff"] == of_file("requirements-test.txt")["ruff"]
    benchmark = of_file("requirements-benchmark.txt")
    assert all(bounds.startswith("==") for _, bounds in benchmark.values())
    assert benchmark["torch"] == of_file("requirements-parity.txt")["torch"]
    for package in benchmark.keys() & run.keys():
        (_, pinned), (_, bounds) = benchmark[package], run[package]
        assert SpecifierSet(bounds).contains(pinned.removeprefix("==")), package


def test_version_is_the_same_in_package_citation_and_changelog():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {ncl_jax.__version__}\n" in citation
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1].split()[0] == ncl_jax.__version__


def test_importing_the_package_imports_neither_jax_nor_numpy():
    code = "import sys, ncl_jax; print(*{'jax', 'numpy', 'flax', 'etils'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def five_lines():
    """The five lines of Python in README.md, and what they print."""
    readme = (ROOT / "README.md").read_text()
    return re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.DOTALL).groups()


def test_five_lines_of_readme_need_only_what_the_library_requires():
    extras = {line for name in PROJECT["optional-dependencies"].values() for line in name}
    packages = named(extras) | {"etils": None, "absl": None, "orbax": None}
    code, printed = five_lines()
    blocked = {name.replace("-", "_") for name in packages} - {"ml_dtypes"}  # JAX needs it
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nfor x in {blocked}: sys.modules[x] = None\n{code}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (printed, 0), done.stderr


def test_public_names_are_there_and_nothing_else_is():
    assert set(ncl_jax.__all__) <= set(dir(ncl_jax))
    for name in ncl_jax.__all__:
        assert getattr(ncl_jax, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ncl_jax.nothing


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_every_command_has_a_module(name):
    module = importlib.import_module(entry.COMMANDS[name][0])
    assert callable(getattr(module, "start" if name in ("train", "sweep") else "main"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["trian"], "got 'trian'; did you mean train?"),
        (["data", "biuld"], "did you mean data build?"),
        (["index", "serch"], "did you mean search?"),
        (["normalize", "--vidoe", "x"], "did you mean --video?"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(given, said, capsys):
    try:
        code = entry.main(given)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_of_the_data_commands(asked, capsys):
    assert entry.main(["data", asked]) == 0
    said = capsys.readouterr().out
    assert "data check" in said
    assert "normalize" not in said


def built(folder):
    """The wheel made from the sdist, by `python -m build` in an environment of its own."""
    venv.create(folder / "build", with_pip=True)
    python = folder / "build" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "build>=1.2"], check=True)
    subprocess.run([python, "-m", "build", "-o", folder, ROOT], check=True, capture_output=True)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(tmp_path):
    """Built from the sdist, installed, and used: every command, five lines, a search."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    wheel = built(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ncl_jax", "tfds_builders"}
    assert {
        "ncl_jax/py.typed", "ncl_jax/video/known_good.mp4", "tfds_builders/msvd/README.md",
        "ncl_jax/video_search/static/page.html", "ncl_jax/report/html/page.html",
    } <= set(names)  # fmt: skip
    subprocess.run([*install, wheel], check=True)
    use = (
        "import numpy as np, ncl_jax\n"
        "index = ncl_jax.RetrievalIndex.build(['a', 'b'], np.eye(2), np.eye(2), scale=10.0)\n"
        "print(index.search(np.array([[0.0, 1.0]]), k=1).ids)\n"
        "biases, report = ncl_jax.sinkhorn.solve(np.eye(3), np.ones(3), np.ones(3))\n"
        "print(bool(report.converged))\n"
    )
    code, printed = five_lines()
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == printed
    done = subprocess.run(
        [python, "-c", use], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[['b']]", "True"]
    freeze = [python, "-m", "pip", "list", "--format=freeze"]
    listed = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.lower()
    assert not {"flask", "flax", "av", "tensorflow-datasets"} & {
        line.split("==")[0] for line in listed.split()
    }
    subprocess.run([*install, f"{wheel}[all]"], check=True)
    command = tmp_path / "venv" / "bin" / "ncl-jax"
    for name in entry.COMMANDS:
        done = subprocess.run(
            [command, *name.split(), "--help"], cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, (name, done.stderr)
        assert len(done.stdout) > 100
