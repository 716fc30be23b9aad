"""How many public docstrings state shapes and errors and carry an example that runs.

    python -m tests.contracts                     # the names that `import ncl_jax` offers
    python -m tests.contracts optax "ott.*"       # other packages; .* walks all modules
    python -m tests.contracts --missing           # names what each share lacks

Units are the public functions, classes and methods of a module: those in its `__all__`, or those
that it defines. The same rules serve every package:

- shapes: of units with arrays among their annotations, those whose text (without the sections
  Raises and Examples) says "shape" or names axes in brackets, as [text, video];
- errors: of functions and methods with parameters, those with a section on what is raised; and the
  same of those whose code, or a helper it calls in its module, has a `raise`;
- example: of all units, those with doctest lines; a method may have them in its class's docstring.
"""

import argparse
import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

OURS = ("losses", "sinkhorn", "metrics", "normalizers", "index", "pretrained")
ARRAYS = re.compile(r"Array|ndarray|Scores|Float\[")
AXES = re.compile(r"\[[a-z]\w*(?:, ?\w+)*,?\]|\bshaped?\b")
RAISES = re.compile(r"^ *(?::raises?\b|\.\. rubric:: Raises|(?:Returns, )?Raises\b)", re.MULTILINE)
EXAMPLE = re.compile(r"^ *>>> |^ *\.\. testcode", re.MULTILINE)
CUT = re.compile(
    r"^( *)(?:Raises|Examples?):.*?(?=^\1\S|\Z)|^ *>>> .*?(?=^\s*$|\Z)", re.MULTILINE | re.DOTALL
)


class Unit(NamedTuple):
    """A public function, class or method."""

    name: str
    thing: Any
    owner: type | None = None

    @property
    def text(self) -> str:
        return inspect.cleandoc(self.thing.__doc__ or "")

    @property
    def parameters(self) -> list[inspect.Parameter]:
        try:
            found = inspect.signature(self.thing).parameters.values()
        except (TypeError, ValueError):
            return []
        return [p for p in found if p.name not in ("self", "cls")]

    @property
    def takes_arrays(self) -> bool:
        """Whether arrays are among the annotations, or among the fields of a class."""
        if isinstance(self.thing, type):
            noted = {**getattr(self.thing, "__annotations__", {}),
                     **{p.name: p.annotation for p in self.parameters}}  # fmt: skip
        else:
            noted = getattr(self.thing, "__annotations__", {})
        return any(ARRAYS.search(str(note)) for note in noted.values())

    @property
    def is_call(self) -> bool:
        return not isinstance(self.thing, type) and bool(self.parameters)

    @property
    def raises(self) -> bool:
        """Whether its code, or a function of its module that it calls, has a `raise`."""
        code = _source(self.thing)
        module = vars(inspect.getmodule(self.thing) or types)
        called = {module.get(name) for name in re.findall(r"\b(\w+)\(", code)}
        helpers = [x for x in called if isinstance(x, types.FunctionType)]
        return any(re.search(r"^\s+raise\b", _source(x), re.MULTILINE)
                   for x in (self.thing, *helpers))  # fmt: skip

    @property
    def states_shapes(self) -> bool:
        return bool(AXES.search(CUT.sub("", self.text)))

    @property
    def states_errors(self) -> bool:
        return bool(RAISES.search(self.text) or re.search(r"\bRaises \w*Error\b", self.text))

    @property
    def has_example(self) -> bool:
        if EXAMPLE.search(self.text):
            return True
        name = self.name.rpartition(".")[2]
        examples = "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) .*$", inspect.getdoc(self.owner) or "",
                                        re.MULTILINE)) if self.owner else ""  # fmt: skip
        return f".{name}(" in examples


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""


def units(modules: Sequence[types.ModuleType]) -> list[Unit]:
    """The units of the modules, each once however often it is exported."""
    found: dict[int, Unit] = {}
    for module in modules:
        for name, thing in _exported(module):
            for unit in _with_methods(f"{module.__name__}.{name}", thing):
                found.setdefault(id(inspect.unwrap(unit.thing)), unit)
    return list(found.values())


def _exported(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    package = module.__name__.partition(".")[0]
    for name in getattr(module, "__all__", None) or vars(module):
        thing = getattr(module, name, None)
        home = getattr(thing, "__module__", "") or ""
        inside = f"{home}.".startswith(f"{module.__name__}.") or (
            hasattr(module, "__all__") and home.partition(".")[0] == package
        )
        if not name.startswith("_") and inside and (inspect.isclass(thing) or callable(thing)):
            yield name, thing


def _with_methods(name: str, thing: Any) -> Iterator[Unit]:
    if inspect.isclass(thing) or inspect.isfunction(inspect.unwrap(thing)):
        yield Unit(name, thing)
    if inspect.isclass(thing):
        package = thing.__module__.partition(".")[0]
        for member in dir(thing):
            value = getattr(thing, member, None)
            plain = getattr(value, "__func__", value)
            inside = str(getattr(plain, "__module__", "")).partition(".")[0] == package
            if not member.startswith("_") and inside and inspect.isfunction(plain):
                yield Unit(f"{name}.{member}", plain, thing)


def modules(names: Sequence[str]) -> list[types.ModuleType]:
    """The modules named; `package.*` stands for all public ones below it that can be imported."""
    found = []
    for name in names:
        module = importlib.import_module(name.removesuffix(".*"))
        found.append(module)
        if name.endswith(".*"):
            for info in pkgutil.walk_packages(module.__path__, f"{module.__name__}."):
                if not any(part.startswith("_") for part in info.name.split(".")):
                    try:
                        found.append(importlib.import_module(info.name))
                    except ImportError:
                        print(f"not imported: {info.name}")
    return found


def lacking(found: Sequence[Unit]) -> dict[str, tuple[int, list[str]]]:
    """Requirement -> (units it applies to, names of those that do not meet it)."""
    rules = {
        "shapes": ([u for u in found if u.takes_arrays], lambda u: u.states_shapes),
        "errors": ([u for u in found if u.is_call], lambda u: u.states_errors),
        "errors, of those that raise": (
            [u for u in found if u.is_call and u.raises], lambda u: u.states_errors
        ),
        "example": (list(found), lambda u: u.has_example),
        "docstring": (list(found), lambda u: bool(u.text)),
    }  # fmt: skip
    return {
        rule: (len(applies), [u.name for u in applies if not met(u)])
        for rule, (applies, met) in rules.items()
    }


def shares(found: Sequence[Unit]) -> dict[str, float]:
    """Requirement -> share of the units that meet it, in percent."""
    return {
        rule: 100 * (1 - len(names) / max(1, count))
        for rule, (count, names) in lacking(found).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=[f"ncl_jax.{name}" for name in OURS])
    parser.add_argument("--missing", action="store_true", help="name what is missing")
    args = parser.parse_args()
    found = units(modules(args.modules))
    for rule, (count, names) in lacking(found).items():
        print(f"{rule}: {count - len(names)} of {count}, {shares(found)[rule]:.0f} %")
        if args.missing:
            print("".join(f"  {name}\n" for name in names), end="")


if __name__ == "__main__":
    main()
