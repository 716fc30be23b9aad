"""How commands end when they are interrupted."""

import pytest

from ncl_jax.cli import convert, index, metrics, normalize, report, serve


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
    assert capsys.readouterr().err == "interrupted\n"
