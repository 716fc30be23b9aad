"""Imports only point left: types -> numerics -> parts -> procedures -> assembly -> entry."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NUMERICS = {"types", "scores", "sinkhorn", "losses", "metrics"}
ALLOWED = {
    "errors": set(),
    "versions": set(),
    "types": set(),
    "scores": {"types"},
    "sinkhorn": {"types"},
    "metrics": {"types"},
    "losses": {"types", "scores", "sinkhorn"},
    "normalizers": NUMERICS,
    "index": NUMERICS | {"normalizers"},
    "models": {"types"},
    "ahead": set(),
    "data": {"types", "ahead"},
    "parallel": {"types"},
    "optim": {"types"},
    "input_profile": {"types", "ahead", "parallel", "data"},
    "processes": {"ahead"},
    "agreement": {"processes"},
    "workdir": {"agreement"},
    "contents": {"types"},
    "damage": {"processes"},
    "orbax_setup": {"contents"},
    "checkpoint": {"types", "agreement", "contents", "damage", "orbax_setup", "processes"},
    "health": {"types", "agreement", "processes"},
    "progress": {"types", "checkpoint", "contents", "health", "processes"},
    "run_log": {"processes"},
    "results": set(),
    "report": {"types", "metrics", "normalizers", "evaluate", "results"},
    "example": {"evaluate"},
    "grad_cache": set(),
    "train": {"types", "scores", "sinkhorn", "losses", "parallel", "grad_cache"},
    "evaluate_pairs": {"types", "sinkhorn", "metrics", "evaluate"},
    "evaluate": {"types", "scores", "sinkhorn", "normalizers", "metrics", "parallel"},
    "gallery": {"types", "data", "index"},
    "serve": {"data", "index", "gallery"},
    "assembly": None,
    "finished": None,
    "trained": None,
    "experiment": None,  # None: everything
    "seeds": None,
    "main": None,
    "cli": None,
    "__init__": set(),
}
PURE = {"types", "scores", "sinkhorn", "losses", "metrics", "normalizers", "index"}
NOT_IN_PURE = {"flax", "optax", "ml_collections", "absl", "grain", "tensorflow_datasets"}
NOT_AT_RUN_TIME = {"tensorflow", "torch"}


def imports(path):
    """Dotted names of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide what is imported"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit(name):
    """`ncl_jax.video.decode` -> `data`; None for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "ncl_jax" and len(parts) > 1 else None


FILES = sorted((ROOT / "ncl_jax").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_what_it_may(path):
    me = path.relative_to(ROOT / "ncl_jax").parts[0].removesuffix(".py")
    assert me in ALLOWED, f"{path} has no row in the table of layers"
    names = set(imports(path))
    known = {unit(name) for name in names} & set(ALLOWED) - {"errors"}  # everybody may raise them
    if ALLOWED[me] is not None:
        assert known - {me} <= ALLOWED[me], f"{me} may not import {known - {me} - ALLOWED[me]}"
        assert not {n for n in names if n.split(".")[0] == "tfds_builders"}
    tops = {name.split(".")[0] for name in names}
    assert not tops & NOT_AT_RUN_TIME
    if me in PURE:
        assert not tops & NOT_IN_PURE


@pytest.mark.parametrize("path", sorted((ROOT / "tfds_builders").rglob("*.py")),
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_builders_use_only_the_video_modules_and_errors(path):
    ours = {name for name in imports(path) if name.startswith("ncl_jax")}
    ours -= {name for name in ours if unit(name) in (None, "errors", "versions")}
    assert all(name.startswith(("ncl_jax.video.decode", "ncl_jax.data")) for name in ours)
    assert not any(name.startswith("ncl_jax.data.") and not name.startswith("ncl_jax.video.decode")
                   for name in ours)


def test_configs_import_only_ml_collections():
    for path in (ROOT / "configs").glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert tops <= {"ml_collections", "configs", "collections", "itertools"}, path


def test_layers_catch_a_forbidden_arrow(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from ncl_jax import train\nimport ncl_jax.data.pipeline\n")
    assert {unit(name) for name in imports(bad)} >= {"train", "data"}
