"""Simulated runs for tests: a curve, a fake clock, and ways to kill them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multistep.core.evidence.curves import Curve
from multistep.core.values.events import Entry
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Progress
from multistep.engine.asking import Ask
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Learner, Readiness
from multistep.engine.loop import Run
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, Machine, SimulatedLearner, SimulatedWorkshop, World
from multistep.engine.simulate_lanes import SimulatedHands

POWER = Curve("power_law", floor=1.4, drop=3.0, pace=100.0, exponent=0.5, noise_sd=0.003)
FALLS_THEN_FLAT = Curve("exponential", floor=1.5, drop=2.0, pace=300.0, noise_sd=0.001)
OVERFITS = Curve("overfitting", floor=1.5, drop=2.0, pace=200.0, turn=1500.0, rise=0.3, noise_sd=0.002)


def plan(**keywords: Any) -> Plan:
    return plan_from({"task": "text-generation", "data": "simulated", **keywords})


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def dies_at(kind: type, number: int = 1) -> Callable[[Entry, History], None]:
    """What kills a run at the entry of that kind and number, right after it is written."""
    left = number

    def watch(entry: Entry, _: History) -> None:
        nonlocal left
        left -= isinstance(entry.event, kind)
        if left == 0:
            raise Killed

    return watch


class Fragile(SimulatedWorkshop):
    """A workshop whose learner dies in the middle of a window, after so many windows."""

    def __init__(self, curve: Curve, clock: FakeClock, windows: int) -> None:
        super().__init__(curve, clock)
        self._left = windows

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        assert isinstance(learner, SimulatedLearner)
        advance = learner.advance

        def dying(rates: Sequence[float], *, resolution: int | None = None) -> Progress:
            self._left -= 1
            if self._left < 0:
                advance(rates[: len(rates) // 2], resolution=resolution)
                raise Killed
            return advance(rates, resolution=resolution)

        learner.advance = dying  # type: ignore[method-assign]
        return learner, ready


def execute(
    wanted: Plan,
    folder: Path,
    curve: Curve = POWER,
    *,
    clock: FakeClock | None = None,
    machine: Machine | None = None,
    workshop: SimulatedWorkshop | None = None,
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> History:
    """Run or resume a plan in a folder along a curve; returns the history it came to."""
    clock = clock or FakeClock()
    directory = RunDirectory(folder)
    directory.create()
    run = Run(wanted, directory, workshop or SimulatedWorkshop(curve, clock, machine), BudgetClock(clock.now))
    for entry in run.entries():
        on_entry(entry)
    return run.history


def side_by_side(
    wanted: Plan,
    folder: Path,
    curve: Curve = POWER,
    *,
    lanes: int = 2,
    speeds: Sequence[float] = (),
    world: World | None = None,
    clock: FakeClock | None = None,
    loses: Callable[[int, Ask], bool] = lambda lane, ask: False,
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> History:
    """Run or resume a plan in simulated lanes, of which some may be faster; returns the history it came to."""
    wall = clock or FakeClock()
    directory = RunDirectory(folder)
    directory.create()

    def workshop(lane: int, own: FakeClock) -> SimulatedWorkshop:
        faster = speeds[lane] if speeds else 1.0
        machine = Machine(step_seconds=0.05 / faster, sample_seconds=0.25 / faster, full_seconds=1.0 / faster)
        return SimulatedWorkshop(curve, own, machine, world)

    hands = SimulatedHands(wall, lanes, workshop, open_seconds=3.0, loses=loses)
    run = Run(wanted, directory, workshop(0, wall), BudgetClock(wall.now), hands=hands)
    for entry in run.entries():
        on_entry(entry)
    return run.history
