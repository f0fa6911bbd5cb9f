"""The guard of a phase: what was known before is scored, and whoever forgets it cannot lead."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases_chat import small_llama
from corpora import chinese, english
from runs import POWER, Fragile, Killed, execute, plan
from test_reuse import execute as execute_beside
from test_reuse import reused

from multistep import api
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.events import Entry, GuardScored, VerdictGiven, WindowDone
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.engine.journal import read_entries
from multistep.engine.learner import Split
from multistep.engine.planfile import plan_from, read_plan, to_yaml
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, SimulatedLearner, SimulatedWorkshop, World
from multistep.errors import PlanError, RunFailed
from multistep.report.check import check_plan, print_check
from multistep.report.summary import summary
from multistep.tasks.writing.workshop import TextWorkshop

FIRST = {"until": "400 steps"}
FORGETS = World(forgets=lambda rate, steps: 0.001 * max(0, steps - 400))  # the second phase's steps


def guarded(at_most_worse: float | None, **phase: Any) -> dict[str, Any]:
    guard = {"data": "old.txt"} if at_most_worse is None else {"data": "old.txt", "at_most_worse": at_most_worse}
    return {"name": "second", "guard": guard, **phase}


def run(wanted: Plan, folder: Path, world: World = FORGETS) -> History:
    clock = FakeClock()
    return execute(wanted, folder, clock=clock, workshop=SimulatedWorkshop(POWER, clock, None, world))


def verdict(history: History, trial: str) -> VerdictGiven:
    found = history.trial(trial).verdict
    assert found is not None
    return found


# What is decided ------------------------------------------------------------------------------------


def test_what_forgets_is_rolled_back_to_the_phases_start(tmp_path: Path) -> None:
    history = run(plan(phases=[FIRST, guarded(0.05, until="300 steps")]), tmp_path / "run")
    forgot = verdict(history, "1.control")
    assert (forgot.forgets, forgot.leads, forgot.leader, forgot.at_most_worse) == (True, False, "1.base", 0.05)
    assert forgot.worse == pytest.approx(0.3)
    assert forgot.reason.startswith(
        "it forgets too much: on old.txt it is 0.300 nats a token worse than before the phase, and at most 0.050 "
    )
    assert history.phase.finished is not None
    assert history.phase.finished.head == "1.base@0"
    assert history.leader is not None
    assert (history.leader.trial, history.leader.checkpoint) == ("1.base", "1.base@0")
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    kept = json.loads((tmp_path / "run" / "model" / "state.json").read_text())
    assert kept[1] == 400, "the first phase's steps alone are shipped"
    assert record["leader"]["sentence"] == (
        "Chosen: the model as it was before training, since the one attempt that went on from it forgot too much."
    )
    (guard,) = record["guards"]
    assert (guard["phase"], guard["before"], guard["after"], guard["forgot"]) == (1, 1.4, 1.4, ["1.control"])
    assert guard["sentence"] == (
        "Guard of second: the loss on old.txt was 1.400 nats a token before the phase; at most 0.050 nats a token "
        "worse is allowed, and 1 of 1 attempts forgot more. Nothing that was tried was better, so the run goes on from "
        "the "
        "model that the phase began with."
    )
    entry = next(t for t in record["trials"] if t["id"] == "1.control")
    assert entry["guard"]["forgets"] is True
    assert entry["guard"]["worse"]["score"] == pytest.approx(0.3)


def test_a_lenient_guard_and_one_that_is_left_to_the_rule(tmp_path: Path) -> None:
    kept = run(plan(phases=[FIRST, guarded(0.5, until="300 steps")]), tmp_path / "lenient")
    assert kept.leader is not None
    assert kept.leader.trial == "1.control"
    assert verdict(kept, "1.control").worse == pytest.approx(0.3)
    free = run(plan(phases=[FIRST, {"until": "300 steps"}]), tmp_path / "free")
    assert verdict(kept, "1.control").checkpoint == verdict(free, "1.control").checkpoint
    by_rule = run(plan(phases=[FIRST, guarded(None, until="10 steps")]), tmp_path / "rule")
    assert verdict(by_rule, "1.control").at_most_worse == pytest.approx(5 * 0.003 * 1.4), "1.5% of the loss before"
    assert not verdict(by_rule, "1.control").forgets


@pytest.mark.parametrize("budget", ["3000 steps", "300s"])
def test_what_is_left_goes_to_attempts_from_the_start(tmp_path: Path, budget: str) -> None:
    """The plain run forgets; shorter attempts from where the phase began do not, and the best that holds is shipped."""
    history = run(plan(budget=budget, phases=[FIRST, guarded(0.15)]), tmp_path / "run")
    assert verdict(history, "1.control").forgets
    trunks = history.phase.of_kind("trunk")
    assert len(trunks) == 1, "more of what forgot would forget more"
    siblings = [t for t in history.phase.trials.values() if t.trial.start == "1.base@0"]
    assert siblings, "they fork from the phase's start"
    assert {t.trial.carry for t in siblings} == {"weights"}, "with a warm-up of their own"
    leader = history.leader
    assert leader is not None
    assert leader.trial not in ("1.base", "1.control")
    assert leader.worse is not None
    assert leader.worse <= 0.15
    held = [v for v in history.verdicts if v.worse is not None and not v.forgets]
    assert all(v.worse is not None and v.worse <= 0.15 for v in held)
    for given in history.verdicts:
        assert given.leader is not None
        assert not verdict(history, given.leader).forgets, "at no time"


def test_scoring_the_guard_is_paid_from_the_budget(tmp_path: Path) -> None:
    class Slow(SimulatedLearner):
        def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
            if split == "guard":
                self._clock.pass_by(8.0)
            return super().evaluate(split, sample=sample)

    class Workshop(SimulatedWorkshop):
        def open(self, *given: Any) -> Any:
            learner, ready = super().open(*given)
            learner.__class__ = Slow
            return learner, ready

    clock = FakeClock()
    wanted = plan(budget="120s", phases=[{"until": "100 steps"}, guarded(0.5)])
    history = execute(wanted, tmp_path / "run", clock=clock, workshop=Workshop(POWER, clock, None, World()))
    scored = [t for t in history.phase.trials.values() if t.guard]
    assert len(scored) >= 2
    assert all(t.guard_seconds == pytest.approx(8.25) for t in scored)
    assert 100 < history.seconds < 122


def test_the_start_must_have_a_score(tmp_path: Path) -> None:
    world = World(forgets=lambda rate, steps: float("nan"))
    with pytest.raises(
        RunFailed, match=r"phase 'second': the model that it starts from has no finite loss on old\.txt"
    ):
        run(plan(phases=[FIRST, guarded(0.5, until="30 steps")]), tmp_path / "run", world)


# Kills and runs beside it ---------------------------------------------------------------------------


def test_a_run_killed_in_every_window_decides_the_same(tmp_path: Path) -> None:
    wanted = plan(budget="2500 steps", phases=[FIRST, guarded(0.15)])

    class Dying(Fragile):
        def __init__(self, clock: FakeClock) -> None:
            super().__init__(POWER, clock, windows=3)
            self._world = FORGETS

    def told(folder: Path) -> list[Any]:
        events = [e.event for e in read_entries(folder / "journal.jsonl")]
        return [e for e in events if isinstance(e, GuardScored | VerdictGiven)]

    calm = run(wanted, tmp_path / "calm")
    clock, kills = FakeClock(), 0
    for _ in range(500):
        try:
            torn = execute(wanted, tmp_path / "torn", clock=clock, workshop=Dying(clock))
            break
        except Killed:
            kills += 1
    windows = sum(isinstance(e.event, WindowDone) for e in read_entries(tmp_path / "calm" / "journal.jsonl"))
    assert kills >= windows // 4
    assert told(tmp_path / "torn") == told(tmp_path / "calm")
    assert torn.leader == calm.leader


@pytest.mark.slow
def test_a_run_killed_between_any_two_lines_scores_the_guard_once(tmp_path: Path) -> None:
    wanted = plan(phases=[{"until": "30 steps"}, guarded(0.01, until="20 steps")])
    calm = run(wanted, tmp_path / "calm")
    total = sum(1 for _ in read_entries(tmp_path / "calm" / "journal.jsonl"))
    for last in range(1, total):
        folder, clock = tmp_path / f"after-{last}", FakeClock()
        seen = 0

        def kill(entry: Entry) -> None:
            nonlocal seen
            seen += 1
            if seen == last:  # noqa: B023
                raise Killed

        workshop = SimulatedWorkshop(POWER, clock, None, FORGETS)
        with pytest.raises(Killed):
            execute(wanted, folder, clock=clock, workshop=workshop, on_entry=kill)
        workshop = SimulatedWorkshop(POWER, clock, None, FORGETS)
        again = execute(wanted, folder, clock=clock, workshop=workshop)
        scored = [e.event for e in read_entries(folder / "journal.jsonl") if isinstance(e.event, GuardScored)]
        assert [s.trial for s in scored] == ["1.base", "1.control"]
        assert again.leader == calm.leader


def test_a_phase_is_reused_with_the_same_guard_alone(tmp_path: Path) -> None:
    def second(at_most_worse: float) -> Plan:
        return plan(phases=[FIRST, guarded(at_most_worse, until="30 steps")])

    execute_beside(second(0.5), tmp_path / "one")
    history = execute_beside(replace(second(0.5), seed=0), tmp_path / "two")
    assert reused(tmp_path / "two") == [(0, "one"), (1, "one")]
    assert history.phase.base is not None
    assert summary(RunDirectory(tmp_path / "two"))["phases"][1]["guard"]["before"] == 1.4
    execute_beside(second(0.4), tmp_path / "three")
    assert reused(tmp_path / "three") == [(0, "two")]


# Plans ----------------------------------------------------------------------------------------------


def test_a_guard_is_read_written_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a")
    path = tmp_path / "plan.yaml"
    path.write_text(
        f"task: text-generation\ndata: {tmp_path}/a.txt\nphases:\n  - until: 3 epochs\n  - name: on\n"
        f"    guard: {{data: {tmp_path}/a.txt, metric: ppl, at_most_worse: 2}}\n"
    )
    wanted = read_plan(path)
    guard = wanted.phases[1].guard
    assert guard is not None
    assert (guard.data.source, guard.metric, guard.at_most_worse) == (f"{tmp_path}/a.txt", "ppl", 2.0)
    (tmp_path / "again.yaml").write_text(to_yaml(wanted))
    assert read_plan(tmp_path / "again.yaml") == wanted
    found = check_plan(wanted)
    assert found["phases"][1]["guard"] == {"data": f"{tmp_path}/a.txt", "metric": "perplexity", "at_most_worse": 2.0}
    print_check(found)
    said = " ".join(capsys.readouterr().out.split())
    assert "guard of on: perplexity on" in said
    assert "may get worse by at most 2; a trial that forgets more is ruled out" in said
    path.write_text(path.read_text().replace("a.txt, metric", "b.txt, metric"))
    with pytest.raises(PlanError, match=r"guard\.data: .*b\.txt: no such file or folder.*Did you mean 'a\.txt'\?"):
        check_plan(read_plan(path))


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        ({}, "'data' is missing; a guard needs 'data'"),
        ({"data": "x", "most": 1}, "unknown key 'most' in phases.0.guard; allowed: data, metric, at_most_worse."),
        (
            {"data": "x", "metric": "accuracy"},
            "guard.metric 'accuracy' cannot be measured for text-generation, as which the",
        ),
        ({"data": "x", "metric": "los"}, "guard.unknown metric 'los'"),
        ({"data": "x", "at_most_worse": -1}, "guard.at_most_worse is -1; allowed: 0 or more, in the unit"),
        ({"data": "x", "at_most_worse": "much"}, "phases.0.guard.at_most_worse is 'much'; allowed: a number."),
        ({"data": {"source": "x", "test": "y"}}, "data names either one source, or train"),
        ("x.txt", "phases.0.guard is 'x.txt'; allowed: a group of data, metric, at_most_worse."),
    ],
)
def test_what_is_wrong_with_a_guard(guard: Any, message: str) -> None:
    with pytest.raises(PlanError) as raised:
        plan(phases=[{"guard": guard}])
    assert message in str(raised.value)


def test_where_there_is_nothing_to_forget(tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"only phases of text can have a guard, .* a phase of text-classification begins with"
    ):
        plan_from({"task": "text-classification", "data": "x", "phases": [{"guard": {"data": "y"}}]})
    with pytest.raises(PlanError, match="phase 'second' has a guard, but begins with a model that knows nothing yet"):
        run(plan(phases=[guarded(0.1, until="30 steps")]), tmp_path / "run")


@pytest.mark.parametrize("phase", [0, 1])
def test_of_a_guard_no_more_is_scored_than_the_budget_bears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: int
) -> None:
    """A guard of a long text took longer to score than the phase that it watches had."""
    (tmp_path / "model").mkdir()
    model = small_llama(tmp_path / "model")
    for name in ("old", "new"):
        (tmp_path / f"{name}.txt").write_text(english(4000, seed=len(name)), encoding="utf-8")
    monkeypatch.setattr("multistep.tasks.writing.workshop.most_scored", lambda *_, **__: 500)
    data, old = str(tmp_path / "new.txt"), str(tmp_path / "old.txt")
    phases = [{"until": "60s"}] * phase + [{"until": "60s", "guard": {"data": old}}]
    wanted = plan_from({"task": "text-generation", "data": data, "model": model, "phases": phases})
    learner, _ = TextWorkshop().open(wanted, phase, lambda: False)
    guard: Any = learner
    watched, _ = guard._guard
    assert len(watched.held_out["validation"].tokens) == pytest.approx(500, rel=0.1)


# A real model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at_most_worse", "leads"), [(0.05, "1.base"), (50.0, "1.control")])
def test_a_model_that_goes_on_with_another_text_forgets_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_most_worse: float, leads: str
) -> None:
    monkeypatch.chdir(tmp_path)
    letters = random.Random(1)
    old = english(2500)
    (tmp_path / "old.txt").write_text(old)
    new = "".join(letters.choice("aeioutsrn") * 2 for _ in range(30_000))
    (tmp_path / "new.txt").write_text(new + "\n" + chinese(50))
    found = api.train(
        task="text-generation",
        data="old.txt",
        model={"name": "nanochat", "layers": 1, "width": 32, "context": 64, "tokenizer": "characters"},
        phases=[
            {"name": "old", "until": "150 steps"},
            {
                "name": "new",
                "data": "new.txt",
                "until": "60 steps",
                "guard": {"data": "old.txt", "at_most_worse": at_most_worse},
            },
        ],
        out=tmp_path / "run",
    )
    (guard,) = json.loads((found.folder / "result.json").read_text())["guards"]
    history = summary(RunDirectory(found.folder))
    assert history["winner"] == leads
    control = next(t for t in history["phases"][1]["trials"] if t["id"] == "1.control")
    assert control["guard"]["worse"]["low"] > 0.3, "proven beyond what is allowed, not noise"
    assert control["guard"]["forgets"] is (leads == "1.base")
    own = next(t for t in history["phases"][0]["trials"] if t["id"] == "0.control")
    assert guard["before"] == pytest.approx(own["score"], rel=0.1), "the held-out part of the text of the phase before"
    if leads == "1.base":
        scored = api.evaluate(found.folder / "model", "old.txt")
        assert scored["scores"]["loss"]["score"] == pytest.approx(own["score"], rel=0.1), (
            "what ships knows the old text"
        )
    page = (found.folder / "report.html").read_text()
    assert "Guard of new: the loss on old.txt was" in page
    assert ("orgets too much: on old.txt" in page) is (leads == "1.base")
