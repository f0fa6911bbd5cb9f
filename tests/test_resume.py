"""Kills at any moment, damaged files and full disks: nothing that was proved is lost, and the end is the same."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import OVERFITS, POWER, Fragile, Killed, execute, plan

from multistep.api import run
from multistep.core.events import CheckpointSaved, Entry, Evaluated, WindowDone
from multistep.core.history import fold
from multistep.engine.checkpoints import Checkpoints, publish, whole
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, SimulatedWorkshop
from multistep.errors import PlanError, RunDirectoryError, RunFailed

STEPS = plan(phases=[{"until": "400 steps"}, {"until": "300 steps", "recipe": {"learning_rate": 0.01}}])


def weights(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text())["weights_sha256"])


def test_a_run_killed_in_every_window_ends_in_the_same_bits(tmp_path: Path) -> None:
    execute(STEPS, tmp_path / "calm")
    windows = sum(isinstance(e.event, WindowDone) for e in read_entries(tmp_path / "calm" / "journal.jsonl"))
    clock, kills = FakeClock(), 0
    for _ in range(3 * windows):
        try:
            execute(STEPS, tmp_path / "torn", clock=clock, workshop=Fragile(POWER, clock, windows=2))
            break
        except Killed:
            kills += 1
    assert kills >= windows // 2
    assert weights(tmp_path / "torn") == weights(tmp_path / "calm")


def test_a_run_killed_after_any_journal_line_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Between any two events: also between a window and its look, a look and its verdict, a verdict and its end."""
    execute(STEPS, tmp_path / "calm")
    total = sum(1 for _ in read_entries(tmp_path / "calm" / "journal.jsonl"))

    def kill_at(number: int, folder: Path) -> None:
        seen = 0

        def count(_: Entry) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                raise Killed

        with pytest.raises(Killed):
            execute(STEPS, folder, on_entry=count)

    for number in range(1, total, 3):
        folder = tmp_path / f"killed-{number}"
        kill_at(number, folder)
        execute(STEPS, folder)
        assert weights(folder) == weights(tmp_path / "calm"), f"killed after line {number}"


def test_a_time_budget_goes_on_and_replays_its_decisions(tmp_path: Path) -> None:
    """With an injected clock that only counts what the journal holds, kills change nothing at all."""
    timed = plan(budget="2m")
    calm = execute(timed, tmp_path / "calm")
    clock = FakeClock()
    with pytest.raises(Killed):
        execute(timed, tmp_path / "torn", clock=clock, workshop=Fragile(POWER, clock, windows=9))
    before = fold(read_entries(tmp_path / "torn" / "journal.jsonl")).seconds
    again = execute(timed, tmp_path / "torn", clock=FakeClock())
    assert before > 10
    assert again.seconds == pytest.approx(120, abs=5), "the clock went on, it did not restart"
    assert again.kills == 1
    assert again.steps <= calm.steps


def test_a_line_cut_by_a_kill_is_dropped_and_a_changed_one_is_named(tmp_path: Path) -> None:
    execute(STEPS, tmp_path / "run")
    path = tmp_path / "run" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:30])
    assert len(list(read_entries(path))) == 5
    (tmp_path / "run" / "result.json").unlink()
    execute(STEPS, tmp_path / "run")
    path.write_text("".join(lines[:5]) + "{}\n" + "".join(lines[6:]))
    with pytest.raises(RunDirectoryError, match=r"journal.jsonl:6: this journal line cannot be read"):
        list(read_entries(path))


def test_a_damaged_checkpoint_is_set_aside_and_an_older_one_used(tmp_path: Path) -> None:
    execute(STEPS, tmp_path / "calm")

    def stop(entry: Entry) -> None:
        if isinstance(entry.event, CheckpointSaved) and entry.event.trial == "1.control":
            raise Killed

    with pytest.raises(Killed):
        execute(STEPS, tmp_path / "torn", on_entry=stop)
    newest = max((tmp_path / "torn" / "checkpoints").glob("1.control@*"), key=os.path.getmtime)
    state = newest / "state.json"
    state.write_bytes(state.read_bytes()[:-1] + b" ")
    execute(STEPS, tmp_path / "torn")
    assert weights(tmp_path / "torn") == weights(tmp_path / "calm")
    assert list((tmp_path / "torn" / "checkpoints").glob("*.damaged"))


def test_publishing_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "thing"

    def says(text: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / "a").write_text(text)

        return write

    publish(target, says("old"))

    def breaks(folder: Path) -> None:
        folder.joinpath("a").write_text("half")
        raise Killed

    with pytest.raises(Killed):
        publish(target, breaks)
    assert (target / "a").read_text() == "old"
    assert whole(target)
    publish(target, says("new"))
    assert (target / "a").read_text() == "new"
    (target / "a").write_text("bad")
    assert not whole(target)


def test_a_rejected_trial_leaves_the_incumbents_bytes(tmp_path: Path) -> None:
    wanted = plan(phases=[{"until": "1400 steps"}, {"until": "1500 steps", "recipe": {"learning_rate": 1e-9}}])
    kept: dict[str, bytes] = {}

    def watch(entry: Entry) -> None:
        if isinstance(entry.event, Evaluated) and not kept:
            history = fold(read_entries(tmp_path / "run" / "journal.jsonl"))
            if history.incumbent and history.incumbent.checkpoint:
                folder = tmp_path / "run" / "checkpoints" / history.incumbent.checkpoint
                kept.update({p.name: p.read_bytes() for p in folder.iterdir()})
                kept["."] = str(folder).encode()

    execute(wanted, tmp_path / "run", OVERFITS, on_entry=watch)
    folder = Path(kept.pop(".").decode())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == kept


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    execute(STEPS, tmp_path / "run")
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    execute(STEPS, tmp_path / "run")
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before


def test_a_directory_refuses_other_plans_other_data_other_files_and_other_processes(tmp_path: Path) -> None:
    execute(STEPS, tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="holds the run of another plan"):
        execute(plan(budget="1m"), tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    with pytest.raises(RunDirectoryError, match=r"not empty and no run directory \(it holds 'thesis.doc'\)"):
        RunDirectory(tmp_path / "mine").create()
    with pytest.raises(RunDirectoryError, match=r"cannot write there"):
        RunDirectory(tmp_path / "mine" / "thesis.doc" / "run").create()
    directory = RunDirectory(tmp_path / "run")
    with directory.locked(), pytest.raises(RunDirectoryError, match="in use by another process"), directory.locked():
        pass


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(STEPS, tmp_path / "calm")
    saves = 0
    save = Checkpoints.save

    def filling(self: Checkpoints, name: str, write: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, name, write)

    monkeypatch.setattr(Checkpoints, "save", filling)
    with pytest.raises(OSError, match="No space left"):
        execute(STEPS, tmp_path / "run")
    execute(STEPS, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "calm")


def test_the_heartbeat_charges_what_a_kill_would_hide(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    with pytest.raises(Killed):
        execute(STEPS, tmp_path / "run", workshop=Fragile(POWER, FakeClock(), windows=2))
    directory.heartbeat.write_text("7.5\n")
    history = execute(STEPS, tmp_path / "run")
    assert history.spent["other"] >= 7.5


def test_the_journal_of_two_calm_runs_is_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        execute(plan(budget="3m"), tmp_path / name)
    one, two = (tmp_path / name / "journal.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_history_is_what_the_journal_says(tmp_path: Path) -> None:
    history = execute(STEPS, tmp_path / "run")
    assert fold(read_entries(tmp_path / "run" / "journal.jsonl")) == history


def test_a_full_disk_is_reported_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Checkpoints, name: str, write: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save", full)
    clock = FakeClock()
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(RunFailed, match=r"the disk is full; .* go on with `multistep resume"):
        run(STEPS, directory, clock=BudgetClock(clock.now), workshop=SimulatedWorkshop(POWER, clock))
    assert RunFailed.exit_code == 1


def test_a_budget_that_is_spent_before_it_begins_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    with pytest.raises(PlanError, match=r"budget is 1s; .* give it at least 5s"):
        run(
            plan(budget="1s"),
            RunDirectory(tmp_path / "run"),
            clock=BudgetClock(clock.now),
            workshop=SimulatedWorkshop(POWER, clock),
        )
    assert not (tmp_path / "run").exists()
