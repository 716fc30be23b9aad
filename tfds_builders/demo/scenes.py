"""What happens in the clips of the demo corpus: a small world drawn from a seed.

A clip shows one to three things before a background and two events, one after the other. Clips
come in groups: families, whose members differ in one or two attributes, and order pairs, whose
two members show the same two events in opposite order.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
TEXTURES = ("flat", "striped", "dotted", "checkered")
SIZES = ("small", "large")
BACKGROUNDS = ("grass", "sky", "night", "sand", "brick", "water")
TRAVELS = ("left", "right", "up", "down")
MOTIONS = (*TRAVELS, "bounce", "spin", "grow", "shrink", "blink", "shake", "loop")
SPEEDS = ("slowly", "quickly")

# A thing must stand out from what is behind it.
_CLASHES = {
    ("green", "grass"), ("white", "sky"), ("yellow", "sand"), ("red", "brick"),
    ("orange", "brick"), ("blue", "water"), ("green", "water"),
}  # fmt: skip
_PAIR_SHARE = 0.3  # of a split's clips belong to an order pair
_FAMILY = 3  # clips that are near neighbours of each other


class Thing(NamedTuple):
    """One thing, or several `copies` that move together."""

    shape: str
    colour: str
    texture: str
    size: str
    copies: int


class Event(NamedTuple):
    """Thing number `actor` moves; `speed` is '' except for the `TRAVELS`."""

    actor: int
    motion: str
    speed: str


class Scene(NamedTuple):
    """A whole clip.

    Attributes:
      background: one of `BACKGROUNDS`.
      things: one entry (which may count three), or two different things.
      events: first and second half of the clip.
      look: seed of what no caption mentions: places, light, grain.
      paired: member of an order pair, so that every caption has to state the order.
    """

    background: str
    things: tuple[Thing, ...]
    events: tuple[Event, Event]
    look: int
    paired: bool

    @property
    def steady(self) -> bool:
        """One event all along."""
        return self.events[0] == self.events[1]


def draw_groups(rng: np.random.Generator, clips: int, seen: set[object]) -> list[list[Scene]]:
    """Draws a split as groups of scenes, order pairs first.

    Args:
      rng: source of every choice.
      clips: scenes wanted in all.
      seen: what earlier splits hold, extended in place: no two clips of a corpus show the same
        things and events, order left aside, except for order pairs.
    """
    pairs = min(math.ceil(_PAIR_SHARE * clips / 2), clips // 2)
    groups = [_order_pair(rng, seen) for _ in range(pairs)]
    left = clips - 2 * pairs
    while left:
        groups.append(_family(rng, min(_FAMILY, left), seen))
        left -= len(groups[-1])
    return groups


def _order_pair(rng: np.random.Generator, seen: set[object]) -> list[Scene]:
    scene = next(_unseen(_scenes(rng, paired=True), seen))
    return [scene, scene._replace(events=scene.events[::-1])]


def _family(rng: np.random.Generator, size: int, seen: set[object]) -> list[Scene]:
    base = next(_unseen(_scenes(rng, paired=False), seen))
    relatives = _unseen(_neighbours(rng, base), seen)
    return [base, *(next(relatives) for _ in range(size - 1))]


def _unseen(scenes: Iterator[Scene], seen: set[object]) -> Iterator[Scene]:
    for scene in scenes:
        key = (scene.background, scene.things, tuple(sorted(scene.events)))
        if key not in seen and _sensible(scene):
            seen.add(key)
            yield scene


def _sensible(scene: Scene) -> bool:
    """Whether a person could see in six small frames what the captions will say."""
    if any((thing.colour, scene.background) in _CLASHES for thing in scene.things):
        return False
    kinds = {(thing.shape, thing.colour) for thing in scene.things}
    turning = (scene.things[e.actor] for e in scene.events if e.motion == "spin")
    return len(kinds) == len(scene.things) and all(map(_turns_visibly, turning))


def _turns_visibly(thing: Thing) -> bool:
    return thing.shape not in ("circle", "ring") or thing.texture in ("striped", "checkered")


def _scenes(rng: np.random.Generator, *, paired: bool) -> Iterator[Scene]:
    while True:
        copies = int(rng.choice((1, 1, 1, 2, 3)))
        things = [_thing(rng, copies)]
        if copies == 1 and rng.random() < 0.5:
            things.append(_thing(rng, 1))
        first, second = _event(rng, len(things)), _event(rng, len(things))
        if not paired and rng.random() < 0.45:
            second = first
        # 'It rises fast, then slowly' reads the same both ways once a caption omits the speeds.
        if first[:2] != second[:2] or (first == second and not paired):
            look = int(rng.integers(2**31))
            background = _pick(rng, BACKGROUNDS)
            yield Scene(background, tuple(things), (first, second), look, paired)


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _thing(rng: np.random.Generator, copies: int) -> Thing:
    size = "small" if copies == 3 else _pick(rng, SIZES)
    shape, colour, texture = (_pick(rng, names) for names in (SHAPES, COLOURS, TEXTURES))
    return Thing(shape, colour, texture, size, copies)


def _event(rng: np.random.Generator, things: int) -> Event:
    motion = _pick(rng, MOTIONS)
    speed = _pick(rng, SPEEDS) if motion in TRAVELS else ""
    return Event(int(rng.integers(things)), motion, speed)


def _neighbours(rng: np.random.Generator, base: Scene) -> Iterator[Scene]:
    """Scenes that differ from `base` in one or two attributes, and in their look."""
    while True:
        scene = base._replace(look=int(rng.integers(2**31)))
        for _ in range(rng.integers(1, 3)):
            scene = _change(rng, scene)
        yield scene


def _change(rng: np.random.Generator, scene: Scene) -> Scene:
    what = _pick(rng, ("background", "shape", "colour", "texture", "motion", "motion"))
    if what == "background":
        return scene._replace(background=_pick(rng, BACKGROUNDS))
    if what == "motion":
        first, changed = scene.events[0], _event(rng, len(scene.things))
        return scene._replace(events=(changed if scene.steady else first, changed))
    which = int(rng.integers(len(scene.things)))
    thing = scene.things[which]
    if what == "shape":
        thing = thing._replace(shape=_pick(rng, SHAPES))
    elif what == "colour":
        thing = thing._replace(colour=_pick(rng, COLOURS))
    else:
        thing = thing._replace(texture=_pick(rng, TEXTURES))
    return scene._replace(things=(*scene.things[:which], thing, *scene.things[which + 1 :]))
