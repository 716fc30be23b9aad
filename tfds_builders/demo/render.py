"""Draws a scene of the demo corpus: 64 x 64 pixels, 6 s at 8 frames per second.

A half clip depends on the scene and on its own event only, so the two members of an order pair
show the very same pictures. Every motion reads from the frames at 0, 1 and 2 s of its half.
"""

from typing import NamedTuple

import numpy as np

from tfds_builders.demo import backdrops
from tfds_builders.demo.scenes import Event, Scene, Thing

SIDE = 64  # pixels
FPS = 8
_HALF = 3 * FPS  # frames of one event
_SECONDS = np.arange(_HALF, dtype=np.float32) / FPS
_MARGIN = 24  # pixels around the picture, so that things may leave it

_PAINT = {
    "red": (225, 35, 35), "orange": (255, 140, 15), "yellow": (252, 228, 50),
    "green": (35, 185, 65), "blue": (40, 80, 235), "purple": (145, 50, 200),
    "pink": (255, 145, 195), "white": (248, 248, 248),
}  # fmt: skip
_RADIUS = {"small": 7.0, "large": 11.5}
_DARK, _LIGHT = (25, 20, 25), (225, 225, 210)
_SPACING = {"small": 18.0, "large": 30.0}  # between equal things, pixels
_SPAN = {"slowly": 9.0, "quickly": 20.0}  # travelled in one second, pixels
_DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


class _Pose(NamedTuple):
    """Where and how a thing appears in each frame; every field float32 [frame]."""

    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray


def render(scene: Scene) -> np.ndarray:
    """Returns uint8 [48, 64, 64, 3], RGB: the first event, then the second."""
    rng = np.random.default_rng(scene.look)
    backdrop = backdrops.draw(scene.background, SIDE, rng)
    homes = _homes(len(scene.things), rng)
    halves = [_half(scene, event, backdrop, homes) for event in scene.events]
    return np.concatenate(halves)


def _half(scene: Scene, event: Event, backdrop: np.ndarray, homes: np.ndarray) -> np.ndarray:
    rim = _LIGHT if scene.background == "night" else _DARK
    still = _rest(1)
    canvas = np.pad(backdrop, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)))[None]
    for number, thing in enumerate(scene.things):
        if number != event.actor:
            _draw(canvas, thing, still, homes[number], rim)
    canvas = np.repeat(canvas, _HALF, axis=0)
    actor = scene.things[event.actor]
    home = homes[event.actor]
    for offset in _formation(actor, event.motion):
        _draw(canvas, actor, _pose(event, home), home + offset, rim)
    picture = canvas[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _homes(things: int, rng: np.random.Generator) -> np.ndarray:
    """Resting places, (x, y) per thing: the middle, or two opposite quarters."""
    if things == 1:
        return SIDE / 2 + rng.uniform(-4, 4, (1, 2)).astype(np.float32)
    x = rng.permutation((20.0, 44.0))
    y = rng.permutation((20.0, 44.0))
    return (np.stack([x, y], axis=1) + rng.uniform(-1, 1, (2, 2))).astype(np.float32)


def _formation(thing: Thing, motion: str) -> list[np.ndarray]:
    """Offsets of equal things: in a row, or in a column if they travel sideways."""
    steps = (np.arange(thing.copies) - (thing.copies - 1) / 2) * _SPACING[thing.size]
    axis = (0, 1) if motion in ("left", "right") else (1, 0)
    return [step * np.array(axis, np.float32) for step in steps]


def _rest(frames: int) -> _Pose:
    zero, one = np.zeros(frames, np.float32), np.ones(frames, np.float32)
    return _Pose(zero, zero, one, zero, one)


def _pose(event: Event, home: np.ndarray) -> _Pose:
    """The motion, relative to `home`; t = -1, 0, 1 at the three whole seconds."""
    seconds, t = _SECONDS, np.minimum(_SECONDS - 1, 1.15)
    beat = np.cos(3 * np.pi * seconds)  # +1, -1, +1 at whole seconds
    rest = _rest(_HALF)
    if event.motion in _DIRECTION:
        along = np.array(_DIRECTION[event.motion], np.float32)
        x, y = t * _SPAN[event.speed] * along[:, None]
        to_middle = (SIDE / 2 - home) * np.abs(along)
        return rest._replace(x=x + to_middle[0], y=y + to_middle[1])
    if event.motion == "loop":
        phase = 2 * np.pi * seconds / 3
        return rest._replace(x=10 * np.sin(phase), y=-10 * np.cos(phase))
    poses = {
        "bounce": {"y": 10 - 20 * np.abs(np.sin(np.pi * seconds / 2))},
        "spin": {"angle": np.deg2rad(40) * seconds},
        "grow": {"scale": 1 + 0.4 * t},
        "shrink": {"scale": 1 - 0.4 * t},
        "blink": {"opacity": (np.cos(np.pi * seconds) > 0).astype(np.float32)},
        "shake": {"x": 5 * beat, "angle": 0.25 * beat},
    }
    return rest._replace(**poses[event.motion])


def _draw(
    canvas: np.ndarray, thing: Thing, pose: _Pose, place: np.ndarray, rim: tuple[int, int, int]
) -> None:
    """Paints a thing with a rim over `canvas`, float32 [frame, row, column, rgb].

    Only a window around the thing is touched, which makes this several times faster.
    """
    radius = _RADIUS[thing.size] * pose.scale
    half = int(np.ceil(radius.max() * 1.2)) + 1
    center = np.stack([place[0] + pose.x, place[1] + pose.y])
    corner = np.rint(center).astype(int) - half
    columns, rows = corner[..., None] + np.arange(2 * half + 1)  # each [frame, window]
    x, y = _local(columns - center[0, :, None], rows - center[1, :, None], pose.angle, radius)
    outside = _distance(thing.shape, x, y) * radius[:, None, None]  # pixels beyond the edge
    opacity = (np.clip(0.5 - outside, 0, 1) * pose.opacity[:, None, None])[..., None]
    edge = np.clip(1.7 + outside, 0, 1)[..., None]
    paint = _texture(thing, x, y) * (1 - edge) + np.array(rim, np.float32) * edge
    frames = np.arange(len(radius))[:, None, None]
    window = (frames, rows[:, :, None] + _MARGIN, columns[:, None, :] + _MARGIN)
    canvas[window] += opacity * (paint - canvas[window])


def _local(
    right: np.ndarray, down: np.ndarray, angle: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel offsets [frame, window] -> the thing's own x and y, [frame, row, column]."""
    cos, sin = (np.cos(angle) / radius)[:, None], (np.sin(angle) / radius)[:, None]
    x = (cos * right)[:, None, :] + (sin * down)[:, :, None]
    y = (cos * down)[:, :, None] - (sin * right)[:, None, :]
    return x.astype(np.float32), y.astype(np.float32)


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance from the edge of a shape of radius 1, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - 0.95
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.72) - 0.33
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.84
    if shape == "triangle":
        return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.58
    if shape == "cross":
        near, far = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
        return np.maximum(near - 0.42, far - 1.0)
    # Star: fold the plane into one of ten equal wedges, whose edge is a straight line.
    wedge = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + wedge, 2 * wedge) - wedge)
    length = np.hypot(x, y)
    along, across = length * np.cos(angle), length * np.sin(angle)
    tip, notch = 1.12, 0.5
    dx, dy = notch * np.cos(wedge) - tip, notch * np.sin(wedge)
    return (across * -dx + (along - tip) * dy) / np.hypot(dx, dy)


def _texture(thing: Thing, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours in the thing's own coordinates, float32 [frame, row, column, rgb]."""
    paint = np.array(_PAINT[thing.colour], np.float32)
    if thing.texture == "flat":
        return np.broadcast_to(paint, (*x.shape, 3))
    # Fewer, wider marks on small things: they must survive video and JPEG compression.
    waves = 4.5 if thing.size == "small" else 5.5
    if thing.texture == "striped":
        mark = np.sin(1.25 * waves * y) > 0.1
    elif thing.texture == "checkered":
        mark = np.sin(waves * x) * np.sin(waves * y) > 0
    else:
        mark = np.cos(1.5 * waves * x) * np.cos(1.5 * waves * y) > 0.35
    light = thing.colour in ("white", "yellow", "pink", "orange")
    ink = np.array((60, 45, 60) if light or thing.texture == "checkered" else (250, 250, 250))
    return np.where(mark[..., None], ink.astype(np.float32), paint)
