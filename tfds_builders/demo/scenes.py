"""What happens in the clips of the demo corpus: a small world drawn from a seed.

A clip shows a thing, or two equal ones, before a background, and two events, one after the other.
The world is kept small on purpose: many clips look alike and differ only in what happens and in
which order. Clips come in groups: families, whose members differ in one or two attributes, and
order pairs, whose two members show the same two events in opposite order.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

COLOURS = ("red", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
TEXTURES = ("flat", "striped")
COPIES = (1, 1, 1, 2)  # a pair of things is rarer
BACKGROUNDS = ("grass", "night", "sand")
TRAVELS = ("left", "right", "up", "down")
MOTIONS = (*TRAVELS, "grow", "shrink")
SPEEDS = ("slowly", "quickly")

_CLASHES = {("yellow", "sand")}  # a thing must stand out from what is behind it
_PAIR_SHARE = 0.5  # of a split's clips belong to an order pair
_STEADY_SHARE = 0.3  # of the others show one event all along
_FAMILY = 3  # clips that are near neighbours of each other


class Thing(NamedTuple):
    """One thing, or several `copies` that move together (and are smaller)."""

    shape: str
    colour: str
    texture: str
    copies: int


class Event(NamedTuple):
    """What the thing does; `speed` is '' except for the `TRAVELS`."""

    motion: str
    speed: str


class Scene(NamedTuple):
    """A whole clip.

    Attributes:
      background: one of `BACKGROUNDS`.
      thing: what moves.
      events: first and second half of the clip.
      look: seed of what no caption mentions: place, light, grain.
      paired: member of an order pair, so that every caption has to state the order.
    """

    background: str
    thing: Thing
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
        thing and events, order left aside, except for order pairs.
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
        key = (scene.background, scene.thing, tuple(sorted(scene.events)))
        if key not in seen and _sensible(scene):
            seen.add(key)
            yield scene


def _sensible(scene: Scene) -> bool:
    """Whether a person could tell the clip from the captions it will get."""
    visible = (scene.thing.colour, scene.background) not in _CLASHES
    # 'It rises fast, then slowly' reads the same both ways once a caption omits the speeds.
    first, second = scene.events
    return visible and (scene.steady or first.motion != second.motion)


def _scenes(rng: np.random.Generator, *, paired: bool) -> Iterator[Scene]:
    while True:
        shape, colour, texture = (_pick(rng, names) for names in (SHAPES, COLOURS, TEXTURES))
        thing = Thing(shape, colour, texture, int(rng.choice(COPIES)))
        first, second = _event(rng), _event(rng)
        if not paired and rng.random() < _STEADY_SHARE:
            second = first
        if not (paired and first == second):
            look = int(rng.integers(2**31))
            yield Scene(_pick(rng, BACKGROUNDS), thing, (first, second), look, paired)


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _event(rng: np.random.Generator) -> Event:
    motion = _pick(rng, MOTIONS)
    return Event(motion, _pick(rng, SPEEDS) if motion in TRAVELS else "")


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
        changed = _event(rng)
        return scene._replace(events=(changed if scene.steady else scene.events[0], changed))
    choices = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES}
    thing = scene.thing._asdict() | {what: _pick(rng, choices[what])}
    return scene._replace(thing=Thing(**thing))
