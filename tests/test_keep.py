"""What a run leaves once it has ended, what `clean` removes, and what goes on elsewhere."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import multistep
from runs import POWER, Fragile, Killed, plan

from multistep import api
from multistep.core.values.events import CheckpointSaved, PhaseReused
from multistep.core.values.plan import Plan
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, SimulatedWorkshop
from multistep.errors import RunDirectoryError

ONE = plan(budget="300 steps")
TWO = plan(phases=[{"until": "400 steps"}, {"until": "300 steps", "recipe": {"learning_rate": 0.01}}])


def go(wanted: Plan, folder: Path, workshop: SimulatedWorkshop | None = None) -> api.Result:
    return api.run(
        wanted, RunDirectory(folder), clock=BudgetClock(), workshop=workshop or SimulatedWorkshop(POWER, FakeClock())
    )


def kept(wanted: Plan, **more: Any) -> Plan:
    return replace(wanted, **more)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_keeps_its_model_and_its_record(tmp_path: Path) -> None:
    result = go(ONE, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == []
    saved = [e.event for e in read_entries(tmp_path / "run" / "journal.jsonl") if isinstance(e.event, CheckpointSaved)]
    left = result.record["checkpoints"]
    assert left["kept"] == []
    assert 1 <= left["removed"] <= len(saved)
    assert left["freed"] > 0
    whole = go(kept(ONE, keep="all"), tmp_path / "elsewhere" / "all")
    assert len(checkpoints(tmp_path / "elsewhere" / "all")) == left["removed"]
    assert whole.record["checkpoints"] is None
    assert whole.record["weights_sha256"] == result.record["weights_sha256"]
    # All that is shown of a run is shown of it still, and `keep` is no other plan.
    api.write_report(RunDirectory(tmp_path / "run").require())
    assert go(kept(ONE, keep="all"), tmp_path / "run").record == result.record


def test_what_is_kept_is_where_an_edited_plan_goes_on(tmp_path: Path) -> None:
    go(TWO, tmp_path / "runs" / "one")
    (head,) = checkpoints(tmp_path / "runs" / "one")
    assert head.startswith("0.")
    edited = plan(phases=[{"until": "400 steps"}, {"until": "200 steps", "recipe": {"learning_rate": 0.005}}])
    go(edited, tmp_path / "runs" / "two")
    journal = [entry.event for entry in read_entries(tmp_path / "runs" / "two" / "journal.jsonl")]
    assert [(e.phase, e.run) for e in journal if isinstance(e, PhaseReused)] == [(0, "one")]


def test_clean_removes_what_the_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(kept(TWO, keep="all"), run)
    some, other = checkpoints(run)[:2]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "state.json").write_text("mine", encoding="utf-8")
    mine = {
        "checkpoints/notes.txt": "mine",
        "checkpoints/best-of-mine/state.json": "mine",
        "checkpoints/9.control@30/state.json": "of no trial of this run",
        f"checkpoints/{some}/thesis.doc": "mine",
        f"checkpoints/{some}/deep/plot.png": "mine",
        "model/notes.txt": "mine",
        "events/mine.txt": "mine",
    }
    for name, text in mine.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text, encoding="utf-8")
    trial = some.partition("@")[0]
    (run / "checkpoints" / f"{trial}@77").symlink_to(outside)
    manifest = run / "checkpoints" / other / "manifest.json"
    listed = json.loads(manifest.read_text()) | {"../notes.txt": "", str(outside / "state.json"): ""}
    manifest.write_text(json.dumps(listed), encoding="utf-8")
    staging = run / "checkpoints" / f".{trial}@88.staging"  # of a kill
    staging.mkdir()
    (staging / "state.json").write_text("half", encoding="utf-8")

    before = contents(tmp_path)
    told = api.clean(run, all_but_model=True, dry_run=True)
    assert contents(tmp_path) == before
    found = api.clean(run, all_but_model=True)
    assert found == told
    after = contents(tmp_path)
    assert found.freed == sum(len(b) for name, b in before.items() if name not in after)
    assert {name: after[f"run/{name}"].decode() for name in mine} == mine
    assert (outside / "state.json").read_text() == "mine"
    assert (run / "checkpoints" / f"{trial}@77").is_symlink()
    gone = {name for name in before if name not in after}
    assert all(n.startswith("run/checkpoints/") or Path(n).name.startswith("events.out.tfevents.") for n in gone)
    assert any(n.startswith("run/events/") for n in gone)
    assert set(found.strangers) == {
        "notes.txt",
        "best-of-mine",
        "9.control@30",
        f"{some}/thesis.doc",
        f"{some}/deep/plot.png",
        f"{trial}@77",
    }
    assert f".{trial}@88.staging" in found.removed
    assert api.clean(run, all_but_model=True).removed == (some,), "what is left of it holds files that are not its own"
    assert api.read_result(RunDirectory(run)).record["checkpoints"]["freed"] == found.freed


def test_bytes_that_another_run_shares_are_not_counted_as_freed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(kept(ONE, keep="all"), run)
    (folder,) = (run / "checkpoints" / name for name in checkpoints(run)[:1])
    alone = api.clean(run, dry_run=True).freed
    (tmp_path / "theirs").mkdir()
    os.link(folder / "state.json", tmp_path / "theirs" / "state.json")
    size = (folder / "state.json").stat().st_size
    assert api.clean(run).freed == alone - size
    assert (tmp_path / "theirs" / "state.json").stat().st_size == size


def test_what_has_not_ended_is_not_cleaned_and_a_stranger_in_it_outlives_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        go(TWO, run, Fragile(POWER, FakeClock(), windows=3))
    held = checkpoints(run)
    assert held
    with pytest.raises(
        RunDirectoryError, match="has not finished, and goes on from its checkpoints; `multistep resume"
    ):
        api.clean(run)
    assert checkpoints(run) == held
    (run / "checkpoints" / "mine").mkdir()
    (run / "checkpoints" / "mine" / "weights.pt").write_bytes(b"mine")
    go(TWO, run)
    assert (run / "checkpoints" / "mine" / "weights.pt").read_bytes() == b"mine"
    with pytest.raises(RunDirectoryError, match="no run there"):
        api.clean(tmp_path)
    directory = RunDirectory(run)
    with directory.locked(), pytest.raises(RunDirectoryError, match="in use by another process"):
        api.clean(run)


def test_clean_on_the_command_line_says_what_it_frees(tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(kept(TWO, keep="all"), run)
    count = len(checkpoints(run))

    def clean(*options: str) -> str:
        return multistep(tmp_path, "clean", "run", *options)

    assert f"Would remove {count - 1} checkpoint" in clean("--dry-run")
    assert len(checkpoints(run)) == count
    said = clean()
    assert f"Removed {count - 1} checkpoint" in said
    assert "so that a plan edited behind them need not train them again" in said
    (head,) = checkpoints(run)
    assert json.loads(clean("--all-but-model", "--json"))["removed"] == [head]
    assert checkpoints(run) == []
    assert "Nothing to remove" in clean()
