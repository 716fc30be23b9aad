"""How the site reads the docstrings of this project."""

import re
from typing import Any

import griffe


class DocstringSections(griffe.Extension):
    """`Example:` becomes Griffe's `Examples:`; `Source:` and `Relations:` get bold titles."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(
                r"^(Source|Relations|Convention|Args, Source|Returns, Raises): ",
                r"**\1:** ",
                text,
                flags=re.MULTILINE,
            )
