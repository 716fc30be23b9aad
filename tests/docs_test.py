"""What the documentation names is there: modules, files, functions, tests, commands, links."""

import ast
import contextlib
import importlib
import inspect
import io
import json
import pathlib
import re
import runpy
import xml.dom.minidom

import pytest

from configs import demo
from ncl_jax.evaluation import synthetic
from ncl_jax.experiment.finished import FinishedRun

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md",
                              "configs/README.md")),
    *(ROOT / "docs").rglob("*.md"), *(ROOT / "tfds_builders").glob("*/README.md"),
    *(ROOT / "notebooks").glob("*.ipynb"),
])  # fmt: skip
HOMES = ("", "ncl_jax/", "tests/")
"""Folders that a file or module may be named from, beside that of the page."""
TESTS = {path.name: path for path in (ROOT / "tests").rglob("*_test.py")}
TEST_NAMES = set(
    re.findall(r"^def (test_\w+)", "\n".join(p.read_text() for p in TESTS.values()), re.MULTILINE)
)
OUTSIDE = ("jax.", "transformers.", "lax.", "flax.", "np.", "skhubness.", "faiss.")
DATA_FILES = (
    ".json", ".jsonl", ".npz", ".npy", ".zip", ".tsv", ".txt", ".csv", ".pkl", ".bin", ".bin.N",
    ".pt", ".gz", ".safetensors", ".html", ".decoded", ".lock", ".mp4", ".avi",
    ".stablehlo", ".onnx", ".onnx.data",
)  # fmt: skip
EXAMPLES = {
    "fitted.bias", "fitted.evidence", "fitted.lazy", "fitted.scale", "fitted.score",  # variables
    "report.error", "params.logit_scale",  # keys of what is written
    "metrics.fit.inductive_auto", "metrics.bank",
    "msrvtt_dataset_builder.py", "SWEEP.md", "section.key",
}  # fmt: skip


def text_of(page):
    """The page; of a notebook its cells of text."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def is_config_key(name):
    """`train.steps`, `config.train.steps` or `config.train`."""
    section = demo.get_config()
    for part in name.removeprefix("config.").split("."):
        if not hasattr(section, "keys") or part not in section:
            return False
        section = section[part]
    return True


def is_in_module(name):
    """`ncl_jax.losses.ncl`, or from the package: `losses.ncl`, `losses/inputs.stores`."""
    for home in ("", "ncl_jax."):
        parts = (home + name).split(".")
        for cut in range(len(parts), 0, -1):
            folder = ROOT.joinpath(*parts[:cut])
            if not (folder.with_suffix(".py").is_file() or (folder / "__init__.py").is_file()):
                continue
            try:
                found = importlib.import_module(".".join(parts[:cut]))
            except ImportError:
                if "integrations" not in parts:  # these need packages that few install
                    raise
                return True
            for part in parts[cut:]:
                found = getattr(found, part, None)
            if found is not None:
                return True
    return False


def is_file(name, page):
    homes = [page.parent, *(ROOT / home for home in HOMES)]
    return any((home / name).exists() for home in homes) or name in TESTS or name in EXAMPLES


def missing(page):
    """Names in backticks that lead nowhere: files of code, modules, config keys, tests."""
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for quoted in re.findall(r"`([^`\n]+)`", text):
        for test in re.findall(r"\btest_\w+", quoted):
            if test not in TEST_NAMES and not (ROOT / "tests" / f"{test}.py").exists():
                yield test
        for name in re.findall(r"(?<![\w./*{-])(?:[\w-]+/)*\w+\.(?:py|sh|md)\b", quoted):
            if not is_file(name, page):
                yield name
        if re.fullmatch(r"[a-z_]\w*(\.\w+)+(\(.*\))?", quoted):
            name = quoted.partition("(")[0]
            if not (
                name.endswith((".py", ".sh", ".md", *DATA_FILES)) or name.startswith(OUTSIDE)
                or name in EXAMPLES or is_config_key(name) or is_in_module(name)
            ):  # fmt: skip
                yield name
        folder = re.fullmatch(r"(ncl_jax|tests|docs|benchmarks|tfds_builders)/[\w/]*", quoted)
        if folder and not (ROOT / quoted).exists():
            yield quoted


def named(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_in_backticks_exist(page):
    assert not list(missing(page))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_flags_exist(page):
    text = text_of(page)
    for name in set(re.findall(r"python -m ([\w.]+)", text)) - {"venv", "pip", "build", "pytest"}:
        path = ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name
    for key in set(re.findall(r"--config\.([\w.]+)", text)):
        assert is_config_key(key) or key in EXAMPLES, key


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_a_name_that_leads_nowhere_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`parallel.map_step` `assembly.py` `data/video*.py` `losses.ncl` `train.steps` "
        "`old_test.py` `test_that_is_gone` `ncl_jax/losses/` `ncl_jax/lost/`"
    )
    assert list(missing(page)) == [
        "parallel.map_step", "assembly.py", "old_test.py", "test_that_is_gone", "ncl_jax/lost/",
    ]  # fmt: skip


@pytest.mark.parametrize("room", ["losses", "sinkhorn", "metrics", "normalizers", "index"])
def test_the_api_reference_has_every_public_class_and_function(room):
    module = importlib.import_module(f"ncl_jax.{room}")
    name = "retrieval_index" if room == "index" else room
    page = (ROOT / "docs" / "api" / f"{name}.md").read_text()
    for name in module.__all__:
        if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)):
            assert f"\n::: ncl_jax.{room}.{name}\n" in page, name


def messages():
    """Every text in the code of the package, one per line; what is filled in reads {}."""
    found = []
    for path in (ROOT / "ncl_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", "") for part in node.values)
                found.append("".join(x if isinstance(x, str) else "{}" for x in parts))
    return "\n".join(found)


def test_messages_that_the_page_on_faults_explains_are_those_of_the_code():
    table = (ROOT / "docs" / "pods.md").read_text().partition("## What the messages mean")[2]
    quoted = [m for row in re.findall(r"^\| (`.*?) \|", table.partition("\n## ")[0], re.MULTILINE)
              for m in re.findall(r"`([^`]+)`", row)]  # fmt: skip
    assert len(quoted) > 20
    known = messages() + "\nanother task died"  # JAX's own
    filled_in = r"\.\.\.|\b[A-Z]{4,}\b|\bN\b|'|\b\d+\b|\bnan\b|--\w+|(?:training|evaluation) input:"
    for message in quoted:
        for piece in re.split(filled_in, message):
            piece = piece.strip(" :;,()`")
            assert len(piece.split()) < 3 or piece in known, (message, piece)


def test_readme_and_architecture_name_every_room():
    folders = {path.parent.name for path in (ROOT / "ncl_jax").glob("*/__init__.py")}
    files = {path.name for path in (ROOT / "ncl_jax").glob("*.py")} - {"__init__.py"}
    for page in ("README.md", "docs/architecture.md"):
        text = (ROOT / page).read_text()
        assert not {name for name in folders if f"{name}/" not in text}
        assert not {name for name in files if name not in text}
    assert f"has {len(folders)} folders" in text


def test_five_lines_of_python_run_and_print_what_readme_says():
    code, printed = re.search(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    ).groups()
    assert len(code.splitlines()) == 5
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert out.getvalue() == printed


def test_readme_has_the_two_commands_that_nox_runs():
    lines = (ROOT / "README.md").read_text().splitlines()
    demo, tests = [line for line in lines if line.startswith("pip install -r requirements.txt")]
    assert "ncl_jax.main --config=configs/demo.py" in demo
    assert tests.endswith("python -m pytest")


def test_the_plot_of_readme_follows_the_scheme_of_its_page():
    plot = runpy.run_path(str(ROOT / "docs" / "scripts" / "shares_plot.py"))["plot"]
    drawn = plot(FinishedRun({}, *synthetic.embeddings(), 30.0, None))
    for svg in (drawn, (ROOT / "docs" / "shares.svg").read_text()):
        assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
        light, dark = svg.split("prefers-color-scheme: dark")
        used = set(re.findall(r"var\((--\w+)\)", svg))
        assert used == set(re.findall(r"(--\w+):", light)) == set(re.findall(r"(--\w+):", dark))
