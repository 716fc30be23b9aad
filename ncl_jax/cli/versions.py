"""Whether the installed packages are of versions that ncl_jax was tested with."""

import contextlib
import functools
import importlib.metadata
import pathlib
import sys

from packaging.requirements import Requirement
from packaging.version import Version

from ncl_jax.errors import InputError

_FILE = pathlib.Path(__file__).parents[2] / "requirements.txt"


def check() -> None:
    """Looks at every package that is installed, without importing any.

    A package newer than those tested is named on stderr, as it may work.

    Raises:
      InputError: one is older, so that it may do another thing in silence.
    """
    for requirement in _requirements():
        try:
            installed = Version(importlib.metadata.version(requirement.name))
        except importlib.metadata.PackageNotFoundError:
            continue  # where it is needed, its import says so
        if requirement.specifier.contains(installed, prereleases=True):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        problem = f"{requirement.name}: expected {requirement.specifier}, got {installed}"
        if _is_older(installed, requirement):
            raise InputError(f'{problem}; pip install "{wanted}"')
        print(
            f'{problem}, with which ncl_jax was not tested; if it fails, pip install "{wanted}"',
            file=sys.stderr,
        )


def _is_older(installed: Version, requirement: Requirement) -> bool:
    floors = (s.version for s in requirement.specifier if s.operator in (">=", "=="))
    return any(installed < Version(floor) for floor in floors)


@functools.cache
def _requirements() -> tuple[Requirement, ...]:
    """Those of the checkout or of the installed distribution; none for a bare copy."""
    lines: list[str] = []
    if _FILE.exists():
        lines = [line.partition("#")[0].strip() for line in _FILE.read_text().splitlines()]
    else:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines = importlib.metadata.requires("ncl_jax") or []
    found = map(Requirement, filter(None, lines))
    return tuple(r for r in found if r.marker is None or r.marker.evaluate({"extra": ""}))
