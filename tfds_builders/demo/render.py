"""Draws a scene of the demo corpus: 64 x 64 pixels, 4 s at 8 frames per second.

A half clip depends on the scene and on its own event only, so the two members of an order pair
show the very same pictures. Every motion reads from the frames at 0 and 1 s of its half.
"""

from typing import NamedTuple

import numpy as np

from tfds_builders.demo import backdrops
from tfds_builders.demo.scenes import Event, Scene, Thing

SIDE = 64  # pixels
FPS = 8
HALF = 2 * FPS  # frames of one event
_MARGIN = 24  # pixels around the picture, so that things may leave it

_PAINT = {"red": (225, 35, 35), "blue": (40, 80, 235), "yellow": (252, 228, 50)}
_RADIUS = {1: 11.5, 2: 7.5}  # pixels, by number of copies
_SPACING = 20.0  # between equal things, pixels
_REACH = {"slowly": 9.0, "quickly": 20.0}  # half the way travelled in the first second, pixels
_DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


class _Pose(NamedTuple):
    """Where and how large a thing appears in each frame; every field float32 [frame]."""

    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray


def render(scene: Scene) -> np.ndarray:
    """Returns uint8 [32, 64, 64, 3], RGB: the first event, then the second."""
    rng = np.random.default_rng(scene.look)
    backdrop = backdrops.draw(scene.background, SIDE, rng)
    home = SIDE / 2 + rng.uniform(-4, 4, 2).astype(np.float32)
    return np.concatenate([_half(scene.thing, event, backdrop, home) for event in scene.events])


def _half(thing: Thing, event: Event, backdrop: np.ndarray, home: np.ndarray) -> np.ndarray:
    padded = np.pad(backdrop, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)))
    canvas = np.repeat(padded[None], HALF, axis=0)
    for offset in _formation(thing, event.motion):
        _draw(canvas, thing, _pose(event), home + offset)
    picture = canvas[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _formation(thing: Thing, motion: str) -> list[np.ndarray]:
    """Offsets of equal things: in a row, or in a column if they travel sideways."""
    steps = (np.arange(thing.copies) - (thing.copies - 1) / 2) * _SPACING
    axis = (0, 1) if motion in ("left", "right") else (1, 0)
    return [step * np.array(axis, np.float32) for step in steps]


def _pose(event: Event) -> _Pose:
    """The motion around the thing's home; t = -1 and 1 at the two whole seconds, then it ends."""
    t = np.minimum(2 * np.arange(HALF, dtype=np.float32) / FPS - 1, 1.15)
    still = np.zeros(HALF, np.float32)
    if event.motion in _DIRECTION:
        x, y = t * _REACH[event.speed] * np.array(_DIRECTION[event.motion], np.float32)[:, None]
        return _Pose(x, y, still + 1)
    return _Pose(still, still, 1 + {"grow": 0.4, "shrink": -0.4}[event.motion] * t)


def _draw(canvas: np.ndarray, thing: Thing, pose: _Pose, place: np.ndarray) -> None:
    """Paints a thing with a dark rim over `canvas`, float32 [frame, row, column, rgb].

    Only a window around the thing is touched, which makes this several times faster.
    """
    radius = _RADIUS[thing.copies] * pose.scale
    half = int(np.ceil(radius.max() * 1.2)) + 1
    center = np.stack([place[0] + pose.x, place[1] + pose.y])
    corner = np.rint(center).astype(int) - half
    columns, rows = corner[..., None] + np.arange(2 * half + 1)  # each [frame, window]
    x = ((columns - center[0, :, None]) / radius[:, None])[:, None, :].astype(np.float32)
    y = ((rows - center[1, :, None]) / radius[:, None])[:, :, None].astype(np.float32)
    outside = _distance(thing.shape, x, y) * radius[:, None, None]  # pixels beyond the edge
    opacity = np.clip(0.5 - outside, 0, 1)[..., None]
    rim = np.clip(1.7 + outside, 0, 1)[..., None]
    paint = _texture(thing, x, y) * (1 - rim) + np.array((25, 20, 25), np.float32) * rim
    frames = np.arange(len(radius))[:, None, None]
    window = (frames, rows[:, :, None] + _MARGIN, columns[:, None, :] + _MARGIN)
    canvas[window] += opacity * (paint - canvas[window])


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance from the edge of a shape of radius 1, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - 0.95
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.84
    return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.58  # triangle


def _texture(thing: Thing, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours in the thing's own coordinates, float32, broadcasts to [frame, row, column, rgb]."""
    paint = np.array(_PAINT[thing.colour], np.float32)
    if thing.texture == "flat":
        return np.broadcast_to(paint, (*np.broadcast_shapes(x.shape, y.shape), 3))
    # Few, wide stripes: they must survive video and JPEG compression.
    mark = np.broadcast_to(np.sin(6.5 * y) > 0.1, np.broadcast_shapes(x.shape, y.shape))
    ink = np.array((60, 45, 60) if thing.colour == "yellow" else (250, 250, 250), np.float32)
    return np.where(mark[..., None], ink, paint)
