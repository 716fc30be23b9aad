"""Which room may use which, and that no import leads back to where it came from.

A room is a folder of `ncl_jax` or a file beside these. `python -m tests.layering_test` prints the
arrows between rooms and what of them leads in a circle.
"""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("ncl_jax", "tfds_builders", "configs", "benchmarks")
LIBRARY = {"biases", "types", "scores", "sinkhorn", "losses", "metrics", "normalizers", "index"}
"""Rooms that import alone: JAX and NumPy, no Flax, no config, no logging."""
EVERYWHERE = {"errors", "files", "locks", "progress", "arrays", "readers"}
ALLOWED = {
    "biases": set(),
    "types": {"biases"},
    "errors": set(),
    "files": set(),
    "locks": set(),
    "progress": set(),
    "arrays": set(),
    "readers": set(),
    "scores": {"types"},
    "sinkhorn": {"biases", "types"},
    "losses": {"types", "sinkhorn"},
    "metrics": set(),
    "normalizers": {"types", "scores", "sinkhorn", "metrics"},
    "index": {"biases", "normalizers"},
    "models": {"types"},
    "video": set(),
    "data": {"types"},
    "distributed": {"types", "data"},
    "checkpoint": {"types", "distributed"},
    "training": {"types", "data", "distributed", "checkpoint"},
    "evaluation": {"types", "scores", "sinkhorn", "metrics", "normalizers"},
    "experiment": {
        "types", "losses", "index", "models", "data", "distributed", "checkpoint",
        "training", "evaluation",
    },
    "pretrained": {
        "types", "normalizers", "index", "models", "video", "data", "distributed", "experiment",
    },
    "export": {"types", "index", "models", "data"},
    "report": {"metrics", "normalizers", "evaluation", "experiment"},
    "video_search": {"video", "index", "experiment", "pretrained"},
    "integrations": {"metrics", "normalizers", "index", "pretrained"},
    "cli": {
        "biases", "metrics", "normalizers", "index", "models", "data", "distributed", "experiment",
        "pretrained", "export", "report", "video_search",
    },
    "main": {"cli"},
    "__init__": {"losses", "sinkhorn", "metrics", "normalizers", "index", "pretrained"},
}  # fmt: skip
NOT_IN_LIBRARY = {"flax", "optax", "ml_collections", "absl", "grain", "tensorflow_datasets"}
NOT_AT_RUN_TIME = {"tensorflow", "torch"}


def imports(path):
    """Dotted names of everything a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide what is imported"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """`ncl_jax.data.records` -> `data`; None for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "ncl_jax" and len(parts) > 1 else None


FILES = sorted((ROOT / "ncl_jax").rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def arrows():
    """Room -> the rooms its files import, without those that everybody may use."""
    found = {}
    for path in FILES:
        room = path.relative_to(ROOT / "ncl_jax").parts[0].removesuffix(".py")
        used = {room_of(name) for name in imports(path)} & set(ALLOWED) - {room} - EVERYWHERE
        found.setdefault(room, set()).update(used)
    return found


def circle(graph):
    """Names along a circle of the graph, [] if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def modules():
    """Module -> the modules it imports; of a package that is only passed through, nothing."""
    graph = {}
    for name, path in MODULES.items():
        used = set(imports(path)) & set(MODULES) - {name}
        through = {other for other in used if any(n.startswith(f"{other}.") for n in used)}
        own_package = {name.rpartition(".")[0]}
        graph[name] = used - through - own_package
    return graph


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_what_it_may(path):
    me = path.relative_to(ROOT / "ncl_jax").parts[0].removesuffix(".py")
    assert me in ALLOWED, f"{path} has no row in the table of rooms"
    names = set(imports(path))
    known = {room_of(name) for name in names} & set(ALLOWED) - {me} - EVERYWHERE
    assert known <= ALLOWED[me], f"{me} may not import {known - ALLOWED[me]}"
    tops = {name.split(".")[0] for name in names}
    if me not in ("experiment", "cli"):
        assert "tfds_builders" not in tops
    assert not tops & NOT_AT_RUN_TIME
    assert "configs" not in tops or me == "cli"
    if me in LIBRARY:
        assert not tops & NOT_IN_LIBRARY


def test_no_room_leads_back_to_itself():
    assert not circle(arrows())
    assert not circle(ALLOWED)
    assert all(used <= ALLOWED[room] for room, used in arrows().items())
    unused = {room: ALLOWED[room] - used for room, used in arrows().items()}
    assert not any(unused.values()), f"arrows that may be but are not: {unused}"


def test_no_module_leads_back_to_itself():
    assert not circle(modules())


@pytest.mark.parametrize("path", sorted((ROOT / "tfds_builders").rglob("*.py")),
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_builders_use_only_videos_and_what_everybody_may(path):
    rooms = {room_of(name) for name in imports(path)} - {None}
    assert rooms <= EVERYWHERE | {"video", "cli"}


def test_configs_import_only_ml_collections():
    for path in (ROOT / "configs").glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert tops <= {"ml_collections", "configs", "collections", "itertools"}, path


def test_a_forbidden_arrow_and_a_circle_are_seen(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from ncl_jax import training\nimport ncl_jax.data.pipeline\n")
    assert {room_of(name) for name in imports(bad)} >= {"training", "data"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


if __name__ == "__main__":
    for room, used in sorted(arrows().items()):
        print(f"{room}: {', '.join(sorted(used))}")
    print(f"{len(arrows())} rooms, {sum(map(len, arrows().values()))} arrows between them")
    print(f"circles of rooms: {circle(arrows())}; of modules: {circle(modules())}")
