"""How commands end when they are interrupted, when input is bad, and when they have a bug."""

import subprocess
import sys

import pytest

from ncl_jax.cli import convert, exits, index, metrics, normalize, report, serve
from ncl_jax.cli.entry import COMMANDS
from ncl_jax.errors import BUGS, InputError, blame_input
from tfds_builders import check


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "arguments", "where"),
    [
        (convert, ["w.pt", "out"], "ncl_jax.models.weights.read"),
        (index, ["search", "i", "--query", "q.npy"], "ncl_jax.index.RetrievalIndex.load"),
        (metrics, ["--scores", "s.npy"], "ncl_jax.cli.inputs.load"),
        (normalize, ["--scores", "s.npy"], "ncl_jax.cli.inputs.load"),
        (report, ["html", "run"], "ncl_jax.report.runs.load"),
        (serve, ["--index", "i"], "ncl_jax.index.RetrievalIndex.load"),
    ],
)  # fmt: skip
def test_an_interrupt_is_one_word(command, arguments, where, monkeypatch, capsys):
    monkeypatch.setattr(where, interrupt)
    assert command.main(arguments) == 130
    *begun, last = capsys.readouterr().err.splitlines()
    assert last == "interrupted"
    assert all(line.endswith(" ...") for line in begun)


def fail(error):
    raise error


@pytest.mark.parametrize("ending", [exits.run_cli, check.run])
def test_only_bad_input_is_a_sentence(ending, capsys):
    for error in (InputError("expected a, got b"), FileNotFoundError("expected a, got b")):
        assert ending(lambda e=error: fail(e)) == 2
        assert "expected a, got b" in capsys.readouterr().err
    for fault in (ValueError("shapes differ"), TypeError("planted"), RuntimeError("planted")):
        with pytest.raises(type(fault), match=str(fault)):  # a traceback and code 1
            ending(lambda e=fault: fail(e))


def test_a_library_may_blame_a_file_but_not_for_a_bug():
    for error in (ValueError("noise at 3"), RuntimeError("noise at 3"), OSError("noise at 3")):
        said = pytest.raises(InputError, match=r"^a: expected b \(noise at 3\); repair it$")
        with said, blame_input("a: expected b", "repair it"):
            raise error
    for bug in BUGS:
        with pytest.raises(bug, match="planted"), blame_input("a: expected b", "repair it"):
            raise bug("planted")
    with pytest.raises(InputError, match=r"^said already$"), blame_input("a", "b"):
        raise InputError("said already")


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_a_command_says_what_it_does_before_it_imports_what_takes_long(module):
    """What reads the arguments, and says the first line, waits for none of these."""
    slow = ["jax", "flax", "orbax", "tensorflow", "matplotlib", "scipy"]
    code = f"import sys, {module}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
