"""Sentences for the scenes of the demo corpus, in varied wording and varied detail.

Templates name phrases: {a} the thing that moves first, {b} the second one (or 'it', if it is the
same), {a_does} 'bounces', {a_doing} 'bouncing', {place} 'on a beach' or nothing.
"""

import numpy as np

from tfds_builders.demo import words
from tfds_builders.demo.scenes import Event, Scene, Thing

_MOST_WORDS = 23

# One event all along.
_STEADY = (
    "{a} {a_does} {place}",
    "{a} {a_is} {a_doing} {place}",
    "{a} {a_keeps} {a_doing} {place}",
    "there {a_is} {a} {a_doing} {place}",
    "{place} {a} {a_does} again and again",
    "we see {a} {a_doing} {place} all the time",
)
# Two events of one thing; each template states their order.
_SAME_ORDERED = (
    "first {a} {a_does} and then {they} {b_does} {place}",
    "{place} {a} {a_does} before {they} {b_does}",
    "{a} {b_does} after {a_doing} {place}",
    "{a} {a_does} and then {b_does} {place}",
    "{a} {a_starts} by {a_doing} and {a_ends} by {b_doing} {place}",
    "after {a_doing} {a} {b_does} {place}",
    "{a} {a_does} at first and {b_does} afterwards {place}",
    "{place} {a} {b_does} but only after {a_doing}",
)
# Events of two things; each template states their order.
_BOTH_ORDERED = (
    "first {a} {a_does} and then {b} {b_does} {place}",
    "{place} {a} {a_does} before {b} {b_does}",
    "{b} {b_does} after {a} {a_does} {place}",
    "{a} {a_does} and then {b} {b_does} {place}",
    "the clip starts with {a} {a_doing} and ends with {b} {b_doing} {place}",
    "after {a} {a_does} {b} {b_does} {place}",
    "{place} {a} {a_does} first and {b} {b_does} later",
)
_SAME_LOOSE = ("{a} {a_is} {a_doing} and {b_doing} {place}", "{place} {a} {a_does} and {b_does}")
_BOTH_LOOSE = ("{a} {a_does} and {b} {b_does} {place}", "{place} {a} {a_does} while {b} waits")
_BYSTANDER = ("next to {other}", "beside {other}", "while {other} stays still", "near {other}")


def write_captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Writes five to ten different captions; those of an order pair all state the order."""
    wanted = int(rng.integers(5, 11))
    captions: dict[str, None] = {}  # a set that keeps its order
    while len(captions) < wanted:
        caption = _sentence(scene, rng)
        if len(caption.split()) <= _MOST_WORDS:
            captions[caption] = None
    return list(captions)


def _sentence(scene: Scene, rng: np.random.Generator) -> str:
    detail = float(rng.choice((0.35, 0.7, 0.9)))  # share of the attributes that is mentioned
    first, second = scene.events
    names = [_name(number, scene, detail, rng) for number in range(len(scene.things))]
    actor = scene.things[first.actor]
    many = actor.copies > 1
    phrases = {
        "a": names[first.actor],
        "b": names[second.actor],
        "other": names[1 - first.actor] if len(names) == 2 else "",
        "they": "they" if many else "it",
        "place": _pick(words.PLACES[scene.background], rng) if rng.random() < detail else "",
        "a_is": "are" if many else "is",
        "a_keeps": "keep" if many else "keeps",
        "a_starts": "start" if many else "starts",
        "a_ends": "end" if many else "ends",
        **_doings("a", first, actor, detail, rng),
        **_doings("b", second, scene.things[second.actor], detail, rng),
    }
    return " ".join(_template(scene, detail, rng).format(**phrases).split())


def _template(scene: Scene, detail: float, rng: np.random.Generator) -> str:
    same = scene.events[0].actor == scene.events[1].actor
    choices: tuple[str, ...]
    if scene.steady:
        choices = _STEADY
    elif scene.paired or rng.random() < 0.6:
        choices = _SAME_ORDERED if same else _BOTH_ORDERED
    else:
        choices = _SAME_LOOSE if same else _BOTH_LOOSE
    template = _pick(choices, rng)
    if same and len(scene.things) == 2 and rng.random() < detail:
        template += " " + _pick(_BYSTANDER, rng)
    return template


def _doings(
    key: str, event: Event, actor: Thing, detail: float, rng: np.random.Generator
) -> dict[str, str]:
    """The finite and the -ing form of one event, in one and the same wording."""
    phrase = _pick(words.MOTIONS[event.motion], rng)
    if event.speed and rng.random() < detail:
        phrase += " " + _pick(words.SPEEDS[event.speed], rng)
    finite = words.inflect(phrase, "s" if actor.copies == 1 else "")
    return {f"{key}_does": finite, f"{key}_doing": words.inflect(phrase, "ing")}


def _name(number: int, scene: Scene, detail: float, rng: np.random.Generator) -> str:
    """'a tiny striped red ball', 'two violet stars'; colour and shape are always said."""
    thing = scene.things[number]
    noun = f"{_pick(words.COLOURS[thing.colour], rng)} {_pick(words.SHAPES[thing.shape], rng)}"
    # Plainness is what people leave out first.
    if rng.random() < detail * (0.4 if thing.texture == "flat" else 1):
        noun = f"{_pick(words.TEXTURES[thing.texture], rng)} {noun}"
    resized = any(e.actor == number and e.motion in ("grow", "shrink") for e in scene.events)
    if not resized and rng.random() < detail:
        noun = f"{_pick(words.SIZES[thing.size], rng)} {noun}"
    if thing.copies == 1:
        return words.with_article(noun)
    return f"{_pick(words.COUNTS[thing.copies], rng)} {words.plural(noun)}"


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
