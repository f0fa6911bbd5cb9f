"""Running an edited plan again: what is unchanged is taken from runs beside it, and the end is the same."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import FALLS_THEN_FLAT, POWER, Fragile, Killed, plan

from multistep.api import write_report
from multistep.core.evidence.curves import Curve
from multistep.core.values.events import CheckpointSaved, Entry, Evaluated, PhaseReused, WindowDone
from multistep.core.values.history import History, fold
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Progress
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.learner import Learner, Readiness
from multistep.engine.loop import Run
from multistep.engine.rundir import RunDirectory, write_atomically
from multistep.engine.simulate import FakeClock, SimulatedLearner, SimulatedWorkshop
from multistep.report.summary import summary

FIRST = {"name": "first", "until": "400 steps"}
SECOND = {"until": "300 steps", "recipe": {"learning_rate": 0.01}}
OTHER = {"until": "200 steps", "recipe": {"learning_rate": 0.005}}


class Counting(SimulatedWorkshop):
    """Counts the steps that are taken; its data is told apart by name, its versions are given."""

    def __init__(self, versions: Mapping[str, str] | None = None, curve: Curve = POWER) -> None:
        super().__init__(curve, FakeClock())
        self.steps = 0
        self.clock = self._clock
        self._versions = versions or {"torch": "2"}

    def versions(self) -> Mapping[str, str]:
        return self._versions

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        assert isinstance(learner, SimulatedLearner)
        advance = learner.advance

        def counted(rates: Sequence[float], *, resolution: int | None = None) -> Progress:
            self.steps += len(rates)
            return advance(rates, resolution=resolution)

        learner.advance = counted  # type: ignore[method-assign]
        return learner, replace(ready, fingerprint=str(plan.phase(phase).data))


def execute(
    wanted: Plan,
    folder: Path,
    workshop: SimulatedWorkshop | None = None,
    *,
    reuse: bool = True,
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> History:
    directory = RunDirectory(folder)
    directory.create()
    workshop = workshop or Counting()
    run = Run(wanted, directory, workshop, BudgetClock(workshop._clock.now), reuse=reuse)
    for entry in run.entries():
        on_entry(entry)
    return run.history


def steps_of(wanted: Plan, folder: Path, versions: Mapping[str, str] | None = None) -> int:
    """The steps that were taken to run or resume it."""
    workshop = Counting(versions)
    execute(wanted, folder, workshop)
    return workshop.steps


def entries(folder: Path) -> list[Entry]:
    return list(read_entries(folder / "journal.jsonl"))


def reused(folder: Path) -> list[tuple[int, str]]:
    found = [entry.event for entry in entries(folder)]
    return [(event.phase, event.run) for event in found if isinstance(event, PhaseReused)]


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def keys(folder: Path) -> list[str | None]:
    return [phase["key"] for phase in RunDirectory(folder).resolved_phases()]


def same_end(one: Path, other: Path) -> bool:
    """The same weights and the same scores."""
    parts = ("weights_sha256", "validation", "test", "steps", "looks_at_validation", "stopped")
    return all(result(one)[part] == result(other)[part] for part in parts)


# What is taken over ---------------------------------------------------------------------------------


def test_an_edited_second_phase_reuses_the_first_and_ends_as_if_both_were_run(tmp_path: Path) -> None:
    assert steps_of(plan(phases=[FIRST, SECOND]), tmp_path / "runs" / "one") == 700
    edited = plan(phases=[FIRST, OTHER])
    assert steps_of(edited, tmp_path / "runs" / "two") == 200
    assert steps_of(edited, tmp_path / "alone" / "two") == 600
    assert reused(tmp_path / "runs" / "two") == [(0, "one")]
    assert reused(tmp_path / "alone" / "two") == []
    assert same_end(tmp_path / "runs" / "two", tmp_path / "alone" / "two")
    assert keys(tmp_path / "runs" / "two") == keys(tmp_path / "alone" / "two")
    told, afresh = (
        [e.event for e in entries(tmp_path / where / "two") if not isinstance(e.event, PhaseReused | CheckpointSaved)]
        for where in ("runs", "alone")
    )
    assert told == afresh


def test_a_phase_with_rounds_of_moves_is_reused_whole(tmp_path: Path) -> None:
    """Its verdicts spend the run's error: those of the next phase must come out as if it had been run here."""
    opened = {"name": "open", "recipe": {"learning_rate": 0.02}}
    before, edited = (
        plan(phases=[opened, {**SECOND, "recipe": {"learning_rate": rate}}], budget="12000 steps", tolerance=0.02)
        for rate in (0.01, 0.002)
    )
    execute(before, tmp_path / "runs" / "one", Counting(curve=FALLS_THEN_FLAT))
    history = execute(edited, tmp_path / "alone" / "two", Counting(curve=FALLS_THEN_FLAT))
    assert history.phases[0].of_kind("move")
    workshop = Counting(curve=FALLS_THEN_FLAT)
    assert execute(edited, tmp_path / "runs" / "two", workshop).verdicts == history.verdicts
    assert workshop.steps == 300
    assert same_end(tmp_path / "runs" / "two", tmp_path / "alone" / "two")


def test_it_says_so_once_and_spends_nothing_of_the_budget_on_it(tmp_path: Path) -> None:
    execute(plan(phases=[FIRST, SECOND]), tmp_path / "one")
    seen: list[Entry] = []
    history = execute(plan(phases=[FIRST, OTHER]), tmp_path / "two", on_entry=seen.append)
    assert [e.event.run for e in seen if isinstance(e.event, PhaseReused)] == ["one"]
    assert sum(isinstance(e.event, WindowDone) and e.event.trial.startswith("0.") for e in seen) == 0
    assert sum(w.train_seconds for t in history.phases[0].trials.values() for w in t.windows) == 0
    assert fold(entries(tmp_path / "two")) == history
    assert history.steps == 600


def test_names_and_later_phases_do_not_matter(tmp_path: Path) -> None:
    execute(plan(phases=[FIRST]), tmp_path / "one")
    assert steps_of(plan(phases=[{**FIRST, "name": "renamed"}, SECOND, OTHER]), tmp_path / "two") == 500
    assert reused(tmp_path / "two") == [(0, "one")]
    assert summary(RunDirectory(tmp_path / "two"))["phases"][0]["name"] == "renamed"


def test_a_run_of_reused_phases_alone_opens_the_test_split_once_and_exports(tmp_path: Path) -> None:
    wanted = plan(phases=[FIRST, SECOND])
    execute(wanted, tmp_path / "one")
    assert steps_of(wanted, tmp_path / "two") == 0
    assert [phase for phase, _ in reused(tmp_path / "two")] == [0, 1]
    events = [entry.event for entry in entries(tmp_path / "two")]
    assert sum(isinstance(event, Evaluated) and event.split == "test" for event in events) == 1
    assert same_end(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / "model" / "state.json").read_bytes() == (
        tmp_path / "one" / "model" / "state.json"
    ).read_bytes()
    assert steps_of(wanted, tmp_path / "three") == 0, "also from a run that reused them"


def test_the_report_and_the_summary_of_a_reused_phase(tmp_path: Path) -> None:
    execute(plan(phases=[FIRST, SECOND]), tmp_path / "one")
    execute(plan(phases=[FIRST, OTHER]), tmp_path / "two")
    found = summary(RunDirectory(tmp_path / "two"))
    assert len(found["phases"]) == 2
    assert found["steps"] == 600
    assert write_report(RunDirectory(tmp_path / "two")).exists()


def test_what_was_reused_outlives_the_run_it_came_from(tmp_path: Path) -> None:
    execute(plan(phases=[FIRST, SECOND]), tmp_path / "one")

    def stop(entry: Entry) -> None:
        if isinstance(entry.event, PhaseReused):
            raise Killed

    with pytest.raises(Killed):
        execute(plan(phases=[FIRST, OTHER]), tmp_path / "two", on_entry=stop)
    shutil.rmtree(tmp_path / "one")
    assert steps_of(plan(phases=[FIRST, OTHER]), tmp_path / "two") == 200
    assert result(tmp_path / "two")["steps"] == 600


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(plan(phases=[FIRST, SECOND]), tmp_path / "one")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert steps_of(plan(phases=[FIRST, SECOND]), tmp_path / "two") == 0
    assert same_end(tmp_path / "one", tmp_path / "two")


def test_runs_under_an_injected_clock_are_left_alone_unless_asked(tmp_path: Path) -> None:
    wanted = plan(phases=[FIRST])
    execute(wanted, tmp_path / "one")
    directory, workshop = RunDirectory(tmp_path / "two"), Counting()
    directory.create()
    for _ in Run(wanted, directory, workshop, BudgetClock(workshop.clock.now)).entries():
        pass
    assert workshop.steps == 400


def test_baselines_are_kept_where_they_belong_to_the_data(tmp_path: Path) -> None:
    execute(plan(phases=[FIRST]), tmp_path / "a" / "one")
    execute(plan(phases=[FIRST, SECOND]), tmp_path / "a" / "two")
    shutil.copytree(tmp_path / "a" / "one", tmp_path / "b" / "one")
    execute(plan(phases=[FIRST, {**SECOND, "data": "other"}]), tmp_path / "b" / "two")
    execute(plan(phases=[FIRST, SECOND]), tmp_path / "c" / "one")
    execute(plan(phases=[FIRST]), tmp_path / "c" / "two")

    def order(folder: Path) -> list[str]:
        return [e.event.event for e in entries(folder) if e.event.event in ("phase_started", "baseline")]

    one, two = "phase_started", "baseline"
    assert order(tmp_path / "a" / "two") == [one, two, one, two]
    assert order(tmp_path / "b" / "two") == [one, one, two, two]
    assert order(tmp_path / "c" / "two") == [one, two, two]


# What is not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"tolerance": 0.5},
        {"data": "elsewhere"},
        {"metric": "perplexity"},
        {"model": {"layers": 3}},
        {"recipe": {"dropout": 0.1}},
        {"phases": [{**FIRST, "until": "401 steps"}, SECOND]},
        {"phases": [{**FIRST, "moves": []}, SECOND]},
        {"phases": [{**FIRST, "recipe": {"learning_rate": 0.02}}, SECOND]},
        {"budget": "300 steps"},
        {"budget": "10m"},
    ],
    ids=str,
)
def test_what_bits_depend_on_is_not_reused(tmp_path: Path, change: dict[str, Any]) -> None:
    execute(plan(phases=[FIRST, SECOND]), tmp_path / "one")
    execute(plan(**{"phases": [FIRST, SECOND], **change}), tmp_path / "two")
    assert reused(tmp_path / "two") == []
    assert not set(keys(tmp_path / "one")) & set(keys(tmp_path / "two"))


def test_other_code_or_another_machine_reuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = plan(phases=[FIRST])
    execute(wanted, tmp_path / "one")
    assert steps_of(wanted, tmp_path / "two", {"torch": "3"}) == 400
    monkeypatch.setattr("multistep.engine.reuse.code_digest", lambda: "edited")
    assert steps_of(wanted, tmp_path / "three") == 400


def test_a_model_that_is_published_anew_under_its_name_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    branch = tmp_path / "models--owner--name" / "refs" / "main"
    branch.parent.mkdir(parents=True)

    class Pretrained(Counting):
        def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
            learner, ready = super().open(plan, phase, should_stop)
            return learner, replace(ready, facts=replace(ready.facts, pretrained=True))

    wanted = plan(model="owner/name", budget="200 steps", moves=[])
    steps = []
    for name, commit in (("one", "0123abcd"), ("same", "0123abcd"), ("other", "4567cdef")):
        branch.write_text(commit)
        workshop = Pretrained()
        execute(wanted, tmp_path / "runs" / name, workshop)
        steps.append(workshop.steps > 0)
    assert steps == [True, False, True]


def test_a_budget_counts_only_where_it_limits(tmp_path: Path) -> None:
    execute(plan(phases=[FIRST, SECOND], budget="700 steps"), tmp_path / "one")
    assert steps_of(plan(phases=[FIRST, OTHER], budget="900 steps"), tmp_path / "two") == 200
    execute(plan(phases=[{"name": "open"}, SECOND], budget="700 steps"), tmp_path / "three")
    assert steps_of(plan(phases=[{"name": "open"}, SECOND, OTHER], budget="700 steps"), tmp_path / "four") == 700
    assert steps_of(plan(phases=[{"name": "open"}, SECOND, OTHER], budget="900 steps"), tmp_path / "five") == 200


def test_settings_that_moves_must_leave_alone_count_where_there_are_moves(tmp_path: Path) -> None:
    """The simulated preset's batch size, given as such: the recipe is the same, what may be tried is not."""
    same = {"recipe": {"batch_size": 12}}
    execute(plan(phases=[FIRST]), tmp_path / "one")
    assert steps_of(plan(phases=[{**FIRST, **same}]), tmp_path / "two") == 0
    execute(plan(phases=[{"name": "open"}], budget="300 steps"), tmp_path / "three")
    assert steps_of(plan(phases=[{"name": "open", **same}], budget="300 steps"), tmp_path / "four") > 0


def test_a_phase_that_another_run_has_not_finished_is_not_reused(tmp_path: Path) -> None:
    wanted = plan(phases=[FIRST, SECOND])
    clock = FakeClock()
    with pytest.raises(Killed):
        execute(wanted, tmp_path / "one", Fragile(POWER, clock, windows=5))
    assert steps_of(wanted, tmp_path / "two") == 700


def test_a_phase_begun_under_other_versions_is_nobody_elses(tmp_path: Path) -> None:
    wanted = plan(phases=[FIRST, SECOND])

    def stop(entry: Entry) -> None:
        if isinstance(entry.event, WindowDone):
            raise Killed

    with pytest.raises(Killed):
        execute(wanted, tmp_path / "one", Counting({"torch": "2"}), on_entry=stop)
    execute(wanted, tmp_path / "one", Counting({"torch": "3"}))
    assert keys(tmp_path / "one") == [None, None]
    for number, versions in enumerate(({"torch": "2"}, {"torch": "3"})):
        assert steps_of(wanted, tmp_path / str(number), versions) == 700


def _cut_state(one: Path) -> None:
    (state,) = (one / "checkpoints").glob("0.control@*/state.json")
    state.write_bytes(state.read_bytes()[:-1] + b" ")


def _no_head(one: Path) -> None:
    shutil.rmtree(next((one / "checkpoints").glob("0.control@*")))


def _other_table(one: Path) -> None:
    first, second = [e.event.table for e in entries(one) if isinstance(e.event, Evaluated)][:2]
    (one / "evaluations" / f"{first}.npz").write_bytes((one / "evaluations" / f"{second}.npz").read_bytes())


@pytest.mark.parametrize(
    "damage",
    [
        _cut_state,
        _no_head,
        _other_table,
        lambda one: [path.unlink() for path in (one / "evaluations").iterdir()],
        lambda one: (one / "journal.jsonl").write_text("{}\n" * 50),
        lambda one: (one / "resolved.json").write_text('{"phases": [1, 2]}'),
        lambda one: (one / "resolved.json").write_bytes(b"\xff"),
    ],
)
def test_a_damaged_run_is_passed_over(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    wanted = plan(phases=[FIRST, SECOND])
    execute(wanted, tmp_path / "runs" / "one")
    shutil.copytree(tmp_path / "runs" / "one", tmp_path / "calm")
    damage(tmp_path / "runs" / "one")
    assert steps_of(wanted, tmp_path / "runs" / "two") >= 400
    assert same_end(tmp_path / "runs" / "two", tmp_path / "calm")
    assert (0, "one") not in reused(tmp_path / "runs" / "two")
    assert steps_of(wanted, tmp_path / "runs" / "three") == 0, "there is a whole one now"


# Kills ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True], ids=["the other run stays", "the other run goes"])
def test_a_kill_anywhere_in_the_taking_over_changes_nothing_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """At each link, and before and after each file or folder takes its name: the journal's among them."""
    first = {"until": "100 steps"}
    edited = plan(phases=[first, {"until": "20 steps"}])
    execute(edited, tmp_path / "calm" / "two")
    execute(plan(phases=[first]), tmp_path / "source" / "one")
    link, rename = os.link, Path.replace
    left = 0

    def strike() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    def dying_link(*arguments: Any) -> None:
        strike()
        link(*arguments)

    def dying_rename(self: Path, target: Path) -> Path:
        strike()
        renamed = rename(self, target)
        strike()
        return renamed

    def stop(entry: Entry) -> None:
        assert not isinstance(entry.event, PhaseReused)

    for blow in range(1 + gone, 1000, 2):
        runs = tmp_path / f"runs-{blow}"
        shutil.copytree(tmp_path / "source", runs)
        left = blow
        with monkeypatch.context() as patched:
            patched.setattr(os, "link", dying_link)
            patched.setattr(Path, "replace", dying_rename)
            try:
                execute(edited, runs / "two", on_entry=stop)
            except Killed:
                pass
            except AssertionError:
                break  # the phase was taken over before the blow
        journal = [entry.event.event for entry in entries(runs / "two")]
        assert journal == ["run_started"] or (journal[1] == "phase_reused" and journal[-1] == "phase_finished")
        if gone:
            shutil.rmtree(runs / "one")
        execute(edited, runs / "two")
        assert same_end(runs / "two", tmp_path / "calm" / "two"), f"blow {blow}"
        shutil.rmtree(runs)
    assert blow > 10


def test_publishing_a_text_waits_for_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is appended to a journal that was put in another's place must not be lost with the new name."""
    synced: list[Path] = []
    monkeypatch.setattr("multistep.engine.rundir.sync", synced.append)
    write_atomically(tmp_path / "text", "x")
    assert synced == [tmp_path]
