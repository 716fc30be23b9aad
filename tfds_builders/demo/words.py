"""The vocabulary of the demo captions: several ways to say each attribute.

A verb is marked by `~`, so that `inflect` can bend it: 'glide~ to the left'.
"""

import re

SHAPES = {
    "circle": ("ball", "circle", "disc"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "triangle", "pyramid"),
}
COLOURS = {
    "red": ("red", "bright red"),
    "yellow": ("yellow", "bright yellow"),
    "blue": ("blue", "bright blue"),
}
TEXTURES = {
    "flat": ("plain", "solid"),
    "striped": ("striped", "stripy"),
}
COUNTS = {2: ("two", "a pair of")}
PLACES = {
    "grass": ("on the grass", "on a lawn", "on a meadow", "on a grassy field"),
    "night": ("at night", "in the dark", "under the moon", "in the night sky"),
    "sand": ("on the sand", "on a sandy beach", "in the desert", "on a beach"),
}
MOTIONS = {
    "left": ("move~ left", "glide~ to the left", "slide~ towards the left", "travel~ leftwards"),
    "right": ("move~ right", "glide~ to the right", "slide~ towards the right",
              "travel~ rightwards"),
    "up": ("move~ up", "rise~", "climb~ upwards", "float~ upwards"),
    "down": ("move~ down", "sink~", "drop~ downwards", "descend~"),
    "grow": ("grow~", "get~ bigger", "expand~", "become~ larger"),
    "shrink": ("shrink~", "get~ smaller", "contract~", "become~ smaller"),
}  # fmt: skip
SPEEDS = {"slowly": ("slowly", "gently"), "quickly": ("quickly", "fast")}


def inflect(phrase: str, form: str) -> str:
    """Bends every marked verb: form 's' (it moves), '' (they move) or 'ing' (moving)."""
    return re.sub(r"(\w+)~", lambda match: _bend(match[1], form), phrase)


def _bend(verb: str, form: str) -> str:
    if form == "s":
        return verb + ("es" if re.search(r"(sh|ch|s|x|o)$", verb) else "s")
    if form == "ing":
        if re.search(r"[^aeiou][aeiou][pnt]$", verb):  # hop -> hopping
            verb += verb[-1]
        return re.sub(r"e$", "", verb) + "ing"
    return verb


def plural(noun: str) -> str:
    """'box' -> 'boxes', 'star' -> 'stars'."""
    return noun + ("es" if noun.endswith(("x", "s")) else "s")


def with_article(words: str) -> str:
    """'orange ball' -> 'an orange ball'."""
    return ("an " if words[0] in "aeiou" else "a ") + words
