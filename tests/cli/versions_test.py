"""Installed versions outside the bounds of requirements.txt."""

import importlib.metadata
import re

import pytest

from ncl_jax.cli import versions
from ncl_jax.errors import InputError

REAL = importlib.metadata.version


def installed(monkeypatch, name, version):
    def of(package):
        return version if package == name else REAL(package)

    monkeypatch.setattr(importlib.metadata, "version", of)


def test_the_versions_of_this_environment_are_silent(capsys):
    versions.check()
    assert capsys.readouterr().err == ""


def test_an_older_package_is_refused_with_what_to_install(monkeypatch):
    installed(monkeypatch, "numpy", "2.0.2")
    said = r"^numpy: expected <3,>=2\.1, got 2\.0\.2; pip install \"numpy<3,>=2\.1\"$"
    with pytest.raises(InputError, match=said):
        versions.check()


def test_a_newer_package_is_named_and_tried(monkeypatch, capsys):
    installed(monkeypatch, "av", "20.0.0")
    versions.check()
    err = capsys.readouterr().err
    assert re.match(r"av: expected <20,>=\S+, got 20\.0\.0, with which ncl_jax was not tested", err)


def test_a_release_candidate_within_the_bounds_is_silent(monkeypatch, capsys):
    installed(monkeypatch, "scipy", "1.99.0rc1")
    versions.check()
    assert capsys.readouterr().err == ""


def test_an_absent_package_is_left_to_its_import(monkeypatch):
    def absent(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    versions.check()


def test_an_installed_package_reads_its_own_metadata(monkeypatch, tmp_path):
    lines = ["numpy<3,>=2.1", 'flask<4,>=3.1; extra == "serve"', "av<20,>=17",
             'colorama>=9; sys_platform == "win32" and extra == "serve"']  # fmt: skip
    monkeypatch.setattr(versions, "_ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("numpy>=99")  # some package's, in site-packages
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    versions._requirements.cache_clear()
    assert [str(r) for r in versions._requirements()] == lines[:3]
    versions._requirements.cache_clear()
