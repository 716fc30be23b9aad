"""Notebooks: stored with small outputs, no place for logic. `.ci/run` runs them top to bottom."""

import ast
import pathlib
import re

import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code(path):
    """The Python of a notebook, without its shell and magic lines."""
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    lines = "\n".join(cells).splitlines()
    kept = [line if line.lstrip()[:1] not in ("%", "!") else
            line[: len(line) - len(line.lstrip())] + "pass" for line in lines]
    return ast.parse("\n".join(kept))


def test_there_are_four():
    assert [path.stem[0] for path in NOTEBOOKS] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_carries_the_outputs_of_one_run_from_top_to_bottom(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/jpeg"} or "3" in path.stem
    for cell in cells:  # a last line that is an expression shows something
        last = cell.source.rstrip().splitlines()[-1]
        if re.match(r"(?!np\.save)[\w.]+\(|found$|!|\]\);$", last):
            assert cell.outputs, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_small_and_of_no_machine(path):
    assert path.stat().st_size < 400_000
    text = path.read_text()
    assert not re.search(r"/(?:tmp|root|home|work|usr)/|Traceback|Warning", text)
    assert not re.search(r"\\r(?!\\n)", text)  # of a bar in a terminal


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_says_what_it_needs(path):
    first = nbformat.read(path, 4).cells[0].source
    assert "README's install" in first
    for file in re.findall(r"requirements[\w-]*\.txt", first):
        assert (FOLDER.parent / file).exists()
    wanted = (FOLDER.parent / "requirements-test.txt").read_text()
    assert "ipykernel" in wanted
    assert ("faiss" in path.read_text().lower()) == ("FAISS" in first)
    assert "faiss-cpu" in wanted


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_keeps_no_logic_of_its_own(path):
    """Literals, loops over them, and calls: what is worth a definition belongs to the package."""
    defining = ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While | ast.Try
    for node in ast.walk(code(path)):
        assert not isinstance(node, defining)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), f"{path.name}: {node.attr} is not public"
        if isinstance(node, ast.ImportFrom):
            assert not any(alias.name.startswith("_") for alias in node.names)
