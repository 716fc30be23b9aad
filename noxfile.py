"""Every check in an environment of its own: `pipx run "nox[uv]" --list`, or pip install "nox[uv]".

README's two commands run as they stand there; everything else installs with uv, which is faster.
"""

import os
import pathlib
import re
import shutil

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOWEST, MAIN = "3.11", "3.13"
ROOT = pathlib.Path(__file__).parent
RUN = ("-r", "requirements.txt")
TEST = (*RUN, "-r", "requirements-test.txt")

nox.options.sessions = ["tests", "demo", "tests-lowest", "lint(highest)"]
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False


def add_pyenv_to_path() -> None:
    """Pyenv's `python3.12` runs only where pyenv was told to; its versions are looked up here."""
    root = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    found = [str(folder) for python in PYTHONS for folder in root.glob(f"versions/{python}.*/bin")]
    os.environ["PATH"] = os.pathsep.join([*found, os.environ["PATH"]])


add_pyenv_to_path()


def readme_commands() -> tuple[str, str]:
    """The demo and the tests: the lines of README.md that begin with "pip install"."""
    lines = (ROOT / "README.md").read_text().splitlines()
    demo, tests = [line for line in lines if line.startswith("pip install -r requirements.txt")]
    return demo, tests


def shell(session: nox.Session, command: str) -> None:
    """Runs a command of README in the session's environment."""
    session.run("bash", "-c", command, external=True)


@nox.session(python=PYTHONS, venv_backend="venv")
def tests(session: nox.Session) -> None:
    """README's second command: the fast tests. Arguments go to pytest."""
    shell(session, " ".join([readme_commands()[1], *session.posargs]))


@nox.session(python=PYTHONS, venv_backend="venv")
def demo(session: nox.Session) -> None:
    """README's first command. Arguments go to it: `-- --config.train.steps=60` shortens it."""
    shell(session, " ".join([readme_commands()[0], *(session.posargs or _in(session))]))


def _in(session: nox.Session) -> list[str]:
    """Flags that keep the data and the run of the demo in the session's own folder."""
    folder = pathlib.Path(session.create_tmp())
    shutil.rmtree(folder, ignore_errors=True)
    return [
        f"--workdir={folder}/run", f"--config.data.manual_dir={folder}/manual",
        f"--config.data.data_dir={folder}/tfds",
    ]  # fmt: skip


@nox.session(python=PYTHONS, venv_backend="venv", name="readme")
def readme(session: nox.Session) -> None:
    """README's two commands in one environment, the demo shortened: what CI runs."""
    demo, tests = readme_commands()
    shell(session, tests)
    shell(session, " ".join([demo, "--config.train.steps=60", *_in(session)]))


@nox.session(name="tests-lowest", python=LOWEST)
def tests_lowest(session: nox.Session) -> None:
    """The fast tests on the lowest version of every direct requirement."""
    session.install("--resolution=lowest-direct", *TEST)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(name="tests-newest", python=MAIN)
def tests_newest(session: nox.Session) -> None:
    """The fast tests on the newest release of everything: what the next upper bound will meet."""
    files = []
    for name in ("requirements.txt", "requirements-test.txt"):
        files += ["-r", str(pathlib.Path(session.create_tmp()) / name)]
        pathlib.Path(files[-1]).write_text(without_upper_bounds((ROOT / name).read_text()))
    session.install(*files)
    session.run("uv", "pip", "list", external=True)
    bounds = "tests/cli/versions_test.py::test_the_versions_of_this_environment_are_silent"
    session.run("python", "-m", "pytest", "--deselect", bounds, *session.posargs)


def without_upper_bounds(requirements: str) -> str:
    """`av>=17,<20` -> `av>=17`.

    Example:
      >>> without_upper_bounds("av>=17,<20  # decoding\\ntqdm<5,>=4")
      'av>=17  # decoding\\ntqdm>=4'
    """
    return re.sub(r",<[\w.]+|<[\w.]+,", "", requirements)


@nox.session(python=PYTHONS)
def constraints(session: nox.Session) -> None:
    """Runs the fast tests on what is newest within the bounds and writes constraints/py3XX.txt."""
    session.install(*TEST)
    session.run("python", "-m", "pytest", *session.posargs)
    frozen = str(session.run("uv", "pip", "freeze", external=True, silent=True))
    lines = [line for line in frozen.splitlines(keepends=True) if "==" in line]
    head = (
        f"# Versions with which the tests passed on Python {session.python} and Linux (x86-64);\n"
        f"# `nox -s constraints-{session.python}` writes them.\n"
        f"#   pip install -r requirements.txt -c constraints/{_file(session)}\n"
    )
    (ROOT / "constraints").mkdir(exist_ok=True)
    (ROOT / "constraints" / _file(session)).write_text(head + "".join(lines))


def _file(session: nox.Session) -> str:
    return f"py{str(session.python).replace('.', '')}.txt"


@nox.session(python=MAIN)
def slow(session: nox.Session) -> None:
    """The slow tests. Arguments go to pytest."""
    session.install(*TEST)
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs)


@nox.session(python=LOWEST)
@nox.parametrize("resolution", ["highest", "lowest-direct"], ids=["highest", "lowest"])
def parity(session: nox.Session, resolution: str) -> None:
    """What torch is needed for: the models against transformers, and tests inside mteb."""
    # pip for torch: it takes a CPU build from where pip is told to look for one.
    session.install("pip")
    session.run("python", "-m", "pip", "install", "-q", "-r", "requirements-parity.txt")
    asked = ("-r", "requirements-parity.txt", "-r", "requirements-mteb.txt")
    session.install(f"--resolution={resolution}", *TEST, *asked)
    session.run("python", "-m", "pytest", "-m", "slow", "-n", "0", "tests/models/parity_test.py")
    tests = ("tests/integrations", "tests/docstrings_test.py", "-k", "integrations")
    session.run("python", "-m", "pytest", "-n", "0", *tests, env={"HF_HUB_OFFLINE": "1"})


@nox.session(python=[LOWEST, MAIN])
@nox.parametrize("resolution", ["highest", "lowest-direct"], ids=["highest", "lowest"])
def export(session: nox.Session, resolution: str) -> None:
    """Export to StableHLO and ONNX, run again and compared with JAX."""
    session.install(f"--resolution={resolution}", *TEST, "-r", "requirements-export.txt")
    test = ("tests/export",)
    session.run("python", "-m", "pytest", "-m", "slow or not slow", *test)


@nox.session(python=LOWEST)
def aot(session: nox.Session) -> None:
    """The training step compiled for TPUs that are not there."""
    session.install(*TEST, "-r", "requirements-tpu.txt")
    session.run("python", "-m", "pytest", "-m", "slow", "-n", "0", "tests/benchmarks/aot_test.py")


@nox.session(python=[LOWEST, MAIN])
@nox.parametrize("resolution", ["highest", "lowest-direct"], ids=["highest", "lowest"])
def beam(session: nox.Session, resolution: str) -> None:
    """Building with Apache Beam, which has an environment of its own."""
    workers = session.create_tmp()
    session.run("uv", "venv", "--clear", "-q", f"--python={session.python}", f"{workers}/beam",
                external=True)  # fmt: skip
    python = f"{workers}/beam/bin/python"
    session.run("uv", "pip", "install", "-q", f"--python={python}", f"--resolution={resolution}",
                "-r", "requirements-beam.txt", external=True)  # fmt: skip
    session.install(*TEST)
    test = ("tests/tfds_builders/build_test.py", "-k", "beam")
    session.run("python", "-m", "pytest", "-m", "slow", "-n", "0", *test,
                env={"NCL_BEAM_PYTHON": python})  # fmt: skip


@nox.session(python=MAIN)
@nox.parametrize("resolution", ["highest", "lowest-direct"], ids=["highest", "lowest"])
def docs(session: nox.Session, resolution: str) -> None:
    """The documentation site to build/site; any warning fails. `-- serve` shows it instead."""
    session.install(f"--resolution={resolution}", "-r", "requirements-docs.txt")
    command = session.posargs or ("build", "--strict")
    session.run("mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python=MAIN)
@nox.parametrize("resolution", ["highest", "lowest-direct"], ids=["highest", "lowest"])
def lint(session: nox.Session, resolution: str) -> None:
    """Ruff and mypy, of the highest and the lowest version that requirements-test.txt allows."""
    session.install(*TEST)
    lines = (ROOT / "requirements-test.txt").read_text().splitlines()
    tools = [line for line in lines if line.startswith(("ruff", "mypy"))]
    session.install("--reinstall", f"--resolution={resolution}", *tools)
    session.run("ruff", "check", ".")
    session.run("mypy")
