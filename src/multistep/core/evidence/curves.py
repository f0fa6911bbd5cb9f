"""Simulated learning curves: pure functions of parameters and a numpy Generator.

The stability bench measures its error rates on them, and the engine's simulator learns along them.
Scores are losses (lower is better); lengths are in steps, heights in the score's unit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAMILIES = ("power_law", "exponential", "stepwise", "spikes", "overfitting", "divergence")


@dataclass(frozen=True)
class Ledge:
    """The end of a ledge: around `step` the score falls by `depth`, most of it within `width` steps."""

    step: float
    depth: float
    width: float


@dataclass(frozen=True)
class Curve:
    """What a trunk's validation score would be without noise, and the noise that is put on it.

    family: one of FAMILIES; which truth function applies.
    floor, drop: the score after endless training, and how far above it training starts.
    pace: steps; the scale of the fall (power law: offset of the step, exponential: time constant).
    exponent: of the power law.
    turn: step from which an overfitting curve rises or a diverging one explodes.
    rise: how far: per 1,000 steps (overfitting) or in all (divergence; inf: scores stop being finite).
    ledges: of the stepwise family.
    noise_sd, autocorrelation: of the stationary AR(1) noise from one observed point to the next.
    spike_rate, spike_height, spike_points: chance of a spike at a point, its mean height, how many points it
    takes to fade (1: gone at the next one).
    """

    family: str
    floor: float
    drop: float
    pace: float
    exponent: float = 1.0
    turn: float = np.inf
    rise: float = 0.0
    ledges: tuple[Ledge, ...] = ()
    noise_sd: float = 0.0
    autocorrelation: float = 0.0
    spike_rate: float = 0.0
    spike_height: float = 0.0
    spike_points: int = 1

    def truth(self, steps: float | Floats) -> Floats:
        """The score without noise at `steps`; same shape as `steps`."""
        return _TRUTHS[self.family](self, np.asarray(steps, dtype=np.float64))

    def observe(self, steps: Floats, generator: np.random.Generator) -> Floats:
        """What evaluations at `steps` (ascending) show: truth, AR(1) noise and spikes."""
        count = len(steps)
        shocks = generator.standard_normal(count) * self.noise_sd
        innovation = np.sqrt(1.0 - self.autocorrelation**2)
        noise = shocks.copy()
        for index in range(1, count):
            noise[index] = self.autocorrelation * noise[index - 1] + innovation * shocks[index]
        heights = self.spike_height * generator.exponential(size=count)
        heights[generator.random(count) >= self.spike_rate] = 0.0
        fading = 0.4 ** np.arange(self.spike_points)
        return self.truth(steps) + noise + np.convolve(heights, fading)[:count]

    def gain(self, step: float, horizon_steps: float) -> float:
        """How much better than at `step` the truth gets within the horizon; 0 if it only gets worse."""
        ahead = self.truth(step + horizon_steps * np.linspace(0.0, 1.0, 201))
        return float(ahead[0] - np.min(ahead))


def _power_law(curve: Curve, steps: Floats) -> Floats:
    """Offset power law, the usual form of learning curves (Hestness et al., arXiv 1712.00409)."""
    return curve.floor + curve.drop * (1.0 + steps / curve.pace) ** -curve.exponent


def _exponential(curve: Curve, steps: Floats) -> Floats:
    return curve.floor + curve.drop * np.exp(-steps / curve.pace)


def _stepwise(curve: Curve, steps: Floats) -> Floats:
    """A quick fall, then ledges: nothing happens until a skill is found (quanta, arXiv 2303.13506)."""
    score = _exponential(curve, steps)
    for ledge in curve.ledges:
        score = score + ledge.depth * 0.5 * (1.0 - np.tanh(2.0 * (steps - ledge.step) / ledge.width))
    return score


def _overfitting(curve: Curve, steps: Floats) -> Floats:
    return _exponential(curve, steps) + curve.rise / 1000.0 * np.maximum(steps - curve.turn, 0.0)


def _divergence(curve: Curve, steps: Floats) -> Floats:
    """Within a few hundredths of `turn`'s own length the score is up by `rise`, and stays there."""
    exploded = 1.0 - np.exp(-np.maximum(steps - curve.turn, 0.0) / (0.02 * curve.turn))
    blow = np.zeros_like(exploded)
    np.multiply(curve.rise, exploded, out=blow, where=exploded > 0.0)
    return _exponential(curve, steps) + blow


_TRUTHS: dict[str, Callable[[Curve, Floats], Floats]] = {
    "power_law": _power_law,
    "exponential": _exponential,
    "stepwise": _stepwise,
    "spikes": _power_law,
    "overfitting": _overfitting,
    "divergence": _divergence,
}


def draw_curve(
    family: str,
    generator: np.random.Generator,
    *,
    total_steps: float = 10_000.0,
    unit: float = 1.0,
    noise_sd: float = 0.3,
    autocorrelation: float = 0.0,
) -> Curve:
    """A curve of this family for a run of `total_steps`; heights are drawn in multiples of `unit`.

    With `unit` as the tolerance, falls are 20 to 300 tolerances, and the run ends for some curves long after
    their plateau began and for others long before. Raises ValueError for an unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; allowed: {', '.join(FAMILIES)}")

    def spread(low: float, high: float) -> float:
        return float(np.exp(generator.uniform(np.log(low), np.log(high))))

    drop = unit * spread(20.0, 300.0)
    floor = drop * spread(0.1, 1.0)
    pace = total_steps * spread(0.02, 0.3)
    exponent, turn, rise = 1.0, np.inf, 0.0
    ledges: tuple[Ledge, ...] = ()
    spike_rate, spike_height, spike_points = 0.0, 0.0, 1
    if family in ("power_law", "spikes"):
        pace = total_steps * spread(0.002, 0.05)
        exponent = spread(0.2, 2.5)
    if family == "spikes":
        spike_rate = generator.uniform(0.01, 0.05)
        spike_height = unit * spread(5.0, 100.0)
        spike_points = int(generator.integers(1, 4))
    if family == "stepwise":
        pace = total_steps * spread(0.01, 0.05)
        ledges = tuple(
            Ledge(
                step=total_steps * generator.uniform(0.05, 0.7),
                depth=unit * spread(3.0, 30.0),
                width=total_steps * spread(0.005, 0.05),
            )
            for _ in range(generator.integers(1, 5))
        )
    if family == "overfitting":
        pace = total_steps * spread(0.02, 0.15)
        turn = total_steps * generator.uniform(0.15, 0.6)
        rise = unit * spread(5.0, 50.0) / ((total_steps - turn) / 1000.0)
    if family == "divergence":
        turn = total_steps * generator.uniform(0.15, 0.85)
        rise = np.inf if generator.random() < 0.25 else drop * spread(0.6, 3.0)
    return Curve(
        family=family,
        floor=floor,
        drop=drop,
        pace=pace,
        exponent=exponent,
        turn=turn,
        rise=rise,
        ledges=ledges,
        noise_sd=noise_sd,
        autocorrelation=autocorrelation,
        spike_rate=spike_rate,
        spike_height=spike_height,
        spike_points=spike_points,
    )
