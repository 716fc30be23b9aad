"""The vocabulary of the demo captions: several ways to say each attribute.

A verb is marked by `~`, so that `inflect` can bend it: 'disappear~ and come~ back'.
"""

import re

SHAPES = {
    "circle": ("ball", "circle", "disc"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "triangle", "pyramid"),
    "star": ("star", "star", "five-pointed star"),
    "ring": ("ring", "hoop", "donut"),
    "cross": ("cross", "plus sign", "plus"),
}
COLOURS = {
    "red": ("red", "bright red"),
    "orange": ("orange",),
    "yellow": ("yellow", "bright yellow"),
    "green": ("green",),
    "blue": ("blue", "bright blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "white": ("white",),
}
TEXTURES = {
    "flat": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted", "polka dot"),
    "checkered": ("checkered", "checked"),
}
SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
COUNTS = {2: ("two", "a pair of"), 3: ("three", "a group of three")}
PLACES = {
    "grass": ("on the grass", "on a lawn", "on a meadow", "on a grassy field"),
    "sky": ("in the sky", "in a cloudy sky", "in front of white clouds", "up in the air"),
    "night": ("at night", "in the dark", "under the moon", "in the night sky"),
    "sand": ("on the sand", "on a sandy beach", "in the desert", "on a beach"),
    "brick": ("in front of a brick wall", "against a brick wall", "on a wall of bricks"),
    "water": ("on the water", "over the waves", "at sea", "on the sea"),
}
MOTIONS = {
    "left": ("move~ left", "glide~ to the left", "slide~ towards the left", "travel~ leftwards"),
    "right": ("move~ right", "glide~ to the right", "slide~ towards the right",
              "travel~ rightwards"),
    "up": ("move~ up", "rise~", "climb~ upwards", "float~ upwards"),
    "down": ("move~ down", "sink~", "drop~ downwards", "descend~"),
    "bounce": ("bounce~", "bounce~ up and down", "hop~", "jump~ up and down"),
    "spin": ("spin~", "rotate~", "turn~ around", "twirl~"),
    "grow": ("grow~", "get~ bigger", "expand~", "become~ larger"),
    "shrink": ("shrink~", "get~ smaller", "contract~", "become~ smaller"),
    "blink": ("blink~", "flash~ on and off", "disappear~ and come~ back", "vanish~ and return~"),
    "shake": ("shake~", "wobble~", "tremble~", "jitter~ from side to side"),
    "loop": ("move~ in a circle", "go~ round and round", "travel~ in a loop", "circle~ around"),
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
