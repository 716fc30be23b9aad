"""Whether the installed packages are of versions that ncl_jax was tested with."""

import contextlib
import functools
import importlib.metadata
import pathlib
import re
import sys
from typing import TYPE_CHECKING

from ncl_jax.errors import InputError

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version

_ROOT = pathlib.Path(__file__).parents[2]


def check() -> None:
    """Looks at every package that is installed, without importing any of them.

    A package newer than those tested is named on stderr, as it may work.

    Raises:
      InputError: one is older, so that it may do another thing in silence.
    """
    try:
        from packaging.version import Version
    except ImportError:  # every extra brings it; without one, pip has checked what little there is
        return
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


def _is_older(installed: "Version", requirement: "Requirement") -> bool:
    from packaging.version import Version

    floors = (s.version for s in requirement.specifier if s.operator in (">=", "=="))
    return any(installed < Version(floor) for floor in floors)


@functools.cache
def _requirements() -> "tuple[Requirement, ...]":
    """Those of the checkout or of the installed distribution; none for a bare copy."""
    from packaging.requirements import Requirement

    lines: list[str] = []
    if (_ROOT / "pyproject.toml").exists():
        text = (_ROOT / "requirements.txt").read_text()
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    else:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines = importlib.metadata.requires("ncl_jax") or []
    return tuple(r for r in map(Requirement, filter(None, lines)) if _applies(r))


def _applies(requirement: "Requirement") -> bool:
    """Whether its marker fits this machine; what an extra asks for counts if it is installed."""
    if requirement.marker is None:
        return True
    extras = re.findall(r'extra == "([^"]+)"', str(requirement.marker)) or [""]
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
