"""Decisions, tested with curves: the plain run, explicit plans, rolling back, probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import FALLS_THEN_FLAT, OVERFITS, POWER, execute, plan

from multistep.core.evidence.curves import Curve
from multistep.core.evidence.metric import Evaluation
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import Entry, WindowDone
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import rates
from multistep.engine.learner import Exhibit, Learner, Readiness, Split
from multistep.engine.simulate import FakeClock, Machine, SimulatedWorkshop, World
from multistep.errors import PlanError, RunFailed


def learning_rates(history: History, *kinds: str) -> list[float]:
    records = [t for p in history.phases for t in p.trials.values() if t.trial.kind in kinds]
    return [rate for t in records for w in t.done for rate in rates(w.window.segments)]


@pytest.mark.parametrize("budget", [20, 180, 1200])
def test_a_plain_run_ends_with_its_budget_and_at_rate_zero(tmp_path: Path, budget: int) -> None:
    history = execute(plan(budget=f"{budget}s"), tmp_path / "run")
    assert history.seconds == pytest.approx(budget, abs=max(5, 0.03 * budget))
    assert history.seconds <= budget * 1.03 + 0.5
    control = history.phase.control
    assert control is not None
    assert control.done[-1].window.segments[-1].progress_to == 1.0
    assert learning_rates(history, "control")[-1] < 0.1 * history.phase.started.recipe.learning_rate  # type: ignore[operator]
    assert history.finished is not None
    assert history.finished.stopped == "budget"
    assert history.leader is not None
    assert history.leader.leads


def test_the_rate_never_jumps(tmp_path: Path) -> None:
    """Warm-up, plateau and cooldown join: also where the clock bent the cooldown on its way."""
    history = execute(plan(budget="10m", recipe={"learning_rate": 0.02}, moves=[]), tmp_path / "run")
    course = np.array(learning_rates(history, "trunk", "control"))
    assert course[0] == pytest.approx(0.002)
    assert course.max() == pytest.approx(0.02)
    assert np.abs(np.diff(course[10:])).max() < 0.02 / 20
    share = float(np.mean(course[10:] < 0.02 * 0.999))
    assert share == pytest.approx(history.phase.started.recipe.cooldown_fraction, abs=0.03)


def test_a_machine_that_slows_down_still_ends_in_time(tmp_path: Path) -> None:
    clock, slow = FakeClock(), Machine()
    history = execute(
        plan(budget="5m"),
        tmp_path / "run",
        clock=clock,
        workshop=SimulatedWorkshop(POWER, clock, slow),
        on_entry=lambda entry: object.__setattr__(slow, "step_seconds", 0.05 if clock.seconds < 200 else 0.08),
    )
    assert history.seconds == pytest.approx(300, abs=9)
    assert history.phase.control is not None
    assert history.phase.control.done[-1].window.segments[-1].progress_to == 1.0


class Foreseen(SimulatedWorkshop):
    """A large model on a slow machine; how few steps its time holds is known, or not."""

    def __init__(self, foreseen: float | None) -> None:
        machine = Machine(step_seconds=8.0, sample_seconds=5.0, full_seconds=20.0)
        super().__init__(POWER, FakeClock(), machine)
        self._foreseen = foreseen

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        facts = replace(ready.facts, sample_tokens=1000, validation_tokens=4000, test_tokens=4000)
        return learner, replace(ready, facts=replace(facts, foreseen_steps=self._foreseen))


def test_the_first_window_is_short_where_the_time_holds_few_steps(tmp_path: Path) -> None:
    """Twelve of eight seconds were taken before anything was told, and the run was refused at its end."""
    workshop = Foreseen(12.0)
    history = execute(plan(budget="2m"), tmp_path / "run", clock=workshop._clock, workshop=workshop)
    assert next(record.window.steps for record in history.phase.trials["0.trunk"].done) == 2
    assert history.leader is not None
    assert history.seconds == pytest.approx(120, abs=9)
    workshop = Foreseen(None)
    with pytest.raises(PlanError, match=r"budget is 2m; on this machine \d+ steps"):
        execute(plan(budget="2m"), tmp_path / "unforeseen", clock=workshop._clock, workshop=workshop)


class SlowWriter(SimulatedWorkshop):
    """At the end it writes for as long as twelve scorings of the validation split take, as large models do."""

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)

        def written() -> list[Exhibit]:
            self._clock.pass_by(12 * Machine().full_seconds)
            return []

        learner.exhibits = written  # type: ignore[method-assign]
        return learner, replace(ready, facts=replace(ready.facts, closing_tokens=12 * ready.facts.validation_tokens))


def test_what_is_written_at_the_end_to_be_shown_is_in_the_budget(tmp_path: Path) -> None:
    clock = FakeClock()
    history = execute(plan(budget="3m"), tmp_path / "run", clock=clock, workshop=SlowWriter(POWER, clock))
    assert history.seconds == pytest.approx(180, abs=5)


@pytest.mark.parametrize(("first", "refused"), [(1.8, False), (3.0, True)])
def test_a_budget_is_refused_by_a_slow_machine_not_by_a_slow_first_window(
    tmp_path: Path, first: float, refused: bool
) -> None:
    clock, machine = FakeClock(), Machine(step_seconds=first)

    def go_on(entry: Entry) -> None:
        if isinstance(entry.event, WindowDone):
            object.__setattr__(machine, "step_seconds", 0.05)

    def attempt() -> History:
        workshop = SimulatedWorkshop(POWER, clock, machine)
        return execute(plan(budget="60s"), tmp_path / "run", clock=clock, workshop=workshop, on_entry=go_on)

    if refused:
        with pytest.raises(PlanError, match=r"steps and one evaluation of this data take \d+s .* give it at least"):
            attempt()
    else:
        assert attempt().finished is not None


def test_scoring_that_is_guessed_to_be_dear_is_looked_at_before_it_ends_a_run(tmp_path: Path) -> None:
    """By its steps the machine would score for 40 of the 60 seconds; it takes two."""
    history = execute(plan(budget="60s"), tmp_path / "run", machine=Machine(step_seconds=1.0))
    assert history.seconds == pytest.approx(60, abs=5)
    assert history.phase.control is not None
    assert history.phase.control.step > 45


def test_a_stable_trunk_gives_the_rest_of_the_budget_back(tmp_path: Path) -> None:
    history = execute(plan(budget="30m", tolerance=0.02, moves=[]), tmp_path / "run", FALLS_THEN_FLAT)
    assert history.finished is not None
    assert history.finished.stopped == "stable"
    assert history.seconds < 1200
    trunk = history.phase.trunk
    assert trunk is not None
    left_behind = float(FALLS_THEN_FLAT.truth(trunk.step)) - FALLS_THEN_FLAT.floor
    assert left_behind < 0.02


def test_a_run_without_a_budget_ends_when_it_is_stable(tmp_path: Path) -> None:
    history = execute(plan(tolerance=0.02), tmp_path / "run", FALLS_THEN_FLAT)
    assert history.finished is not None
    assert history.finished.stopped == "stable"
    assert float(FALLS_THEN_FLAT.truth(history.phase.trunk.step)) - 1.5 < 0.02  # type: ignore[union-attr]


def test_overfitting_goes_back_to_before_it_set_in(tmp_path: Path) -> None:
    history = execute(plan(budget="10m", recipe={"cooldown_fraction": 0.2}, moves=[]), tmp_path / "run", OVERFITS)
    control = history.phase.control
    assert control is not None
    assert history.finished is not None
    assert history.finished.stopped == "overfitting"
    best = max((c for c in history.phase.trunk.curve if c.step < 2200), key=lambda c: -c.interval.score)  # type: ignore[union-attr]
    assert 0.55 * best.step < control.first_step < 0.8 * best.step, "two thirds of the way to the best look"
    assert control.step == pytest.approx(2 * best.step - control.first_step, abs=2), "half of its steps count"
    assert f"ends about as far on as step {best.step:,}, where it was best" in control.reason
    assert history.leader is not None
    assert history.leader.interval is not None
    assert history.leader.interval.score < float(OVERFITS.truth(1500.0)) + 0.02


def test_a_curve_too_short_to_tell_overfitting_is_cooled_down_from_its_best_look(tmp_path: Path) -> None:
    dear = Machine(sample_seconds=3.0)
    history = execute(plan(budget="5m", moves=[]), tmp_path / "run", OVERFITS, machine=dear)
    trunk, (control,) = history.phase.trunk, history.phase.of_kind("control")
    assert trunk is not None
    assert len(trunk.curve) < 5
    best = min(trunk.curve, key=lambda look: look.interval.score)
    assert control.first_step <= best.step < trunk.curve[-1].step
    assert f"than that at step {best.step:,}, so the cooldown starts from step" in control.reason


def test_overfitting_in_the_cooldown_is_met_by_a_shorter_one(tmp_path: Path) -> None:
    history = execute(plan(budget="10m", recipe={"cooldown_fraction": 0.9}, moves=[]), tmp_path / "run", OVERFITS)
    first, second = history.phase.of_kind("control")
    assert first.verdict is not None
    assert second.verdict is not None
    assert second.first_step < first.step
    assert history.leader is not None
    kept = "0.control-2" if second.verdict.leads else "0.control"
    assert history.leader.trial == kept


def test_what_overfits_in_the_shorter_cooldown_too_has_the_rate_fall_within_the_steps_that_held(tmp_path: Path) -> None:
    steep = replace(OVERFITS, turn=5000.0, rise=3.0)
    history = execute(plan(budget="10m", recipe={"cooldown_fraction": 0.9}, moves=[]), tmp_path / "run", steep)
    first, second, third = history.phase.of_kind("control")
    assert {first.reading.stability, second.reading.stability} == {Stability.OVERFITTING}  # type: ignore[union-attr]
    assert third.first_step < third.step < second.step
    assert "so a shorter one starts from" in third.reason
    assert third.verdict is not None
    assert third.verdict.leads


def test_divergence_restarts_lower_and_saves_what_was_good(tmp_path: Path) -> None:
    curve = Curve("divergence", floor=1.5, drop=2.0, pace=200.0, turn=3000.0, rise=np.inf)
    history = execute(
        plan(budget="5m", recipe={"learning_rate": 0.03, "cooldown_fraction": 0.1}, moves=[]), tmp_path / "run", curve
    )
    trunks = history.phase.of_kind("trunk")
    assert [t.trial.learning_rate for t in trunks] == pytest.approx([0.03, 0.01, 0.01 / 3])
    assert history.leader is not None
    assert history.leader.interval is not None
    assert history.leader.interval.score < 1.7
    assert "diverged" in trunks[1].reason


def test_divergence_from_the_start_fails_with_advice(tmp_path: Path) -> None:
    curve = Curve("divergence", floor=1.5, drop=2.0, pace=200.0, turn=1.0, rise=np.inf)
    with pytest.raises(RunFailed, match=r"lower recipe.learning_rate"):
        execute(plan(budget="1m"), tmp_path / "run", curve)


def test_explicit_phases_take_exactly_the_steps_asked(tmp_path: Path) -> None:
    wanted = plan(
        recipe={"cooldown_fraction": 0.25},
        phases=[
            {"name": "first", "until": "150 steps", "recipe": {"learning_rate": 0.1}},
            {"name": "second", "until": "2 epochs", "recipe": {"learning_rate": 0.01, "batch_size": 100}},
            {"name": "third", "until": "768k tokens", "recipe": {"cooldown_fraction": 0.0}},
        ],
    )
    history = execute(wanted, tmp_path / "run")
    steps = [sum(t.step - t.first_step for t in p.trials.values()) for p in history.phases]
    assert steps == [150, 300, 1000]
    assert [p.finished.stopped for p in history.phases if p.finished] == ["length"] * 3
    assert max(learning_rates(history, "trunk")[:112]) == 0.1
    assert history.phases[1].started.start == history.phases[0].finished.head  # type: ignore[union-attr]
    verdicts = history.verdicts
    assert [v.leads for v in verdicts] == [True] * 3, "the curve starts anew in each phase, and ends lower"


def test_a_phase_that_ends_worse_leaves_the_leader(tmp_path: Path) -> None:
    wanted = plan(phases=[{"until": "2000 steps"}, {"until": "30 steps"}])
    history = execute(wanted, tmp_path / "run", OVERFITS)
    first, second = history.verdicts
    assert (first.leads, second.leads) == (True, False) or second.improvement >= 0  # type: ignore[operator]


def test_rates_are_probed_only_where_a_probe_means_something(tmp_path: Path) -> None:
    short = execute(plan(budget="3m"), tmp_path / "short")
    assert not short.phase.of_kind("probe"), "5% of 3 minutes are 180 steps: too few for three probes"
    long = execute(plan(budget="15m"), tmp_path / "long")
    probes = long.phase.of_kind("probe")
    assert [p.step for p in probes] == [200, 200, 200]
    assert long.phase.trunk is not None
    assert long.phase.trunk.trial.learning_rate == 0.02, "the simulated curve knows no rate: the preset's stays"
    given = execute(plan(budget="15m", recipe={"learning_rate": 0.02}), tmp_path / "given")
    assert not given.phase.of_kind("probe"), "a rate that is given is obeyed"


@pytest.mark.parametrize("best_factor", [0.5, 1.0, 2.0])
def test_probes_find_the_rate_that_is_best_for_the_whole_length(tmp_path: Path, best_factor: float) -> None:
    """Though over a probe's 200 steps a rate four times as high does best."""
    length = 17_000  # steps of the trunk and its cooldown in a quarter of an hour

    def loses(rate: float, steps: int) -> float:
        best = 0.02 * best_factor * (length / max(1, steps)) ** 0.32
        return 0.05 * float(np.log(rate / best)) ** 2

    clock, machine = FakeClock(), Machine()
    workshop = SimulatedWorkshop(POWER, clock, machine, World(loses=loses))
    history = execute(plan(budget="15m"), tmp_path / "run", clock=clock, machine=machine, workshop=workshop)
    probed = [p.trial.learning_rate / 0.02 for p in history.phase.of_kind("probe")]
    assert probed == pytest.approx([0.5 * 4.1, 4.1, 2 * 4.1], rel=0.05)
    assert history.phase.trunk is not None
    assert history.phase.trunk.trial.learning_rate == pytest.approx(0.02 * best_factor)


def test_below_ten_windows_no_curve_is_judged(tmp_path: Path) -> None:
    history = execute(plan(budget="20s"), tmp_path / "run", FALLS_THEN_FLAT)
    assert not history.phase.trunk.readings  # type: ignore[union-attr]


def test_every_look_at_the_validation_split_is_counted_and_the_test_split_opened_once(tmp_path: Path) -> None:
    seen: list[str] = []
    history = execute(
        plan(budget="3m"),
        tmp_path / "run",
        on_entry=lambda entry: seen.append(f"{entry.event.event} {getattr(entry.event, 'split', '')}"),
    )
    looks = seen.count("evaluated validation")
    assert history.looks == looks > 10
    assert seen.count("evaluated test") == 1
    assert seen.index("evaluated test") > max(i for i, name in enumerate(seen) if name.startswith("verdict"))


class Confident(SimulatedWorkshop):
    """A classifier whose accuracy still rises when its loss has turned: it gets surer of its mistakes."""

    @staticmethod
    def accuracy(steps: int) -> float:
        return 0.9 - 0.6 / (1.0 + steps / 600.0)

    def open(self, *args: Any) -> Any:
        opened: tuple[Any, Readiness] = super().open(*args)
        learner, ready = opened
        table = learner.evaluate

        def evaluate(split: Split, *, sample: bool) -> Evaluation:
            loss = float(np.mean(table(split, sample=sample).columns["loss"])) / 500.0
            right = np.arange(400) < 400 * self.accuracy(learner._steps)
            columns = {"label": np.ones(400), "prediction": right.astype(float), "block": np.arange(400.0)}
            each = np.logaddexp(0.0, np.where(right, -4.0, 2.0 * loss))
            return Evaluation({**columns, "loss": each, "count": np.ones(400)})

        learner.evaluate = evaluate
        flat = np.zeros(400)
        none = {"label": flat + 1, "prediction": flat, "block": np.arange(400.0), "loss": flat + 1, "count": flat + 1}
        learner.baseline = lambda split: ("none", Evaluation(none))
        return learner, replace(ready, metrics=("accuracy",))


def test_a_loss_that_rises_while_the_metric_improves_only_warns(tmp_path: Path) -> None:
    clock = FakeClock()
    wanted = plan(task="text-classification", budget="10m", recipe={"learning_rate": 0.02}, moves=[])
    history = execute(wanted, tmp_path / "run", OVERFITS, clock=clock, workshop=Confident(OVERFITS, clock))
    readings = history.phase.trials["0.trunk"].readings
    warned = [r for r in readings if r.loss is Stability.OVERFITTING]
    assert warned
    assert "the validation calibrated one-against-rest loss got worse by" in warned[0].reason
    assert {r.stability for r in readings} <= {Stability.IMPROVING, Stability.UNDECIDED, Stability.STABLE}


class Beginner(SimulatedWorkshop):
    """A listener that gets no word right yet, though its loss falls; then nearly all at once."""

    def open(self, *args: Any) -> Any:
        opened: tuple[Any, Readiness] = super().open(*args)
        learner, ready = opened
        table = learner.evaluate

        def heard(errors: float, loss: float) -> Evaluation:
            columns = {"errors": np.full(400, errors), "words": np.ones(400), "block": np.arange(400.0)}
            return Evaluation({**columns, "loss": np.full(400, loss), "count": np.ones(400)})

        def evaluate(split: Split, *, sample: bool) -> Evaluation:
            loss = float(np.mean(table(split, sample=sample).columns["loss"])) / 500.0
            return heard(1.0 if learner._steps < 6000 else 0.1, loss)

        learner.evaluate = evaluate
        learner.baseline = lambda split: ("none", heard(1.0, 9.0))
        return learner, replace(ready, metrics=("wer",))


def test_a_metric_that_has_not_begun_to_move_is_no_plateau_while_the_loss_falls(tmp_path: Path) -> None:
    clock, falls = FakeClock(), replace(POWER, noise_sd=0.0003)
    wanted = plan(task="speech-recognition", budget="10m", recipe={"learning_rate": 0.02}, moves=[])
    history = execute(wanted, tmp_path / "run", falls, clock=clock, workshop=Beginner(falls, clock))
    trunk = history.phase.trials["0.trunk"]
    early = [r for r in trunk.readings if r.step < 6000]
    assert any(r.reason.endswith("the loss still falls, so this is no plateau yet") for r in early)
    assert Stability.STABLE not in {r.stability for r in early}
    assert history.leader is not None
    assert history.leader.interval is not None
    assert history.leader.interval.score == pytest.approx(0.1)


def test_a_long_warm_up_is_shortened_once_the_speed_is_known(tmp_path: Path) -> None:
    for budget, warmup, step_seconds in ((300, 100, 5.0), (60, 100_000, 0.05)):
        recipe = {"learning_rate": 0.02, "warmup_steps": warmup}
        machine = Machine(step_seconds=step_seconds)
        folder = tmp_path / str(budget)
        history = execute(plan(budget=f"{budget}s", recipe=recipe, moves=[]), folder, machine=machine)
        assert history.seconds <= budget * 1.03 + 5
        course = np.array(learning_rates(history, "trunk", "control"))
        assert course.max() == pytest.approx(0.02)
        assert np.diff(course[: course.argmax()]).min() >= 0, "it goes on from the rate that it has reached"
        assert course[-1] < 0.01


def test_why_a_phase_stopped_is_told_by_which_limit_came_first(tmp_path: Path) -> None:
    def stopped(name: str, **keywords: Any) -> str:
        history = execute(plan(recipe={"learning_rate": 0.02}, **keywords), tmp_path / name)
        assert history.finished is not None
        return history.finished.stopped

    assert stopped("time", phases=[{"name": "a", "until": "20s"}]) == "length"
    assert stopped("steps", phases=[{"name": "a", "until": "400 steps"}], budget="10m") == "length"
    assert stopped("cut", phases=[{"name": "a", "until": "400 steps"}], budget="300 steps") == "budget"
    assert stopped("cut short", phases=[{"name": "a", "until": "10m"}], budget="60s") == "budget"


@pytest.mark.parametrize("moves", [[], ["decay-up"]])
def test_a_phase_that_has_had_its_share_does_not_say_that_the_budget_is_spent(moves: list[str], tmp_path: Path) -> None:
    """After 100 of 200 steps of two phases it was said so twice."""
    keywords: dict[str, Any] = {"budget": "1000 steps", "recipe": {"learning_rate": 0.02}, "moves": moves}
    history = execute(plan(phases=[{"name": "a"}, {"name": "b"}], **keywords), tmp_path / "run")
    assert [p.finished.stopped for p in history.phases if p.finished] == ["length", "budget"]
    assert "what is left of this phase is just enough for the cooldown" in [
        t.reason for t in history.phases[0].of_kind("control")
    ]


def test_a_phase_whose_share_is_used_up_says_whose_it_is(tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"budget": "1200 steps", "recipe": {"learning_rate": 0.02}}
    history = execute(plan(phases=[{"name": "a"}, {"name": "b"}], **keywords), tmp_path / "run")
    ended = [p.moves_ended.reason for p in history.phases if p.moves_ended]
    assert len(ended) == 2
    assert "this phase's share of the budget" in ended[0]
    assert "share" not in ended[1]


def test_a_trunk_that_grows_is_left_by_the_clock_and_one_without_an_end_by_its_curve(tmp_path: Path) -> None:
    recipe = {"learning_rate": 0.02, "resolution": [14, 21, 28]}
    growing = execute(plan(budget="10m", recipe=recipe, moves=[]), tmp_path / "growing", FALLS_THEN_FLAT)
    trunk = growing.phase.trials["0.trunk"]
    assert {r.window.resolution for r in trunk.done} == {14, 21}
    assert not trunk.readings
    assert growing.seconds == pytest.approx(600, rel=0.03)
    endless = execute(plan(recipe=recipe, moves=[]), tmp_path / "endless", FALLS_THEN_FLAT)
    assert {r.window.resolution for r in endless.phase.trials["0.trunk"].done} == {28}
    assert endless.finished is not None
    assert endless.finished.stopped == "stable"
