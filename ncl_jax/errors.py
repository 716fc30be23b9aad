"""Bad input and faults of the program: what each looks like, and what must never be mixed up.

Bad input is an `InputError` (or an `OSError` of the system): commands print its one sentence and
exit with code 2. Everything else is a fault of the program or of a library whose version does not
fit: commands print the traceback and exit with code 1.
"""

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator


class InputError(ValueError):
    """Input that cannot be used; the message says what was expected, what came, what to do."""


def check_choice(what: str, value: object, choices: Iterable[object]) -> None:
    """Refuses what is not among the choices, with the nearest of them.

    Raises:
      InputError: as said.

    Example:
      >>> try:
      ...     check_choice("loss.name", "infonec", ("ncl", "infonce"))
      ... except InputError as error:
      ...     print(error)
      loss.name: expected one of ncl, infonce, got 'infonec'; did you mean infonce?
    """
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(map(str, choices))
        hint = did_you_mean(value, choices)
        raise InputError(f"{what}: expected one of {listed}, got {value!r}{hint}")


def check_text(text: str, what: str) -> None:
    """Refuses text that no file can hold: half of a surrogate pair, as broken JSON escapes give.

    Raises:
      InputError: as said.

    Example:
      >>> try:
      ...     check_text("a dog \\ud83d", "a.json")
      ... except InputError as error:
      ...     print(error)
      a.json: expected text, got half of a surrogate pair in 'a dog \\ud83d'; repair or drop it
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.start + 20]
        raise InputError(
            f"{what}: expected text, got half of a surrogate pair in {near!r}; repair or drop it"
        ) from None


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """The end of a sentence: "; did you mean X?", or "" if no choice is near.

    Example:
      >>> did_you_mean("serch", ["build", "search"])
      '; did you mean search?'
    """
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], 1)
    return f"; did you mean {near[0]}?" if near else ""


BUGS = (AssertionError, AttributeError, ImportError, NameError, NotImplementedError, TypeError)
"""What a bug raises, or a library of another version: no file is to blame for these."""


@contextlib.contextmanager
def blame_input(
    problem: str, advice: str, control: Callable[[], object] | None = None
) -> Iterator[None]:
    """Turns whatever a library raises about a file into an `InputError`; `BUGS` pass unchanged.

    Put nothing inside but the library's call on the file. A panic of a library in Rust, which is
    no `Exception`, is about the file too.

    Args:
      problem: start of the sentence, as "a.json: expected a tokenizer"; the library's reason
        follows, without any advice to read the file unsafely.
      advice: end of the sentence: what to do.
      control: where odd files make the library raise what a bug does: the same call on a file
        that is sound. If that ends well, the file is to blame.

    Raises:
      InputError: the library has raised something else than one of `BUGS`.

    Example:
      >>> try:
      ...     with blame_input("n.txt: expected a whole number", "repair it"):
      ...         int("1.5")
      ... except InputError as error:
      ...     print(error)
      n.txt: expected a whole number (invalid literal for int() with base 10: '1.5'); repair it
    """
    try:
        yield
    except InputError:
        raise
    except BUGS as error:
        if control is None:
            raise
        try:
            control()
        except Exception:
            raise error from None
        raise InputError(f"{problem} ({reason(error)}); {advice}") from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{problem} ({reason(error)}); {advice}") from error


_UNSAFE = (
    "allow_pickle", "weights_only", "unsafe", "trust", "pickle.load", "max_header_size",
    "field_size_limit", "set_int_max_str_digits", "setrecursionlimit", "safe_globals",
    "MAX_IMAGE_PIXELS", "literal_eval",
)  # fmt: skip
"""Words of advice to read a file without a limit or a check."""


def reason(error: BaseException) -> str:
    """An error in at most 200 characters of one line; its type where it has no words.

    Sentences in which a library advises to read the file unsafely are left out.

    Example:
      >>> reason(ValueError("It holds objects. Load it by allow_pickle=True."))
      'It holds objects.'
    """
    text = getattr(error, "strerror", None) or str(error)
    sentences = re.split(r"(?<=[.;:!\n])\s+", str(text)[:2000])
    kept = " ".join(s for s in sentences if not any(word in s for word in _UNSAFE)).split()
    return " ".join(kept)[:200] or type(error).__name__
