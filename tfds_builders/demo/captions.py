"""Sentences for the scenes of the demo corpus, in varied wording and varied detail.

Templates name phrases: {a} the thing, {first} and {then} what it does ('bounces'), {doing_first}
and {doing_then} the same as 'bouncing', {place} 'on a beach' or nothing.
"""

import numpy as np

from tfds_builders.demo import words
from tfds_builders.demo.scenes import Event, Scene

# One event all along.
_STEADY = (
    "{a} {first} {place}",
    "{a} {is_} {doing_first} {place}",
    "{a} {keeps} {doing_first} {place}",
    "there {is_} {a} {doing_first} {place}",
    "{place} {a} {first} again and again",
    "we see {a} {doing_first} {place} all the time",
)
# Two events; each template states their order.
_ORDERED = (
    "first {a} {first} and then {they} {then} {place}",
    "{place} {a} {first} before {they} {then}",
    "{a} {first} and then {then} {place}",
    "{a} {starts} by {doing_first} and {ends} by {doing_then} {place}",
    "after {doing_first} {a} {then} {place}",
    "{a} {first} at first and {then} afterwards {place}",
)
_LOOSE = ("{a} {is_} {doing_first} and {doing_then} {place}", "{place} {a} {first} and {then}")
_LOOSE_SHARE = 0.4  # of the captions of a clip whose order need not be told


def write_captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Writes five to ten different captions; those of an order pair all state the order."""
    wanted = int(rng.integers(5, 11))
    captions: dict[str, None] = {}  # a set that keeps its order
    while len(captions) < wanted:
        captions[_sentence(scene, rng)] = None
    return list(captions)


def _sentence(scene: Scene, rng: np.random.Generator) -> str:
    detail = float(rng.choice((0.35, 0.7, 0.9)))  # share of the attributes that is mentioned
    many = scene.thing.copies > 1
    (first, doing_first), (then, doing_then) = (
        _doings(event, many, detail, rng) for event in scene.events
    )
    phrases = {
        "a": _name(scene, detail, rng),
        "first": first,
        "doing_first": doing_first,
        "then": then,
        "doing_then": doing_then,
        "they": "they" if many else "it",
        "place": _pick(words.PLACES[scene.background], rng) if rng.random() < detail else "",
        "is_": "are" if many else "is",
        "keeps": "keep" if many else "keeps",
        "starts": "start" if many else "starts",
        "ends": "end" if many else "ends",
    }
    return " ".join(_template(scene, rng).format(**phrases).split())


def _template(scene: Scene, rng: np.random.Generator) -> str:
    if scene.steady:
        return _pick(_STEADY, rng)
    loose = not scene.paired and rng.random() < _LOOSE_SHARE
    return _pick(_LOOSE if loose else _ORDERED, rng)


def _doings(
    event: Event, many: bool, detail: float, rng: np.random.Generator
) -> tuple[str, str]:
    """The finite and the -ing form of one event, in one and the same wording."""
    phrase = _pick(words.MOTIONS[event.motion], rng)
    if event.speed and rng.random() < detail:
        phrase += " " + _pick(words.SPEEDS[event.speed], rng)
    return words.inflect(phrase, "" if many else "s"), words.inflect(phrase, "ing")


def _name(scene: Scene, detail: float, rng: np.random.Generator) -> str:
    """'a striped red ball', 'two bright blue squares'; colour and shape are always said."""
    thing = scene.thing
    noun = f"{_pick(words.COLOURS[thing.colour], rng)} {_pick(words.SHAPES[thing.shape], rng)}"
    # Plainness is what people leave out first.
    if rng.random() < detail * (0.4 if thing.texture == "flat" else 1):
        noun = f"{_pick(words.TEXTURES[thing.texture], rng)} {noun}"
    if thing.copies == 1:
        return words.with_article(noun)
    return f"{_pick(words.COUNTS[thing.copies], rng)} {words.plural(noun)}"


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
