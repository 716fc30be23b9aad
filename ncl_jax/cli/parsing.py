"""Command lines that answer a mistyped word with the nearest valid one."""

import argparse
import difflib
import re
import sys
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that suggests flags and choices, and keeps the layout of descriptions."""

    def __init__(self, **options: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Prints usage and message, with a suggestion, and exits with code 2."""
        if "maybe you meant" not in message:  # Python 3.14 may suggest by itself
            message += self._suggestion(message)
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n")

    def _suggestion(self, message: str) -> str:
        if unknown := re.search(r"unrecognized arguments: .*?(--?[\w-]+)", message):
            known = list(self._option_string_actions)
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):
                    known += [o for p in action.choices.values() for o in p._option_string_actions]
            return _did_you_mean(unknown[1], known)
        if choice := re.search(r"invalid choice: '?([\w-]+)'? \(choose from (.*)\)", message):
            return _did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2]))
        return ""


def _did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
