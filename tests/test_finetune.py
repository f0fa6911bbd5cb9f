"""Pretrained weights: forks at 1, 2, 4, ... epochs, warmed up and looked at often enough; what is left is spent."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import OVERFITS, POWER, execute, plan

from multistep.core.evidence.curves import Curve
from multistep.core.values.history import History
from multistep.core.values.recipe import Recipe, rates
from multistep.engine.simulate import FakeClock, Machine, SimulatedWorkshop, World

RATE = {"learning_rate": 0.02}
NOISE = World(between_blocks=0.01, between_seeds=0.0005)


class Pretrained(SimulatedWorkshop):
    def __init__(self, *given: Any, examples: int = 6000) -> None:
        super().__init__(*given)
        self._examples = examples

    def open(self, *args: Any) -> Any:
        learner, ready = super().open(*args)
        return learner, replace(ready, facts=replace(ready.facts, pretrained=True, train_examples=self._examples))


def test_pretrained_weights_are_forked_at_one_two_and_four_epochs(tmp_path: Path) -> None:
    def fork(name: str, curve: Curve, budget: str) -> History:
        clock = FakeClock()
        wanted = plan(budget=budget, recipe=RATE, moves=[])
        return execute(wanted, tmp_path / name, curve, clock=clock, workshop=Pretrained(curve, clock, None, NOISE))

    flattens = Curve("exponential", floor=1.4, drop=1.0, pace=75.0, noise_sd=0.0003)
    history = fork("run", flattens, "30m")
    controls = history.phase.of_kind("control")
    assert [t.step for t in controls][:3] == [500, 1000, 2000], "500 steps are an epoch"
    assert len(history.phase.trials["0.trunk"].curve) >= 10, "looks before the first fork"
    trunks = history.phase.of_kind("trunk")
    assert trunks[1].trial.start == trunks[0].last_checkpoint.id  # type: ignore[union-attr]
    assert trunks[1].trial.recipe.warmup_steps == 0
    assert history.seconds > 300, "four epochs are no end while more have value"
    falls = fork("falls", POWER, "30m")
    assert [t.step for t in falls.phase.of_kind("control")][:5] == [500, 1000, 2000, 4000, 8000], "each proven better"
    gains = [t.verdict.improvement for t in falls.phase.of_kind("control")[1:] if t.verdict]
    assert min(gains[:3]) > 0.01, "each worth having"  # type: ignore[type-var, operator]
    soon = fork("soon", Curve("exponential", floor=1.4, drop=1.0, pace=170.0, noise_sd=0.0003), "30m")
    expected = [t.forecast.worth for t in soon.phase.of_kind("trunk") if t.forecast]
    assert expected[-1] < 0.2 * max(expected), "what brings nothing any more is expected to bring nothing"
    epochs = fork("epochs", POWER, "4 epochs")
    assert [t.step for t in epochs.phase.of_kind("control")][:2] == [500, 1000], "forks are paid from the budget too"
    assert epochs.steps <= 2000
    overfits = replace(OVERFITS, pace=60.0, turn=150.0, rise=2.0)
    early = fork("overfits", overfits, "30m")
    assert len(early.phase.of_kind("control")) < 3, "no more epochs once it overfits or gets worse"
    short = fork("short", POWER, "20s")
    assert [t.trial.to_the_end for t in short.phase.of_kind("control")] == [True], "less than an epoch: the plain run"


@pytest.mark.parametrize(
    ("budget", "scoring"), [(110, 9.0), (150, 5.0), pytest.param(140, 5.0, marks=pytest.mark.slow)]
)
def test_the_last_fork_takes_what_is_left_and_the_run_ends_in_time(tmp_path: Path, budget: int, scoring: float) -> None:
    """Also where scoring is dear, and two forks so close that an average of them would be tried if there were time."""
    rough, curve = replace(NOISE, between_blocks=0.2), replace(POWER, drop=1.0)
    left = []
    for seed in range(6):  # by one's noise more may be left: what comes last is chosen by what was seen
        clock = FakeClock()
        workshop = Pretrained(curve, clock, Machine(full_seconds=scoring), rough, examples=1200)
        wanted = plan(budget=f"{budget}s", recipe=RATE, seed=seed)
        history = execute(wanted, tmp_path / f"{seed}", curve, clock=clock, workshop=workshop)
        left.append(budget - history.seconds)
    assert min(left) > -5
    assert sorted(left)[2] < 3
    assert max(left) < 2 * scoring, "less than another fork takes"


@pytest.mark.parametrize("budget", ["30m", "6000 steps"])
def test_few_examples_are_warmed_up_and_looked_at_in_their_own_measure(tmp_path: Path, budget: str) -> None:
    clock = FakeClock()
    workshop = Pretrained(POWER, clock, None, NOISE, examples=1200)  # 100 steps an epoch
    wanted = plan(budget=budget, recipe={**RATE, "warmup_steps": 100}, moves=[])
    history = execute(wanted, tmp_path / "run", POWER, clock=clock, workshop=workshop)
    trunk, control = history.phase.trials["0.trunk"], history.phase.of_kind("control")[0]
    assert (trunk.step, control.step) == (50, 100)
    assert len(trunk.curve) >= 10
    course = [rate for w in (*trunk.done, *control.done) for rate in rates(w.window.segments)]
    assert max(b - a for a, b in itertools.pairwise(course)) <= 0.02 / 25 + 1e-12, "no jump upwards"
    assert course[49] == 0.02


@pytest.mark.parametrize(("gain", "leads"), [(0.08, "b"), (-0.08, "a")])
def test_several_models_are_raced_over_short_forks_and_what_is_clearly_worse_is_dropped(
    tmp_path: Path, gain: float, leads: str
) -> None:
    """An epoch would take all of the budget: half of it, and no more, goes to the first forks of three models."""
    rivals = tuple(Recipe(learning_rate=0.02, batch_size=12, model=name) for name in ("b", "c"))

    class Three(Pretrained):
        def open(self, *args: Any) -> Any:
            learner, ready = super().open(*args)
            facts, recipe = replace(ready.facts, rivals=rivals), replace(ready.recipe, model="a")
            return learner, replace(ready, facts=facts, recipe=recipe)

    clock, curve = FakeClock(), Curve("exponential", floor=1.4, drop=1.0, pace=300.0, noise_sd=0.0003)
    world = replace(NOISE, effect=lambda r: {"a": 0.0, "b": -gain, "c": 0.3}[r.model or ""])
    workshop = Three(curve, clock, None, world, examples=10**6)
    wanted = plan(task="text-classification", model=["a", "b", "c"], budget="10m", recipe={})
    history = execute(wanted, tmp_path / "run", curve, clock=clock, workshop=workshop)
    trials = history.phase.trials
    first = history.phase.of_kind("control")[0]
    assert first.full is not None
    assert first.step * 0.05 < 0.5 / 3 * 600 * 1.1, "a step takes a twentieth of a second"
    assert {"0.model-b", "0.model-c"} <= trials.keys(), "each is tried"
    for name in ("b", "c"):
        assert trials[f"0.model-{name}"].step == pytest.approx(first.step, rel=0.15), "for as long as the first"
    assert history.leader is not None
    assert trials[history.leader.trial].trial.recipe.model == leads
    later = list(trials.values())[len(trials) - 3 :]
    assert all(t.trial.recipe.model != "c" for t in later), "what is clearly worse is not gone on with"
    assert history.seconds == pytest.approx(600, rel=0.05)


def test_other_models_are_tried_where_the_first_is_dear(tmp_path: Path) -> None:
    """Of the first model some sixty steps fit; a step of the others is a hundred times cheaper, which nobody knows."""
    rivals = tuple(Recipe(learning_rate=0.02, batch_size=12, model=name) for name in ("b", "c"))

    class Dear(Pretrained):
        def open(self, *args: Any) -> Any:
            learner, ready = super().open(*args)
            facts, recipe = replace(ready.facts, rivals=rivals), replace(ready.recipe, model="a")
            return learner, replace(ready, facts=facts, recipe=recipe)

    clock, curve = FakeClock(), Curve("exponential", floor=1.4, drop=1.0, pace=300.0, noise_sd=0.0003)
    world = replace(NOISE, cost=lambda r: 20.0 if r.model == "a" else 0.2)
    workshop = Dear(curve, clock, None, world, examples=10**6)
    wanted = plan(task="text-classification", model=["a", "b", "c"], budget="70s", recipe={})
    history = execute(wanted, tmp_path / "run", curve, clock=clock, workshop=workshop)
    first = history.phase.of_kind("control")[0]
    assert first.full is not None
    assert first.step <= 0.55 * 70, "half of the time at most, a step of a second each"
    assert {"0.model-b", "0.model-c"} <= history.phase.trials.keys()
    assert history.phase.trials["0.model-b"].step > 10 * first.step
    assert history.seconds < 73
