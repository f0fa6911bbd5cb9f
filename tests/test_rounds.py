"""Iterating, tested with curves: which moves are tried, against what, and what is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import OVERFITS, POWER, Fragile, Killed, execute, plan

from multistep.core.choice.moves import MOVES, applicable
from multistep.core.evidence.curves import Curve
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.recipe import Recipe, rates
from multistep.core.values.trial import Facts
from multistep.engine.simulate import RECIPE, FakeClock, SimulatedWorkshop, World
from multistep.errors import PlanError

SPIKE = Curve("divergence", floor=1.5, drop=2.0, pace=200.0, turn=3000.0, rise=np.inf)
FLAT = Curve("exponential", floor=1.5, drop=2.0, pace=200.0, noise_sd=0.0003)
RATE = {"learning_rate": 0.02}  # given, so that nothing is probed


def iterate(folder: Path, curve: Curve, world: World, **keywords: Any) -> History:
    clock = FakeClock()
    wanted = {"budget": "10m", "tolerance": 0.02, "recipe": RATE, **keywords}
    workshop = SimulatedWorkshop(curve, clock, None, world)
    return execute(plan(**wanted), folder, curve, clock=clock, workshop=workshop)


def moves(history: History) -> list[TrialRecord]:
    return list(history.phase.of_kind("move"))


def verdict(history: History, move: str) -> str | None:
    return next((t.verdict.word for t in moves(history) if t.trial.move == move and t.verdict), None)


def ended(history: History) -> str:
    assert history.phase.moves_ended is not None
    return history.phase.moves_ended.reason


NOISE = World(between_blocks=0.01, between_seeds=0.0005)


class Rich(SimulatedWorkshop):
    """A model that every move applies to."""

    def __init__(self, move: str, world: World) -> None:
        self.base = RICH.get(move, {})
        self._pretrained = move == "layer-decay"
        super().__init__(FLAT, clock := FakeClock(), None, replace(world, effect=self._effect(move, world.effect)))
        self.clock = clock

    def _effect(self, move: str, effect: Callable[[Recipe], float]) -> Callable[[Recipe], float]:
        known = replace(RECIPE, **self.base)
        touches = [key for key in MOVES[move].touches if key not in ("learning_rate", "batch_size")] or MOVES[
            move
        ].touches
        return lambda r: effect(r) * any(getattr(r, key) != getattr(known, key) for key in touches)

    def open(self, *args: Any) -> Any:
        learner, ready = super().open(*args)
        names = tuple(move.removeprefix("optimizer-") for move in MOVES if move.startswith("optimizer-"))
        settings = ("dropout", "label_smoothing", "augmentation", "context")
        facts = replace(ready.facts, settings=settings, optimizers=names, pretrained=self._pretrained)
        return learner, replace(ready, facts=facts, recipe=replace(ready.recipe, **self.base), rate_open=False)


# What a recipe must have for a move to apply to it.
RICH: dict[str, dict[str, Any]] = {
    "decay-down": {"weight_decay": 0.1},
    "dropout-down": {"dropout": 0.2},
    "smoothing-down": {"label_smoothing": 0.1},
    "augmentation-down": {"augmentation": 0.5},
    "sharpness-off": {"sharpness": 0.05},
    "rank-up": {"adapter": "lora"},
    "unfreeze": {"frozen": ("a*", "b*")},
    "optimizer-muon": {"optimizer": "adamw"},
}


# One of each kind; the others, which differ by what they set, are tried by `make slow`.
OF_EACH_KIND = ("rate-down", "batch-up", "dropout-up", "sharpness-on", "layer-decay", "optimizer-schedule-free")


@pytest.mark.parametrize(
    "move", [move if move in OF_EACH_KIND else pytest.param(move, marks=pytest.mark.slow) for move in MOVES]
)
def test_a_move_is_kept_where_it_helps_and_rejected_where_it_hurts(tmp_path: Path, move: str) -> None:
    # Without a cooldown, what the plateau's rate costs stays.
    size = 0.2 if move == "optimizer-schedule-free" else 0.03

    def run(name: str, effect: float) -> History:
        workshop = Rich(move, replace(NOISE, effect=lambda _: effect))
        wanted = plan(budget="12000 steps", tolerance=0.02, moves=[move])
        return execute(wanted, tmp_path / name, FLAT, clock=workshop.clock, workshop=workshop)

    helps = run("helps", -size)
    assert verdict(helps, move) == "leads"
    assert helps.leader is not None
    assert _comes_from(helps, move)
    found = next(t.verdict for t in moves(helps) if t.verdict)
    cost = 0.1 if move == "optimizer-schedule-free" else 0.0
    assert found.gain == pytest.approx(size - cost, abs=0.01)
    assert found.gain_low is not None
    assert found.gain_low > 0
    hurts = run("hurts", size)
    assert verdict(hurts, move) == "behind"
    assert hurts.leader is not None
    assert not _comes_from(hurts, move)


def _comes_from(history: History, move: str) -> bool:
    """Whether who leads is a trial of the move, or forked from one."""
    assert history.leader is not None
    return _grew_from(history, history.trial(history.leader.trial), move)


def test_siblings_share_fork_seed_and_seconds_and_a_slower_one_gets_fewer_steps(tmp_path: Path) -> None:
    world = replace(NOISE, cost=lambda r: 1.0 + (r.sharpness > 0))
    history = iterate(tmp_path / "run", OVERFITS, world, moves=["decay-up", "sharpness-on"])
    control = history.trial("0.round-1.control")
    decay, sharp = moves(history)[:2]
    for sibling in (decay, sharp):
        assert (sibling.trial.start, sibling.trial.seed) == (control.trial.start, control.trial.seed)
        assert sibling.seconds == pytest.approx(control.seconds, rel=0.03)
        assert sibling.verdict is not None
        assert sibling.verdict.control == control.trial.id
    assert decay.step == pytest.approx(control.step, rel=0.03)
    taken = [t.step - t.first_step for t in (sharp, control)]
    assert taken[0] == pytest.approx(taken[1] / 2, rel=0.05)
    for record in (control, decay, sharp):
        assert record.done[-1].window.segments[-1].progress_to == 1.0, "compared after the cooldown only"


def test_who_leads_is_gone_on_from_before_its_cooldown(tmp_path: Path) -> None:
    world = replace(NOISE, overfits=lambda r: max(0.0, 1 - 8 * r.dropout), effect=lambda r: -0.1 * r.dropout)
    history = iterate(tmp_path / "run", OVERFITS, world, tolerance=None)
    led = next(t for t in moves(history) if t.verdict and t.verdict.leads and t.trial.recipe.dropout > 0)
    after = next(
        t for t in moves(history) if t.trial.start in {c.id for c in led.checkpoints} and t.over == led.trial.id
    )
    saved = next(c for c in led.checkpoints if c.id == after.trial.start)
    assert led.first_step < saved.step < led.step
    assert after.first_step == saved.step
    rate = rates(after.done[0].window.segments)[0]
    assert rate == after.trial.learning_rate, "the plateau's rate, or the move's"


def test_overfitting_calls_for_regularising_moves_and_they_are_pursued_while_they_pay(tmp_path: Path) -> None:
    world = replace(NOISE, overfits=lambda r: max(0.0, 1 - 4 * r.dropout))
    curve = replace(OVERFITS, pace=600.0)  # much is left to gain when it turns
    history = iterate(tmp_path / "run", curve, world, tolerance=None)
    first = moves(history)[0]
    assert MOVES[first.trial.move or ""].regularises
    assert "overfitted" in first.reason
    tried = [t.trial.move for t in moves(history)]
    assert tried[1:5] == ["dropout-up"] * 4, "from whatever it led to"
    assert history.leader is not None
    assert history.leader.interval is not None
    plain = iterate(tmp_path / "plain", curve, world, tolerance=None, moves=[])
    assert plain.leader is not None
    assert plain.leader.interval is not None
    assert history.leader.interval.score < plain.leader.interval.score - 0.02


def test_what_overfits_early_is_begun_again_at_a_lower_rate(tmp_path: Path) -> None:
    slow = replace(NOISE, overfits=lambda r: 0.0 if _low(r) else 1.0, effect=lambda r: -0.02 * _low(r))
    history = iterate(tmp_path / "kept", OVERFITS, slow, budget="30000 steps", recipe={})
    first = moves(history)[0].trial
    assert (first.move, first.start) == ("restart", None)
    # The curve is flat from about step 800 on and turns at 1500; which look is its best is chance.
    assert first.learning_rate == pytest.approx(0.02 / 4), "however much time there is"
    assert first.length is not None
    assert 4 * 800 <= first.length.value <= 4 * 1600, "as many times the steps"
    short = moves(iterate(tmp_path / "short", OVERFITS, slow, budget="6000 steps", recipe={}))[0].trial
    assert short.length is not None
    assert 0.02 * 800 / short.length.value <= short.learning_rate <= 0.02 * 1600 / short.length.value
    assert short.learning_rate > 0.02 / 4
    timed = moves(iterate(tmp_path / "timed", OVERFITS, slow, budget="600s", recipe={}))[0]
    said = re.search(r"for about ([\d,]+) steps", timed.reason)
    assert said
    assert timed.step == pytest.approx(int(said[1].replace(",", "")), rel=0.02), "its seconds count the looks, too"
    assert verdict(history, "restart") == "leads"
    later = [t for t in moves(history)[1:] if t.trial.start]
    assert all(_grew_from(history, t, "restart") for t in later), "who leads is gone on from"
    named = [t.trial.move for t in later if t.trial.move in MOVES]
    assert not named or not MOVES[named[0] or ""].regularises, "overfitting was answered"
    same = iterate(tmp_path / "rejected", OVERFITS, NOISE, budget="30000 steps", recipe={})
    assert verdict(same, "restart") == "behind"
    left = [t for t in moves(same) if t.trial.move == "restart"]
    assert left[0].step < 0.3 * 20_000, "it overfits as early as the plain run did, and is left"
    assert [t.trial.start for t in left] == [None, f"0.restart@{left[1].first_step}"], "and cooled down from its best"
    assert abs(left[1].first_step - 1500) < 500
    assert left[1].verdict is not None
    assert left[1].verdict.leads
    siblings = [t for t in moves(same) if t.trial.move in MOVES]
    assert len(siblings) > 5
    assert max(t.step for t in siblings) <= left[1].step, "what goes on for longer than who leads overfits for that"
    asked = iterate(tmp_path / "named", OVERFITS, NOISE, budget="30000 steps", recipe={}, moves=["restart"])
    cooled = [t for t in moves(asked) if t.trial.move == "restart"][1]
    assert cooled.trial.start == f"0.restart@{cooled.first_step}", "where moves are named and nothing is weighed, too"
    half = replace(slow, overfits=lambda r: 0.5 if _low(r) else 1.0, effect=lambda r: -0.2 * _low(r))
    better = iterate(tmp_path / "better", OVERFITS, half, budget="30000 steps", recipe={})
    cooled = better.trial("0.restart-2")
    assert all(_grew_from(better, t, "restart") for t in moves(better)[1:]), "what was cooled down is gone on from"
    assert next(t for t in moves(better)[2:] if t.trial.move in MOVES).trial.start == cooled.trial.start
    given = iterate(tmp_path / "given", OVERFITS, NOISE, budget="30000 steps")
    assert verdict(given, "restart") is None, "a rate that is given is obeyed"


def _grew_from(history: History, record: TrialRecord, move: str) -> bool:
    while record.trial.move != move and record.trial.start:
        record = history.trial(record.trial.start.split("@")[0])
    return record.trial.move == move


def _low(recipe: Recipe) -> bool:
    return (recipe.learning_rate or 1.0) < 0.011


def test_the_budget_is_used_and_not_passed(tmp_path: Path) -> None:
    timed = iterate(tmp_path / "timed", OVERFITS, NOISE, recipe={})
    assert timed.seconds == pytest.approx(600, abs=0.03 * 600)
    assert timed.finished is not None
    assert timed.finished.stopped == "budget"
    steps = iterate(tmp_path / "steps", OVERFITS, NOISE, recipe={}, budget="12000 steps")
    assert 11_800 < steps.steps <= 12_000


def test_a_trunk_that_still_improves_leaves_nothing_for_moves(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", POWER, NOISE, budget="5m", tolerance=None)
    assert not moves(history)
    assert ended(history) == "the budget is used up"
    plain = iterate(tmp_path / "plain", POWER, NOISE, budget="5m", tolerance=None, moves=[])
    assert plain.phase.moves_ended is None, "who wants no moves is told nothing of them"
    assert history.leader is not None
    assert history.leader.interval is not None
    assert plain.leader is not None
    assert plain.leader.interval is not None
    assert history.leader.interval.score < plain.leader.interval.score + 0.01, "what the early result cost"


def test_a_split_too_small_to_tell_anything_apart_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multistep.engine.simulate.BLOCKS", 4)
    history = iterate(tmp_path / "run", OVERFITS, World())
    assert not moves(history)
    assert "4 independent examples, too few" in ended(history)
    assert "at least 10 to compare any, and about" in ended(history)


def test_noise_between_seeds_is_measured_and_what_helped_is_tried_again(tmp_path: Path) -> None:
    world = replace(NOISE, effect=lambda r: -0.03 * (r.dropout > 0))
    history = iterate(tmp_path / "run", FLAT, world, budget="20000 steps", moves=["dropout-up"], recipe={}, seed=3)
    kept = next(t for t in moves(history) if t.verdict and t.verdict.leads)
    reruns = [t for t in history.phase.of_kind("rerun") if t.trial.start == kept.trial.start]
    seeds = [t.trial.seed for t in reruns if t.trial.move == "dropout-up"]
    assert seeds == [t.trial.seed for t in reruns if t.trial.move is None][: len(seeds)] == [4, 5, 6][: len(seeds)]
    assert seeds
    assert all(t.full and t.verdict is None for t in history.phase.of_kind("rerun"))


def test_averages_of_equals_are_tried_last_and_once(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", FLAT, NOISE, budget="12000 steps", recipe={}, moves=["decay-up", "average"])
    average = history.phase.of_kind("average")
    assert [t.trial.id for t in average] == ["0.average-1"]
    assert list(history.phase.trials)[-1] == "0.average-1"
    assert len(average[0].trial.of) == 2
    assert average[0].verdict is not None
    assert average[0].verdict.attempt == len([v for v in history.verdicts if v.attempt])


def test_a_mean_is_kept_where_it_helps_and_rejected_where_it_does_not(tmp_path: Path) -> None:
    given: dict[str, Any] = {"budget": "12000 steps", "recipe": {}, "moves": ["decay-up", "average"]}
    helps = iterate(tmp_path / "helps", FLAT, replace(NOISE, of_averages=0.03), **given)
    assert helps.leader is not None
    assert helps.leader.trial.startswith("0.average")
    same = iterate(tmp_path / "same", FLAT, NOISE, **given)
    assert [t.verdict.word for t in same.phase.of_kind("average") if t.verdict] == ["behind"]


def test_a_change_of_optimizer_starts_it_anew_and_warms_it_up(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", FLAT, NOISE, budget="12000 steps", recipe={}, moves=["optimizer-adamw"])
    trial = moves(history)[0]
    assert trial.trial.carry == "weights"
    assert trial.trial.learning_rate == pytest.approx(0.02 / 2), "half is typical of AdamW"
    course = rates(trial.done[0].window.segments)
    assert course[0] < course[5] < course[20] == pytest.approx(trial.trial.learning_rate)


def test_a_killed_run_of_moves_ends_as_it_would_have(tmp_path: Path) -> None:
    world = replace(NOISE, effect=lambda r: -0.03 * (r.dropout > 0))
    keywords = {"budget": "12000 steps", "tolerance": 0.02, "moves": ["dropout-up", "decay-up", "average"]}
    wanted = plan(**keywords)

    def workshop(windows: int) -> Fragile:
        made = Fragile(FLAT, FakeClock(), windows)
        made._world = world
        return made

    straight = execute(wanted, tmp_path / "straight", FLAT, workshop=workshop(10**6))
    count = sum(len(t.done) for t in straight.phase.trials.values())
    for windows in (count // 2, count - 12):
        with pytest.raises(Killed):
            execute(wanted, tmp_path / f"killed-{windows}", FLAT, workshop=workshop(windows))
        again = execute(wanted, tmp_path / f"killed-{windows}", FLAT, workshop=workshop(10**6))
        assert again.finished == straight.finished
        assert again.verdicts == straight.verdicts
        assert list(again.phase.trials) == list(straight.phase.trials)


# Moves ---------------------------------------------------------------------------------------------------

FACTS = Facts(1000, 5000, 64, 800, 3200, 3200, pretrained=False, device="cpu", description="")


def test_moves_that_do_not_apply_are_not_proposed() -> None:
    bare = applicable(RECIPE, FACTS, {})
    assert "rate-up" in bare
    assert not {"dropout-up", "augmentation-up", "context-up", "unfreeze", "layer-decay", "optimizer-muon"} & set(bare)
    assert "optimizer-lion" not in bare, "not installed here"
    able = replace(FACTS, settings=("dropout", "context"), optimizers=("muon", "lion"), pretrained=True)
    found = applicable(replace(RECIPE, frozen=("embedding*",)), able, {"weight_decay": 0.1})
    assert {"dropout-up", "context-up", "unfreeze", "layer-decay", "optimizer-lion"} <= set(found)
    assert not {"decay-up", "decay-down", "dropout-down"} & set(found), "what is given is obeyed; nothing is below 0"


@pytest.mark.parametrize("name", MOVES)
def test_a_move_changes_what_it_says_and_nothing_else(name: str) -> None:
    rich = Recipe(
        optimizer="sgd" if name == "optimizer-muon" else "muon",
        learning_rate=0.02,
        batch_size=8,
        weight_decay=0.0 if name == "optimizer-muon" else 0.1,
        dropout=0.2,
        label_smoothing=0.1,
        augmentation=0.5,
        sharpness=0.05 if name == "sharpness-off" else 0.0,
        frozen=("a*", "b*"),
        adapter="lora",
    )
    settings = ("dropout", "label_smoothing", "augmentation", "context")
    names = tuple(move.removeprefix("optimizer-") for move in MOVES if move.startswith("optimizer-"))
    facts = replace(FACTS, settings=settings, optimizers=names, pretrained=True)
    changed = MOVES[name](rich, facts)
    assert changed is not None
    differing = {key for key in vars(rich) if getattr(rich, key) != getattr(changed, key)}
    allowed = {*MOVES[name].touches} | ({"gradient_clip", "cooldown_fraction"} if "optimizer" in name else set())
    assert differing
    assert differing <= allowed
    assert MOVES[name].source
    back = MOVES[name].opposite
    if back and name not in ("sharpness-on", "sharpness-off"):
        assert MOVES[back].opposite == name


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"moves": ["dropout-upp"]}, "unknown move 'dropout-upp'; allowed: .*Did you mean 'dropout-up'"),
        ({"moves": ["dropout-up"], "recipe": {"dropout": 0.1}}, "'dropout-up' changes dropout, which the recipe fixes"),
        ({"moves": "all"}, "moves is 'all'; allowed: a list of names, or auto"),
        (
            {"phases": [{"until": "100 steps", "moves": ["decay-up"]}]},
            "moves are named, but until is 100 steps, which leaves them no room",
        ),
        ({"recipe": {"schedule": "one-cycle"}}, "schedule is one-cycle, which needs a length"),
    ],
)
def test_contradictions_are_named(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(**keywords)


# Schedules, spikes, pretrained weights -------------------------------------------------------------------


def course(history: History) -> np.ndarray[Any, np.dtype[np.float64]]:
    records = [t for t in history.phase.trials.values() if t.trial.kind in ("trunk", "control")]
    return np.array([rate for t in records for w in t.done for rate in rates(w.window.segments)])


@pytest.mark.parametrize("length", [{"budget": "3000 steps"}, {"budget": "3m"}])
def test_one_cycle_rises_for_a_third_and_falls_as_a_cosine(tmp_path: Path, length: dict[str, str]) -> None:
    history = iterate(tmp_path / "run", POWER, NOISE, recipe={**RATE, "schedule": "one-cycle"}, **length)
    found = course(history)
    top = int(found.argmax())
    assert top == pytest.approx(0.3 * len(found), rel=0.1)
    assert found.max() == pytest.approx(0.02)
    assert found[-1] < 0.0002
    middle = (top + len(found)) // 2
    assert found[middle] == pytest.approx(0.01, rel=0.1)


def test_multi_step_divides_the_rate_by_ten_twice(tmp_path: Path) -> None:
    recipe = {**RATE, "schedule": "multi-step", "warmup_steps": 0}
    found = course(iterate(tmp_path / "run", POWER, NOISE, recipe=recipe, budget="2000 steps"))
    assert len(found) == 2000
    assert found[:1000] == pytest.approx(0.02)
    assert found[1000:1500] == pytest.approx(0.002)
    assert found[1500:] == pytest.approx(0.0002)


def test_on_plateau_lowers_the_rate_each_time_the_curve_is_stable(tmp_path: Path) -> None:
    recipe = {**RATE, "schedule": "on-plateau"}
    history = iterate(tmp_path / "run", FLAT, NOISE, recipe=recipe, budget="60000 steps", moves=[])
    found = [t.trial.learning_rate for t in history.phase.of_kind("trunk")]
    assert found == pytest.approx([0.02 * 0.3**n for n in range(len(found))])
    assert 2 <= len(found) <= 4, "down to a hundredth"


@pytest.mark.parametrize("curve", [OVERFITS, SPIKE])
def test_a_budget_in_steps_pays_for_what_is_rolled_back(tmp_path: Path, curve: Curve) -> None:
    history = execute(plan(budget="6000 steps", recipe=RATE, moves=[]), tmp_path / "run", curve)
    control = history.phase.of_kind("control")[-1]
    assert control.step < history.steps <= 6000, "not all of what was taken is in the model"


# What must not break a run -------------------------------------------------------------------------------


class Refusing(SimulatedWorkshop):
    """A learner that cannot do what one move asks for."""

    def open(self, *args: Any) -> Any:
        learner, ready = super().open(*args)
        load = learner.load

        def refusing(folder: Path, recipe: Recipe, seed: int, **more: Any) -> None:
            if recipe.sharpness:
                raise PlanError("recipe.sharpness is 0.05, which this model cannot have")
            load(folder, recipe, seed, **more)

        learner.load = refusing  # type: ignore[method-assign]
        return learner, ready


def test_a_move_that_cannot_be_had_fails_and_the_run_goes_on(tmp_path: Path) -> None:
    clock = FakeClock()
    wanted = plan(budget="12000 steps", tolerance=0.02, moves=["sharpness-on", "decay-up"])
    history = execute(wanted, tmp_path / "run", FLAT, clock=clock, workshop=Refusing(FLAT, clock, None, NOISE))
    assert verdict(history, "sharpness-on") == "failed"
    assert verdict(history, "decay-up") in ("leads", "behind")
    assert history.finished is not None


def test_a_new_optimizer_is_warmed_up_under_a_clock_too(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", OVERFITS, NOISE, recipe={}, moves=["optimizer-adamw"])
    trial = moves(history)[0]
    course = [rate for w in trial.done for rate in rates(w.window.segments)]
    assert course[0] == pytest.approx(trial.trial.learning_rate / 10)
    assert course[9] == pytest.approx(trial.trial.learning_rate)


def test_a_budget_in_epochs_allows_no_move_that_changes_what_a_step_holds(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", FLAT, NOISE, budget="10 epochs", recipe={})
    assert moves(history)
    assert not {t.trial.move for t in moves(history)} & {"batch-up", "batch-down", "context-up", "context-down"}
    with pytest.raises(PlanError, match=r"'batch-up' changes how many examples a step has.*10 epochs"):
        plan(budget="10 epochs", moves=["batch-up"])


def test_decay_within_the_gradient_is_no_decay_beside_it() -> None:
    facts = replace(FACTS, optimizers=("adamw", "sgd", "adam"))
    adamw = Recipe(optimizer="adamw", learning_rate=5e-3, batch_size=8, weight_decay=0.1)
    for name in ("sgd", "adam"):
        changed = MOVES[f"optimizer-{name}"](adamw, facts)
        assert changed is not None
        assert changed.weight_decay == 0.0, "0.1 within the gradient shrinks weights to nothing"
        more = MOVES["decay-up"](changed, facts)
        assert more is not None
        assert more.weight_decay == 1e-4
        back = MOVES["optimizer-adamw"](more, facts)
        assert back is not None
        assert back.weight_decay == 0.0
    sgd = MOVES["optimizer-sgd"](adamw, facts)
    assert sgd is not None
    assert sgd.momentum == 0.9
