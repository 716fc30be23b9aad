"""The backgrounds of the demo corpus: a base colour, a procedural pattern, mild grain."""

import numpy as np


def draw(name: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a background, float32 [side, side, 3], RGB in about 0 to 255.

    Args:
      name: one of `scenes.BACKGROUNDS`.
      side: pixels.
      rng: moves the pattern and varies light and grain.
    """
    base, tint, pattern = _BACKDROPS[name]
    rows, columns = np.mgrid[:side, :side] + rng.integers(0, side, (2, 1, 1))
    shade = pattern(rows, columns, rng)[..., None] * np.array(tint)
    grain = rng.normal(0, 4, (side, side, 1))
    light = rng.uniform(0.93, 1.05)
    return ((np.array(base) + shade + grain) * light).astype(np.float32)


def _grass(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Upright blades, four pixels long."""
    blades = rng.normal(0, 1, (len(rows) // 4 + 1, len(rows)))
    return np.repeat(blades, 4, axis=0)[: len(rows)]


def _night(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points of light and a moon near the upper edge."""
    lights = rng.random(rows.shape) > 0.985
    x = columns - columns[0, 0] - rng.uniform(8, len(rows) - 8)
    moon = np.clip(6 - np.hypot(x, rows - rows[0, 0] - 8), 0, 1)
    return np.maximum(0.6 * lights, moon)


def _sand(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Wind ripples and coarse grain."""
    return np.sin(rows / 2.2 + 1.5 * np.sin(columns / 9)) + rng.normal(0, 0.8, rows.shape)


_BACKDROPS = {
    "grass": ((92, 138, 52), (9, 16, 6), _grass),
    "night": ((16, 18, 46), (180, 180, 140), _night),
    "sand": ((214, 188, 138), (9, 9, 7), _sand),
}
