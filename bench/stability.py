"""How often the stability decision errs, and how late it comes, on simulated curves.

    python bench/stability.py [--curves 144] [--seed 0]

Every curve is walked look by look, as the controller does: a reading after every window from the fifth on.
What each column counts is defined in docs/appendix/measured-stability.md, and in the docstrings here.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np

from multistep.core.evidence.curves import FAMILIES, Curve, Floats, draw_curve
from multistep.core.evidence.stability import MIN_POINTS, Reading, Stability, read_curve

TOLERANCE = 1.0
NOISES = (0.1, 0.3, 1.0, 3.0)  # standard deviation of a point, in tolerances
AUTOCORRELATIONS = (0.0, 0.5, 0.8)
RUN_WINDOWS = (40, 80, 160)
HORIZONS = ("steps left", "steps so far")
STEPS_PER_WINDOW = 100.0
POWER = 1.645 + 1.645  # normal quantiles: a one-sided 5% test that succeeds in 95% of cases


@dataclass(frozen=True)
class Walk:
    """One curve, looked at after every window, with one kind of horizon. Looks are counted in points."""

    curve: Curve
    scores: Floats
    horizon: str

    @property
    def windows(self) -> int:
        return len(self.scores)

    def horizon_steps(self, points: int) -> float:
        ahead = self.windows - points if self.horizon == "steps left" else points
        return ahead * STEPS_PER_WINDOW

    def gain(self, points: int) -> float:
        """What the truth would still gain within the horizon of this look."""
        return self.curve.gain(points * STEPS_PER_WINDOW, self.horizon_steps(points))

    def read(self, points: int) -> Reading:
        return read_curve(
            _steps(points),
            self.scores[:points].tolist(),
            horizon_steps=self.horizon_steps(points),
            tolerance=TOLERANCE,
        )

    def mean_error(self, points: int) -> float:
        """Standard error of a line's rise over `points` points, with the noise known."""
        r = self.curve.autocorrelation
        return float(self.curve.noise_sd * np.sqrt((1.0 + r) / (1.0 - r) * 12.0 / points))

    def onset(self) -> int | None:
        """First look from which on the truth never again gains more than half the tolerance."""
        first = None
        for points in range(self.last_useful(), MIN_POINTS - 1, -1):
            if self.gain(points) > TOLERANCE / 2.0:
                break
            first = points
        return first

    def last_useful(self) -> int:
        """With less than a tenth of the run left, calling a plateau is of no use any more."""
        return self.windows if self.horizon == "steps so far" else int(0.9 * self.windows)

    def deadline(self, onset: int) -> int:
        """Two horizons after the onset (steps so far), or when the curve is twice as long (steps left)."""
        return min((3 if self.horizon == "steps so far" else 2) * onset, self.last_useful())

    def decidable(self, onset: int) -> bool:
        """Whether, by the deadline, known noise would let a line be told from the tolerance with 95% power.

        The line goes through the last two thirds of the points and is extended over the horizon; it has to be
        told from half a tolerance, the most that a plateau still gains.
        """
        for points in range(onset, self.deadline(onset) + 1):
            fitted = int(np.ceil(points * 2 / 3))
            reach = self.horizon_steps(points) / STEPS_PER_WINDOW / (fitted - 1)
            if POWER * self.mean_error(fitted) * reach <= TOLERANCE / 2.0:
                return True
        return False


@dataclass(frozen=True)
class Outcome:
    """What became of one walk. None: the question does not arise for this walk."""

    noise: float
    called: bool
    false_alarm: bool
    misnamed: bool | None  # a curve that does neither, called overfitting or diverged
    decidable: bool | None  # has a plateau; does noise let it be seen?
    missed: bool | None
    delay: int | None
    told_apart: bool | None  # overfitting and divergence, where large against the noise


def _steps(points: int) -> list[float]:
    return [STEPS_PER_WINDOW * (index + 1) for index in range(points)]


def walk_plateau(walk: Walk) -> Outcome:
    """Look until something else than going on is said."""
    called, stability = None, Stability.UNDECIDED
    for points in range(MIN_POINTS, walk.windows + 1):
        stability = walk.read(points).stability
        if stability not in (Stability.IMPROVING, Stability.UNDECIDED):
            called = points
            break
    stable = called is not None and stability is Stability.STABLE
    alarm = called is not None and stable and walk.gain(called) > TOLERANCE
    onset = None if alarm else walk.onset()  # a walk that ended in a false alarm is neither in time nor late
    decidable = None if onset is None else walk.decidable(onset)
    in_time = stable and onset is not None and called is not None and called <= walk.deadline(onset)
    return Outcome(
        noise=walk.curve.noise_sd,
        called=stable,
        false_alarm=alarm,
        misnamed=called is not None and not stable,
        decidable=decidable,
        missed=not in_time if decidable else None,
        delay=called - onset if decidable and stable and onset is not None and called is not None else None,
        told_apart=None,
    )


def walk_turning(walk: Walk) -> Outcome:
    """Overfitting and divergence: look on after a plateau was called, until the turn is named.

    Due: overfitting, when the truth has risen by two tolerances, and by one more than a line through the
    points since the turn can miss; divergence, three points after the turn, if it rises by ten noises.
    Told apart: the right name until a quarter more looks (at least 5) after it was due, no wrong name (of the
    two) before, and never called stable from the due look on.
    """
    curve = walk.curve
    wanted = Stability.OVERFITTING if curve.family == "overfitting" else Stability.DIVERGED
    turn = int(np.ceil(curve.turn / STEPS_PER_WINDOW))
    due = _due(walk, turn)
    grace = None if due is None else due + max(5, due // 4)
    stable_at, named, name, stable_late = None, None, None, False
    for points in range(MIN_POINTS, walk.windows + 1):
        stability = walk.read(points).stability
        if stability is Stability.STABLE:
            stable_at = stable_at or points
            stable_late = stable_late or (due is not None and points >= due)
        if stability in (Stability.OVERFITTING, Stability.DIVERGED):
            named, name = points, stability
            break
    right = named is not None and name is wanted
    asked = due is not None and grace is not None and (grace <= walk.windows or named is not None)
    in_time = right and named is not None and grace is not None and named <= grace and not stable_late
    return Outcome(
        noise=curve.noise_sd,
        called=stable_at is not None,
        false_alarm=stable_at is not None and walk.gain(stable_at) > TOLERANCE,
        misnamed=named is not None and (named < turn or name is not wanted),
        decidable=None,
        missed=None,
        delay=named - due if right and named is not None and due is not None else None,
        told_apart=in_time if asked else None,
    )


def _due(walk: Walk, turn: int) -> int | None:
    curve = walk.curve
    if curve.family == "divergence":
        return turn + 3 if curve.rise >= 10.0 * curve.noise_sd and turn + 3 <= walk.windows else None
    truth = np.asarray(curve.truth(np.array(_steps(walk.windows))))
    for points in range(max(turn + 5, MIN_POINTS), walk.windows + 1):
        rise = truth[points - 1] - np.min(truth[:points])
        since = points - int(np.argmin(truth[:points]))
        if since >= 5 and rise >= max(2.0 * TOLERANCE, TOLERANCE + POWER * walk.mean_error(since)):
            return points
    return None


def run_bench(curves: int, seed: int) -> dict[tuple[str, str, float], list[Outcome]]:
    """`curves` a family, spread evenly over noises, autocorrelations and lengths; each with both horizons."""
    outcomes: dict[tuple[str, str, float], list[Outcome]] = {}
    for family_index, family in enumerate(FAMILIES):
        for index in range(curves):
            generator = np.random.default_rng([seed, family_index, index])
            noise = NOISES[index % len(NOISES)]
            windows = RUN_WINDOWS[index // 12 % 3]
            total = windows * STEPS_PER_WINDOW
            curve = draw_curve(
                family,
                generator,
                total_steps=total,
                unit=TOLERANCE,
                noise_sd=noise,
                autocorrelation=AUTOCORRELATIONS[index // 4 % 3],
            )
            scores = curve.observe(np.array(_steps(windows)), generator)
            for horizon in HORIZONS:
                walk = Walk(curve, scores, horizon)
                turning = family in ("overfitting", "divergence")
                outcome = walk_turning(walk) if turning else walk_plateau(walk)
                outcomes.setdefault((horizon, family, noise), []).append(outcome)
    return outcomes


def _share(flags: Iterable[bool | None]) -> str:
    asked = [flag for flag in flags if flag is not None]
    return f"{sum(asked)}/{len(asked)} ({sum(asked) / len(asked):.1%})" if asked else "-"


def row(name: str, outcomes: list[Outcome]) -> str:
    delays = [outcome.delay for outcome in outcomes if outcome.delay is not None]
    undecidable = [None if outcome.decidable is None else not outcome.decidable for outcome in outcomes]
    cells = (
        name,
        str(len(outcomes)),
        _share(outcome.false_alarm for outcome in outcomes),
        str(sum(outcome.called for outcome in outcomes)),
        _share(undecidable),
        _share(outcome.missed for outcome in outcomes),
        f"{median(delays):g}" if delays else "-",
        _share(outcome.misnamed for outcome in outcomes),
        _share(outcome.told_apart for outcome in outcomes),
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=144, help="curves per family; multiples of 36 are even")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    results = run_bench(arguments.curves, arguments.seed)
    titles = (
        "family, noise / tolerance",
        "walks",
        "false alarms",
        "called stable",
        "undecidable plateaus",
        "missed of the decidable",
        "median delay, windows",
        "misnamed",
        "told apart",
    )
    for horizon in HORIZONS:
        print(f"\nHorizon: {horizon}\n\n| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
        for family in FAMILIES:
            for noise in NOISES:
                print(row(f"{family}, {noise:g}", results.get((horizon, family, noise), [])))
        for title, left_out in (("**all**", ""), ("all but stepwise", "stepwise")):
            groups = [group for (h, f, _), group in results.items() if h == horizon and f != left_out]
            print(row(title, [outcome for group in groups for outcome in group]))
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
