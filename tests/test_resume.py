"""Kills at any moment, damaged files and full disks: nothing that was proved is lost, and the end is the same."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import OVERFITS, POWER, Fragile, Killed, execute, plan

from multistep import api
from multistep.api import run
from multistep.core.evidence.curves import Curve
from multistep.core.values.events import CheckpointSaved, Entry, Evaluated, RunInterrupted, WindowDone
from multistep.core.values.history import History, fold
from multistep.core.values.plan import Plan
from multistep.engine.checkpoints import Checkpoints, publish, whole
from multistep.engine.clock import BudgetClock
from multistep.engine.costs import remember_start, start_seconds
from multistep.engine.journal import read_entries
from multistep.engine.learner import Learner, Readiness
from multistep.engine.planfile import to_yaml
from multistep.engine.rundir import RunDirectory
from multistep.engine.seen import seen_in_training
from multistep.engine.simulate import FakeClock, SimulatedWorkshop
from multistep.errors import DataError, PlanError, RunDirectoryError, RunFailed, Stopped
from multistep.report.summary import summary

STEPS = plan(phases=[{"until": "400 steps"}, {"until": "300 steps", "recipe": {"learning_rate": 0.01}}])
SHORT = plan(phases=[{"until": "30 steps"}, {"until": "20 steps", "recipe": {"learning_rate": 0.01}}])


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


def test_a_line_cut_within_a_letter_is_dropped_and_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    execute(STEPS, tmp_path / "run")
    path = tmp_path / "run" / "journal.jsonl"
    whole = path.read_bytes()
    entries = list(read_entries(path))
    path.write_bytes(whole + b'{"at": "\xe4\xb8')
    assert list(read_entries(path)) == entries
    assert summary(RunDirectory(tmp_path / "run"))["state"] == "finished"
    (tmp_path / "run" / "result.json").unlink()
    execute(STEPS, tmp_path / "run")
    assert path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"at": "\xe4\xb8"}\n', *lines[2:]]))
    with pytest.raises(RunDirectoryError, match=r"journal.jsonl:3: this journal line cannot be read \('utf-8' codec"):
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


def test_a_rejected_trial_leaves_the_leaders_bytes(tmp_path: Path) -> None:
    wanted = plan(phases=[{"until": "1400 steps"}, {"until": "1500 steps", "recipe": {"learning_rate": 1e-9}}])
    kept: dict[str, bytes] = {}

    def watch(entry: Entry) -> None:
        if isinstance(entry.event, Evaluated) and not kept:
            history = fold(read_entries(tmp_path / "run" / "journal.jsonl"))
            if history.leader and history.leader.checkpoint:
                folder = tmp_path / "run" / "checkpoints" / history.leader.checkpoint
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
    put = Checkpoints.put

    def filling(self: Checkpoints, name: str, staged: Path) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, name, staged)

    monkeypatch.setattr(Checkpoints, "put", filling)
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

    monkeypatch.setattr(Checkpoints, "put", full)
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


def test_a_budget_that_no_run_of_the_task_can_keep_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("multistep.tasks.workshop_for", lambda _: pytest.fail("something was loaded"))
    wanted = plan(budget="3s")
    with pytest.raises(PlanError, match=r"budget is 3s; .* take 4s on this machine.*give it at least 7s"):
        api.train(wanted, out=tmp_path / "run")
    for seconds in (30.0, 20.0, 40.0):  # what was measured counts, the fastest of it, and that it may go faster still
        remember_start("text-generation", seconds)
    assert start_seconds("text-generation") == 12.0
    with pytest.raises(PlanError, match=r"budget is 10s; .* take 14s on this machine.*give it at least 29s"):
        api.train(plan(budget="10s"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The user's own files ------------------------------------------------------------------------------


def go(wanted: Plan, folder: Path, workshop: SimulatedWorkshop | None = None, **more: Any) -> api.Result:
    """`api.run` of a simulated run in real time, which takes a fraction of a second."""
    return run(
        wanted,
        RunDirectory(folder),
        clock=BudgetClock(),
        workshop=workshop or SimulatedWorkshop(POWER, FakeClock()),
        **more,
    )


class Refuses(SimulatedWorkshop):
    """A workshop that finds the data missing, or is killed while it looks for them."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(POWER, FakeClock())
        self._error = error

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        raise self._error


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_with_files_of_the_user_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("checkpoints/my_model.pt", "evaluations/mine", "resolved.json", "start.safetensors", ".heartbeat"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"mine")
        (folder / "plan.yaml").write_text(to_yaml(SHORT), encoding="utf-8")
        before = contents(folder)
        for workshop in (None, Refuses(DataError("nosuch.txt: no such file"))):
            with pytest.raises(RunDirectoryError, match=f"it holds '{name.partition('/')[0]}'"):
                go(SHORT, folder, workshop)
            assert contents(folder) == before


def test_a_file_that_is_called_a_journal_and_is_none_is_not_cut(tmp_path: Path) -> None:
    for text, message in (
        ("my diary", "not the journal of a run"),
        ("my diary\n", "journal.jsonl:1: this journal line"),
    ):
        (tmp_path / "journal.jsonl").write_text(text, encoding="utf-8")
        with pytest.raises(RunDirectoryError, match=message):
            go(SHORT, tmp_path)
        assert (tmp_path / "journal.jsonl").read_text(encoding="utf-8") == text


def test_a_run_whose_record_is_lost_says_what_is_missing_and_what_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file of an interrupted run, gone, emptied or damaged: one message, and nothing else is touched."""
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        go(SHORT, killed, Fragile(POWER, FakeClock(), 3))
    monkeypatch.setattr("multistep.tasks.workshop_for", lambda _: SimulatedWorkshop(POWER, FakeClock()))
    for file, content, said in (
        (
            "resolved.json",
            None,
            r"resolved.json: missing; it says with which data.*--out DIR; `multistep show .*` tells",
        ),
        ("resolved.json", "", r"resolved.json: damaged, not JSON.*Put it back from a copy, or begin anew"),
        ("resolved.json", "{}", "resolved.json: damaged, not what a run writes"),
        ("journal.jsonl", None, "journal.jsonl: missing, though the rest of a run is there"),
        ("journal.jsonl", "", "journal.jsonl: empty, though .*checkpoints is not; .*Put it back from a copy"),
        ("plan.yaml", None, "plan.yaml: no such file; go on with the `multistep train` command"),
        ("plan.yaml", "", "plan.yaml: a plan is a mapping"),
    ):
        folder = tmp_path / f"{file}-{content}"
        shutil.copytree(killed, folder)
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_text(content)
        before = contents(folder)
        for _ in range(2):
            with pytest.raises((RunDirectoryError, PlanError), match=said):
                api.resume(folder)
            assert contents(folder) == before
        if file == "resolved.json":
            assert summary(RunDirectory(folder))["steps"] > 0
            assert api.write_report(RunDirectory(folder)).exists()
    finished = tmp_path / "finished"
    go(SHORT, finished)
    (finished / "resolved.json").write_text("{")
    assert api.resume(finished).record["steps"] == 50
    (finished / "result.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"result.json: damaged.*delete it, and `multistep resume"):
        api.resume(finished)


def test_a_plan_that_lies_in_the_run_folder_is_kept_byte_by_byte(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    text = "# why these lengths: see the notes\n" + to_yaml(SHORT)
    (folder / "plan.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"nosuch.txt"):
        go(SHORT, folder, Refuses(DataError("nosuch.txt: no such file")))
    assert contents(folder) == {"plan.yaml": text.encode()}
    with pytest.raises(
        RunDirectoryError, match=r"plan.yaml: not the plan that is to be run, and it is not overwritten"
    ):
        go(plan(budget="40 steps"), folder)
    assert contents(folder) == {"plan.yaml": text.encode()}
    result = go(SHORT, folder)
    assert result.record["steps"] == 50
    assert (folder / "plan.yaml").read_text(encoding="utf-8") == text


def test_a_failed_start_leaves_an_empty_folder_of_the_user_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new"):
        with pytest.raises(DataError):
            go(SHORT, tmp_path / name, Refuses(DataError("nosuch.txt: no such file")))
    assert (tmp_path / "mine").is_dir()
    assert not list((tmp_path / "mine").iterdir())
    assert not (tmp_path / "new").exists()


def test_a_run_killed_before_its_first_line_is_resumed_by_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a task's libraries are imported, for seconds, nothing is journaled yet."""
    monkeypatch.setattr("multistep.tasks.reach.names_of_plan", lambda _: ())  # simulated data are nowhere
    folder = tmp_path / "run"

    def killed(_: Plan) -> SimulatedWorkshop:
        raise Killed

    monkeypatch.setattr("multistep.tasks.workshop_for", killed)
    with pytest.raises(Killed):
        run(SHORT, RunDirectory(folder), clock=BudgetClock())
    assert (folder / "journal.jsonl").read_bytes() == b""
    assert summary(RunDirectory(folder))["where"] == "before its first phase"
    monkeypatch.setattr("multistep.tasks.workshop_for", lambda _: SimulatedWorkshop(POWER, FakeClock()))
    assert api.resume(folder).record["steps"] == 50
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "plan.yaml").write_text(to_yaml(SHORT), encoding="utf-8")
    (lone / ".lock").touch()
    assert api.resume(lone).record["weights_sha256"] == weights(folder)
    with pytest.raises(RunDirectoryError, match="no run there"):
        api.resume(tmp_path)
    (lone / "plan.yaml").unlink()
    with pytest.raises(RunDirectoryError, match=r"plan.yaml: no such file; go on with the `multistep train` command"):
        api.resume(lone)


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    result = go(SHORT, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.report.unlink()
    directory.report.mkdir()
    with pytest.raises(RunDirectoryError, match=r"run: cannot write there \(Is a directory\); make it writable, or"):
        api.write_report(directory)
    directory.result.unlink()
    (tmp_path / "run" / ".lock").unlink(missing_ok=True)
    (tmp_path / "run" / ".lock").mkdir()
    with pytest.raises(RunDirectoryError, match=r"run: cannot write there \(Is a directory\)"):
        go(SHORT, tmp_path / "run")
    assert result.folder == directory.folder


# Ends -----------------------------------------------------------------------------------------------


class Signals(SimulatedWorkshop):
    """A workshop whose learner sends this process signals while it trains its second window."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(POWER, FakeClock())
        self._numbers = numbers

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        advance, windows = learner.advance, iter(range(1000))

        def signalling(rates: Any, *, resolution: int | None = None) -> Any:
            if next(windows) == 1:
                for number in self._numbers:
                    os.kill(os.getpid(), number)
            return advance(rates, resolution=resolution)

        learner.advance = signalling  # type: ignore[method-assign]
        return learner, ready


@pytest.mark.parametrize(
    ("numbers", "code", "message"),
    [
        ([signal.SIGTERM], 143, "stopped by SIGTERM; go on with `multistep resume "),
        ([signal.SIGTERM, signal.SIGTERM], 143, "stopped at once by SIGTERM; go on with `multistep resume "),
        ([signal.SIGINT, signal.SIGINT], 130, "stopped at once by SIGINT; go on with `multistep resume "),
    ],
)
def test_a_signal_ends_with_its_own_code_and_the_run_stands_still(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, numbers: list[int], code: int, message: str
) -> None:
    go(SHORT, tmp_path / "elsewhere" / "calm")
    seen: list[Entry] = []

    def watch(entry: Entry, _: History) -> None:
        seen.append(entry)
        directory.heartbeat.write_text("1.0\n")  # as the thread does once a second

    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(Stopped) as caught:
        go(SHORT, tmp_path / "run", Signals(*numbers), on_entry=watch)
    assert str(caught.value).startswith(message)
    assert caplog.messages.count("stopping after what is being done now; once more stops at once") == 1
    assert caught.value.exit_code == code
    assert isinstance(seen[-1].event, RunInterrupted)
    assert summary(directory)["state"] == "unfinished"
    assert go(SHORT, tmp_path / "run").record["weights_sha256"] == weights(tmp_path / "elsewhere" / "calm")


def test_a_run_that_diverges_for_good_leaves_a_report_of_it_and_no_result(tmp_path: Path) -> None:
    explodes = Curve("divergence", floor=1.5, drop=2.0, pace=200.0, turn=1.0, rise=math.inf)
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(RunFailed, match=r"phase 'phase 1' diverged .*; .*report.html shows what happened$"):
        go(SHORT, tmp_path / "run", SimulatedWorkshop(explodes, FakeClock()))
    page = directory.report.read_text(encoding="utf-8")
    assert "Failed: phase 1 of 2 (phase 1) diverged, and no checkpoint of it could be evaluated" in page
    assert "Go on with" not in page
    assert not directory.result.exists()
    assert (summary(directory)["state"], summary(directory)["resume"]) == ("failed", None)


def test_a_finished_run_says_so_and_whether_its_data_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "texts").mkdir()
    corpus = tmp_path / "texts" / "corpus.txt"
    corpus.write_text("one", encoding="utf-8")
    wanted = plan(data=str(tmp_path / "texts"), budget="40 steps")
    first = go(wanted, tmp_path / "run")
    assert not caplog.messages
    assert go(wanted, tmp_path / "run").record == first.record
    (said,) = caplog.messages
    assert re.search(
        r"run: this run finished on \d{4}-\d\d-\d\d at \d\d:\d\d UTC; what is shown is its result\.$", said
    )
    corpus.write_text("two!", encoding="utf-8")
    assert go(wanted, tmp_path / "run").record == first.record
    assert caplog.messages[-1].endswith(
        f"Since then {tmp_path / 'texts'} changed: to train on it as it is now, name a new folder (--out DIR)."
    )


def test_the_model_card_tells_of_every_phase(tmp_path: Path) -> None:
    phases = [
        {"name": "broad", "data": "web.txt", "until": "400 steps", "recipe": {"optimizer": "adamw"}},
        {"name": "fine", "until": "300 steps", "recipe": {"learning_rate": 0.01, "frozen": ["embedding*"]}},
    ]
    result = go(plan(data="books.txt", phases=phases), tmp_path / "run")
    card = (result.model / "README.md").read_text(encoding="utf-8")
    one = "1. broad: text-generation on web.txt\n    - until: 400 steps; ended: length\n    - recipe: optimizer adamw, "
    assert f"{one}batch_size 12, learning_rate 0.02\n" in card
    assert "2. fine: text-generation on books.txt\n    - until: 300 steps; ended: length\n    - recipe: " in card
    assert "learning_rate 0.01, frozen ('embedding*',), optimizer muon, batch_size 12\n" in card
    seen = result.validation
    assert f"| validation | {seen.score:.3f} ({seen.low:.3f} to {seen.high:.3f})" in card
    assert "- name: broad\n" in card


def test_the_result_names_every_account(tmp_path: Path) -> None:
    record = go(plan(budget="40 steps"), tmp_path / "run").record
    assert list(record["seconds"]) == ["train", "evaluate", "save", "compile", "other", "total"]
    assert record["seconds"]["compile"] == 0.0


def test_scores_on_what_a_run_was_trained_on_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"a review of some length, the one with number {i}" for i in range(40)]
    (tmp_path / "all.csv").write_text("text,label\n" + "\n".join(f"{line},x" for line in lines))
    (tmp_path / "val.csv").write_text("text,label\nanother review that is in no other file,x\n")
    (tmp_path / "new.csv").write_text("text,label\n" + "\n".join(f"new: {line},x" for line in lines))
    (tmp_path / "mixed.csv").write_text("text,label\n" + "\n".join(f"{line},x" for line in [*lines[:10], *"abc"]))
    (tmp_path / "copy.csv").write_bytes((tmp_path / "all.csv").read_bytes())
    for data in ({"source": "all.csv"}, {"train": "all.csv", "validation": "val.csv", "test": "new.csv"}):
        folder = tmp_path / f"run{len(data)}"
        go(plan(data=data, budget="30 steps"), folder)
        monkeypatch.chdir(folder)  # the run's paths are relative to where it began
        for model in (folder, folder / "model", folder / "baseline"):
            assert "was trained on this data" in str(seen_in_training(model, "../all.csv", None))
        assert ("but for what it cut" in str(seen_in_training(folder, "../all.csv", None))) == ("source" in data)
        assert "40 of its 40 lines are also in all.csv" in str(seen_in_training(folder, "../copy.csv", None))
        assert "10 of its 10 lines" in str(seen_in_training(folder, "../mixed.csv", None))
        assert seen_in_training(folder, "../new.csv", None) is None
        assert seen_in_training(folder, "../all.csv", "test") is None, "the split that was held out"
        chose = seen_in_training(folder, "../val.csv", None)
        assert ("chose its model by this data" in str(chose)) == ("validation" in data)
        monkeypatch.chdir(tmp_path)
    assert seen_in_training(tmp_path / "no-run", "all.csv", None) is None


def test_a_test_split_of_the_run_is_not_called_trained_on(tmp_path: Path) -> None:
    """Of a folder of splits, the folder called test was said to be remembered."""
    for split in ("train", "test", "unnamed"):
        for i in range(4):
            file = tmp_path / "data" / split / "cat" / f"{i}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{split} {i}")
    folder = tmp_path / "run"
    go(plan(data={"source": str(tmp_path / "data")}, budget="30 steps"), folder)
    assert "4 of its 4 files are also in" in str(seen_in_training(folder, str(tmp_path / "data" / "unnamed"), None))
    assert "was trained on this data" in str(seen_in_training(folder, str(tmp_path / "data" / "train"), None))
    assert seen_in_training(folder, str(tmp_path / "data" / "test"), None) is None


def test_a_file_of_the_folder_that_a_run_was_given_is_told_by_its_name(tmp_path: Path) -> None:
    """One file in common is too little to tell by what files hold, so train.tsv was scored without a word."""
    for split in ("train", "dev", "test"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.tsv").write_text(f"sentence\tlabel\n{split}\t1\n")
    folder = tmp_path / "run"
    go(plan(data={"source": str(tmp_path / "data")}, budget="30 steps"), folder)
    told = {s: seen_in_training(folder, str(tmp_path / "data" / f"{s}.tsv"), None) for s in ("train", "dev", "test")}
    assert "train.tsv: this run was trained on this data" in str(told["train"])
    assert "dev.tsv: this run chose its model by this data" in str(told["dev"])
    assert told["test"] is None
