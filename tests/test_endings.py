"""How runs and their phases end: with what they have won, as long as they were promised, and not before they begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import POWER, execute, plan

from multistep import api
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import Plan
from multistep.engine.card import model_card
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Learner, Readiness, Split
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, SimulatedWorkshop
from multistep.errors import DataError

TWO = [{"name": "first", "until": "400 steps"}, {"name": "second", "until": "400 steps"}]


class Other(SimulatedWorkshop):
    """Each phase has other data; an image of the second's may turn out to be cut short when it is decoded."""

    def __init__(self, clock: FakeClock, *, broken: bool) -> None:
        super().__init__(POWER, clock)
        self._broken = broken

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)

        def evaluate(split: Split, *, sample: bool) -> Evaluation:
            raise DataError("0931.jpg: cut short")

        if phase and self._broken:
            learner.evaluate = evaluate  # type: ignore[method-assign]
        return learner, replace(ready, fingerprint=f"data {phase}")


def test_an_error_in_a_later_phase_leaves_what_was_won(tmp_path: Path) -> None:
    """The folder was deleted, with the first phase's hours in it."""
    clock, wanted = FakeClock(), plan(phases=TWO)

    def go(broken: bool) -> api.Result:
        workshop = Other(clock, broken=broken)
        return api.run(wanted, RunDirectory(tmp_path / "run"), clock=BudgetClock(clock.now), workshop=workshop)

    with pytest.raises(DataError, match="cut short"):
        go(broken=True)
    assert go(broken=False).record["steps"] == 800


@pytest.mark.parametrize(("budget", "until"), [("60s", "400 steps"), ("900 steps", "0.3 epochs")])
def test_a_phase_leaves_later_ones_their_lengths_in_another_unit(budget: str, until: str, tmp_path: Path) -> None:
    """What was told in steps was nothing in seconds, and the second phase had twelve steps without a cooldown."""
    wanted = plan(budget=budget, moves=[], phases=[{"name": "open"}, {"name": "fixed", "until": until}])
    clock = FakeClock()
    history = execute(wanted, tmp_path / "run", clock=clock, workshop=SimulatedWorkshop(POWER, clock))
    first, second = history.phases
    assert second.finished is not None
    assert second.finished.stopped == "length"
    assert first.control is not None
    assert first.control.step > 100, "and has what is left"


class Sleeping(SimulatedWorkshop):
    """Says nothing for a thousand steps, as CTC does, and then learns; what is trivial is better than nothing."""

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)

        def table(loss: float, seed: int) -> Evaluation:
            noise = np.random.default_rng(seed).normal(0, 0.002, 64)
            return Evaluation({"loss": loss + noise, "count": np.ones(64), "block": np.arange(64.0)})

        def evaluate(split: Split, *, sample: bool) -> Evaluation:
            steps: int = getattr(learner, "_steps")  # noqa: B009 - the simulated learner's own
            return table(5.0 if steps < 1000 else 1.0 + 2.0 * 300 / (steps - 700), steps)

        learner.evaluate = evaluate  # type: ignore[method-assign]
        learner.baseline = lambda split: ("trivial", table(4.0, 0))  # type: ignore[method-assign]
        return learner, ready


@pytest.mark.parametrize("given", [{"budget": "400s", "moves": []}, pytest.param({}, marks=pytest.mark.slow)])
def test_what_has_not_begun_is_no_plateau_where_nothing_is_weighed(given: dict[str, object], tmp_path: Path) -> None:
    clock = FakeClock()
    history = execute(plan(**given), tmp_path / "run", clock=clock, workshop=Sleeping(POWER, clock))
    assert history.leader is not None
    assert history.leader.interval is not None
    assert history.leader.interval.score < 2.0


class Pretrained(SimulatedWorkshop):
    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        return learner, replace(ready, facts=replace(ready.facts, pretrained=True, train_examples=1200))


def test_pretrained_weights_without_a_budget_end_after_their_usual_epochs_and_say_so(tmp_path: Path) -> None:
    """It was said that a budget was spent, which there was none of."""
    clock = FakeClock()
    history = execute(plan(), tmp_path / "run", clock=clock, workshop=Pretrained(POWER, clock))
    assert history.phase.finished is not None
    assert history.phase.finished.stopped == "usual"
    assert history.phase.control is not None
    assert history.phase.control.step == pytest.approx(400, rel=0.1), "four epochs"
    card = model_card(plan(), history, [])
    assert "pretrained weights had their usual epochs" in card or "ended: usual" in card
