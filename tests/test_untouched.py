"""The model before training is scored first: what did training bring, and was it worth it?"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import multistep
from runs import FALLS_THEN_FLAT, POWER, Killed, plan
from safetensors.torch import load_file
from test_reuse import execute
from test_text_models import maker

from multistep.core.choice.outlook import BEGINNING, outlook
from multistep.core.evidence.expected import Gain
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.events import Entry, TrialStarted
from multistep.core.values.history import fold
from multistep.core.values.plan import Plan
from multistep.engine.journal import read_entries
from multistep.engine.learner import Learner, Readiness, Split
from multistep.engine.simulate import FakeClock, SimulatedWorkshop, World

TEXT = "".join(f"The river number {i % 7} runs through valley {i % 11} to the sea. " for i in range(2500))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    made = maker("llama", num_key_value_heads=1)
    made.write(made.build(0), tmp_path / "base")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "base"


def trained(folder: Path, base: Path, **settings: Any) -> dict[str, Any]:
    more = [f"--set=recipe.{key}={value}" for key, value in settings.items()]
    what = ["--task", "text-generation", "--data", str(folder / "text.txt"), "--model", str(base)]
    multistep(folder, "train", *what, "--budget", "60 steps", "--out", "run", *more)
    found: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return found


def test_what_training_brought_stands_beside_the_baseline(tmp_path: Path, base: Path) -> None:
    found = trained(tmp_path, base)
    assert found["trials"][0]["kind"] == "base"
    assert found["trials"][0]["steps"] == 0
    assert found["base"]["leads"] is False
    assert found["base"]["validation"]["score"] == pytest.approx(5.7, abs=0.1)  # the logarithm of 300: it knew nothing
    gain = found["base"]["test"]["gain"]
    assert gain["improvement"] == pytest.approx(found["base"]["test"]["score"] - found["test"]["score"], abs=1e-6)
    assert gain["low"] > 0.5
    shown = multistep(tmp_path, "show", "run")
    assert "before training" in shown
    assert "split, training made the model better by" in shown


def test_a_model_that_training_makes_worse_is_left_as_it_was(tmp_path: Path, base: Path) -> None:
    found = trained(tmp_path, base, learning_rate=100.0, warmup_steps=0)
    assert found["leader"]["trial"] == "0.base"
    assert found["base"]["leads"] is True
    assert "Chosen: the model as it was before training" in found["leader"]["sentence"]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "run" / "model"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Able(SimulatedWorkshop):
    """Begins with weights that can do the task."""

    def __init__(self) -> None:
        super().__init__(POWER, FakeClock())

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        facts = replace(ready.facts, pretrained=True, able=True)
        return learner, replace(ready, facts=facts, fingerprint=str(plan.phase(phase).data))


TWO = plan(phases=[{"until": "40 steps"}, {"until": "30 steps", "data": "other"}])


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return {key: found[key] for key in ("base", "test", "leader", "weights_sha256")}


def test_a_run_that_takes_its_phases_from_another_scores_the_model_before_training_too(tmp_path: Path) -> None:
    execute(TWO, tmp_path / "one", Able())
    assert execute(TWO, tmp_path / "two", Able()).reused == (0, 1)
    assert result(tmp_path / "one")["base"]["test"]["gain"]["improvement"] > 0.1
    assert result(tmp_path / "one") == result(tmp_path / "two")


@pytest.mark.slow
def test_a_kill_anywhere_leaves_the_same_scores_before_and_after_training(tmp_path: Path) -> None:
    execute(TWO, tmp_path / "calm", Able(), reuse=False)
    total = sum(1 for _ in read_entries(tmp_path / "calm" / "journal.jsonl"))
    for number in range(1, total):
        folder, seen = tmp_path / f"killed-{number}", list[Entry]()

        def count(entry: Entry, seen: list[Entry] = seen, number: int = number) -> None:
            seen.append(entry)
            if len(seen) == number:
                raise Killed

        with pytest.raises(Killed):
            execute(TWO, folder, Able(), reuse=False, on_entry=count)
        execute(TWO, folder, Able(), reuse=False)
        assert result(folder) == result(tmp_path / "calm"), f"killed after line {number}"


class Uneven(Able):
    """Untouched, it knows some texts much better than others, as pretrained models do."""

    def __init__(self, able: bool) -> None:
        super().__init__()
        self._able, self._world = able, World(between_blocks=0.02)

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        evaluate = learner.evaluate

        def uneven(split: Split, *, sample: bool) -> Evaluation:
            found = evaluate(split, sample=sample)
            if getattr(learner, "_steps") == 0 and not sample:  # noqa: B009 - the simulated learner's own
                knows = 0.5 * np.random.default_rng(3).standard_normal(len(found.columns["loss"]))
                return Evaluation({**found.columns, "loss": found.columns["loss"] + knows * found.columns["count"]})
            return found

        learner.evaluate = uneven  # type: ignore[method-assign]
        return learner, replace(ready, facts=replace(ready.facts, able=self._able, train_examples=1200))


def test_what_is_thought_of_trained_models_does_not_hang_on_the_one_before_training(tmp_path: Path) -> None:
    """Its noise is large and shared: reckoned over it, gains of trained ones were thought smaller and less sure."""
    wanted = plan(budget="2000 steps", moves=[])
    alone, beside = (execute(wanted, tmp_path / str(able), Uneven(able), reuse=False) for able in (False, True))
    names = [t.trial.id for t in beside.phase.of_kind("control")]
    assert len(names) >= 3
    assert names == [t.trial.id for t in alone.phase.of_kind("control")]
    for name in names[1:]:
        gains = [history.expected[name] - history.expected[names[0]] for history in (alone, beside)]
        assert gains[0] > 0.05
        assert gains[1] == pytest.approx(gains[0], rel=0.01)
    spreads = [history.trial(names[-1]).verdict.spread for history in (alone, beside)]  # type: ignore[union-attr]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1)


class Guarded(SimulatedWorkshop):
    """A curve that comes to its floor long before the budget ends."""

    def __init__(self) -> None:
        super().__init__(FALLS_THEN_FLAT, FakeClock(), None, World(between_blocks=0.01))

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        facts = replace(ready.facts, train_examples=10**6)
        return learner, replace(ready, facts=facts, fingerprint=str(plan.phase(phase).data))


def test_how_far_a_trunk_is_from_what_it_began_with_is_no_bet(tmp_path: Path) -> None:
    """Cooling down now was forecast as 0 with a spread of ten tolerances, as if another training led."""
    second = {"data": "other", "recipe": {"learning_rate": 0.02}, "guard": {"data": "known"}}
    wanted = plan(budget="12000 steps", phases=[{"until": "40 steps"}, second])
    history = execute(wanted, tmp_path / "run", Guarded(), reuse=False)
    assert history.base is not None
    entries = read_entries(tmp_path / "run/journal.jsonl")
    known = fold(itertools.takewhile(lambda entry: not is_second_control(entry), entries))
    seen = outlook(wanted, known, known.phase.of_kind("trunk")[0])
    assert seen is not None
    assert seen.told
    assert seen.gain(0.0, 0.0) == Gain(0.0, 0.0)
    assert 0 < seen.gain(seen.steps_left, 0.0).spread < BEGINNING.spread / 2


def is_second_control(entry: Entry) -> bool:
    return isinstance(entry.event, TrialStarted) and (entry.event.trial.phase, entry.event.trial.kind) == (1, "control")


class Answering(Able):
    """Answers some questions rightly before training, others after it; the loss is what it is on whole answers."""

    def __init__(self, questions: int, before: tuple[int, float], after: tuple[int, float]) -> None:
        super().__init__()
        self._questions, self._before, self._after = questions, before, after

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)

        def evaluate(split: Split, *, sample: bool) -> Evaluation:
            right, loss = self._after if getattr(learner, "_steps") else self._before  # noqa: B009
            rows = np.arange(self._questions)
            # Which are right has nothing to do with the order, and before training with what is right after it.
            answered = (rows * (7 if getattr(learner, "_steps") else 3)) % self._questions < right  # noqa: B009
            uneven = 1 + 0.3 * np.sin(rows)
            columns = {"right_answer": answered.astype(float), "loss": loss * uneven, "count": np.ones(len(rows))}
            return Evaluation({**columns, "block": rows.astype(float)})

        learner.evaluate = evaluate  # type: ignore[method-assign]
        learner.baseline = lambda split: ("usual answer", evaluate(split, sample=False))  # type: ignore[method-assign]
        return learner, replace(ready, metrics=("answer_accuracy",))


@pytest.mark.parametrize(
    ("questions", "before", "after", "untouched"),
    [
        (16, (7, 4.9), (6, 0.19), False),  # one answer of sixteen is chance; a loss that falls so far is none
        (16, (7, 0.19), (6, 0.19), True),
        (401, (320, 4.9), (240, 0.19), True),  # it learnt the form of answers and forgot what is right
    ],
)
def test_of_few_answers_the_loss_decides_and_of_many_the_answers(
    tmp_path: Path, questions: int, before: tuple[int, float], after: tuple[int, float], untouched: bool
) -> None:
    workshop = Answering(questions, before, after)
    history = execute(plan(budget="60 steps", moves=[]), tmp_path / "run", workshop, reuse=False)
    assert history.untrained_leads is untouched
