"""Notebooks: stored clean, and no place for logic. `.ci/run` runs them from top to bottom."""

import ast
import pathlib

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


def test_there_are_three():
    assert [path.stem[0] for path in NOTEBOOKS] == ["1", "2", "3"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_without_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


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
