"""A curve in block characters, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BLOCKS = " ▁▂▃▄▅▆▇█"
SETTLED = 0.1  # of the points: the first ones do not set the scale where they are far from the rest
LEAST_POINTS = 10  # from which on that is so


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest value of the scale; what the first few points do beyond that is cut."""
    known = [value for value in values if math.isfinite(value)]
    late = known[math.ceil(SETTLED * len(known)) :] if len(known) >= LEAST_POINTS else known
    return (min(late), max(late)) if late else (0.0, 0.0)


def plot(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """Filled columns under the curve through (x, y), the top line first; empty with fewer than two finite points.

    Every line is `width` characters; the lowest value still shows an eighth of a line.
    """
    known = [(x, y) for x, y in points if math.isfinite(y)]
    if len(known) < 2 or width < 2 or height < 1:
        return []
    x, y = np.array(known, dtype=np.float64).T
    low, high = bounds(y.tolist())
    columns = np.interp(np.linspace(x[0], x[-1], width), x, y)
    span = high - low
    shares = (columns - low) / span if span > 0 else np.full(width, 0.5)
    eighths = np.rint(1 + np.clip(shares, 0, 1) * (8 * height - 1)).astype(int)
    levels = range(height - 1, -1, -1)
    return ["".join(BLOCKS[min(8, max(0, int(e) - 8 * level))] for e in eighths) for level in levels]
