"""Examples drawn by weight, as torch's WeightedRandomSampler draws them, in an order that follows from the place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from multistep.tasks.order import ShuffledOrder


@dataclass(frozen=True)
class Drawn:
    """Sampling weights of a split's examples. Without `replacement` a pass has `count` of them, each once at most."""

    weights: NDArray[np.float64]
    replacement: bool
    count: int

    def of(self, places: NDArray[np.int64]) -> Drawn:
        """Those of some of the examples; of these the same share is a pass."""
        weights = self.weights[places]
        count = max(1, round(self.count * len(places) / max(1, len(self.weights))))
        return replace(self, weights=weights, count=min(count, int((weights > 0).sum()) or 1))


class WeightedOrder(ShuffledOrder):
    """Each pass is drawn by weight, which follows from (seed, pass)."""

    def __init__(self, drawn: Drawn) -> None:
        super().__init__(len(drawn.weights) if drawn.replacement else drawn.count)
        self._drawn = drawn

    def _draw(self, generator: np.random.Generator, epoch: int) -> NDArray[np.int64]:
        weights = self._drawn.weights
        if self._drawn.replacement:
            return generator.choice(len(weights), self.examples, p=weights / weights.sum()).astype(np.int64)
        # Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006: the least of exponential times.
        with np.errstate(divide="ignore"):
            times = generator.exponential(size=len(weights)) / weights
        return np.argsort(times, kind="stable")[: self.examples].astype(np.int64)
