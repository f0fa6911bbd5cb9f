"""Trials side by side, in simulated lanes: what is decided, what is paid, and what is left after a kill."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from runs import FALLS_THEN_FLAT, OVERFITS, POWER, Killed, execute, plan, side_by_side

from multistep.core.choice.beside import propose_beside
from multistep.core.choice.controller import propose
from multistep.core.values.events import Entry, LaneLost, LanesOpened, TrialStarted, VerdictGiven, WindowDone
from multistep.core.values.history import History, fold
from multistep.engine.asking import Ask
from multistep.engine.journal import read_entries
from multistep.engine.lanes import alive
from multistep.engine.lanes.alive import COMPUTED_SECONDS, FIRST_STEPS, Patience, Signs
from multistep.engine.reuse import lines_of
from multistep.engine.simulate import FakeClock, World
from multistep.errors import PlanError, RunFailed
from multistep.report.lanes import lanes_of

RATE = {"learning_rate": 0.02}
NOISE = World(between_blocks=0.01, between_seeds=0.0005)
# No budget and no clock: a plateau ends the trunk, and then comes each move beside its control.
NAMED = plan(recipe=RATE, moves=["dropout-up", "decay-up", "averaging-up", "averaging-down", "sharpness-on"])
TIMED = plan(recipe=RATE, budget="3m")


def verdicts(history: History) -> list[dict[str, Any]]:
    return [asdict(t.verdict) for t in history.phase.trials.values() if t.verdict]


def entries(folder: Path) -> list[Entry]:
    return list(read_entries(folder / "journal.jsonl"))


def weights(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text())["weights_sha256"])


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> tuple[History, str]:
    folder = tmp_path_factory.mktemp("serial") / "run"
    history = side_by_side(NAMED, folder, FALLS_THEN_FLAT, lanes=1, world=NOISE)
    return history, weights(folder)


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 5.0), (1.0, 0.3, 2.0)])
def test_verdicts_are_those_of_trials_one_after_the_other_whichever_lane_is_faster(
    tmp_path: Path, serial: tuple[History, str], speeds: tuple[float, ...]
) -> None:
    one, bits = serial
    many = side_by_side(NAMED, tmp_path / "run", FALLS_THEN_FLAT, lanes=len(speeds), speeds=speeds, world=NOISE)
    assert len(verdicts(one)) >= 7, "the plain run, the control of a round, five moves"
    assert verdicts(many) == verdicts(one)
    assert list(many.phase.trials) == list(one.phase.trials)
    assert weights(tmp_path / "run") == bits
    assert {t.lane for t in many.phase.trials.values()} == set(range(1, len(speeds) + 1))
    if speeds == (1.0, 1.0):
        assert many.seconds < 0.75 * one.seconds, "the trunk is one line, all else is done two at a time"


def test_with_one_hand_a_journal_is_as_without_lanes_but_for_where_it_happened(tmp_path: Path) -> None:
    execute(TIMED, tmp_path / "plain", OVERFITS)
    side_by_side(TIMED, tmp_path / "lane", OVERFITS, lanes=1)
    plain, lane = ([e.event for e in entries(tmp_path / name)] for name in ("plain", "lane"))
    assert [e for e in lane if not isinstance(e, LanesOpened)] == plain
    assert b'"lane"' not in (tmp_path / "plain" / "journal.jsonl").read_bytes()


def test_two_lanes_try_more_within_the_same_wall_time_and_judge_in_the_order_of_proposals(tmp_path: Path) -> None:
    one = side_by_side(TIMED, tmp_path / "one", OVERFITS, lanes=1, world=NOISE)
    two = side_by_side(TIMED, tmp_path / "two", OVERFITS, lanes=2, world=NOISE)
    assert one.seconds <= 184 and two.seconds <= 184, "of three minutes, as any run ends a little late"  # noqa: PT018
    assert len(verdicts(two)) >= 2 * len(verdicts(one))
    assert two.steps > 1.6 * one.steps
    assert sum(two.took.values()) > 1.6 * sum(two.spent.values())
    given = [e.event.trial for e in entries(tmp_path / "two") if isinstance(e.event, VerdictGiven)]
    assert given == [t.trial.id for t in two.phase.trials.values() if t.verdict]
    lanes = lanes_of(two)
    assert [lane["computes_on"] for lane in lanes] == ["simulated 1", "simulated 2"]
    assert lanes[0]["busy"] > 0.95
    assert sum(len(lane["trials"]) for lane in lanes) == len(two.phase.trials)
    again = tmp_path / "again.jsonl"
    again.write_text(lines_of(entries(tmp_path / "two")))
    assert again.read_bytes() == (tmp_path / "two" / "journal.jsonl").read_bytes(), "as another run takes it over"
    overlapping = itertools.combinations([t for t in two.phase.trials.values() if t.lane], 2)
    assert not [(a.trial.id, b.trial.id) for a, b in overlapping if a.lane == b.lane and b.began < a.until - 1e-6]


@pytest.mark.parametrize("lanes", [2, 3])
def test_each_proposal_is_what_the_journal_before_it_says(tmp_path: Path, lanes: int) -> None:
    """The controller keeps no state: asked again of the record as it stood, it proposes the same."""
    side_by_side(TIMED, tmp_path / "run", POWER, lanes=lanes, world=NOISE)
    found, history, asked = entries(tmp_path / "run"), History(), 0
    for entry in found:
        if isinstance(entry.event, TrialStarted):
            beside = bool(history.phase.under_way)
            proposal = propose_beside(TIMED, history) if beside else propose(TIMED, history)
            assert (proposal.trial, proposal.reason) == (entry.event.trial, entry.event.reason)  # type: ignore[union-attr]
            asked += beside
        history = fold([entry], history)
    assert asked >= 10


def test_a_lost_hand_costs_one_window_and_a_trial_that_loses_three_has_failed(
    tmp_path: Path, serial: tuple[History, str]
) -> None:
    one, bits = serial
    lost = 0

    def once(lane: int, ask: Ask) -> bool:
        nonlocal lost
        lost += lane == 1 and ask.verb == "advance"
        return lane == 1 and ask.verb == "advance" and lost == 4

    history = side_by_side(NAMED, tmp_path / "once", FALLS_THEN_FLAT, world=NOISE, loses=once)
    assert [e.event.lane for e in entries(tmp_path / "once") if isinstance(e.event, LaneLost)] == [2]
    assert verdicts(history) == verdicts(one)
    assert weights(tmp_path / "once") == bits

    big: list[str] = []

    def always(lane: int, ask: Ask) -> bool:
        if ask.verb == "load" and ask.arguments[1].sharpness:
            big.append("load")
            return True
        return False

    history = side_by_side(NAMED, tmp_path / "always", FALLS_THEN_FLAT, world=NOISE, loses=always)
    failed = next(t.verdict for t in history.phase.trials.values() if t.trial.move == "sharpness-on")
    assert failed is not None
    assert failed.reason == "its process was lost 3 times (simulated)"
    assert len(big) == 3
    with pytest.raises(RunFailed, match=r"its process was lost 3 times"):
        side_by_side(NAMED, tmp_path / "trunk", FALLS_THEN_FLAT, loses=lambda lane, ask: ask.verb == "initial")


@pytest.mark.parametrize("resumed_in", [1, 2, 3])
def test_a_killed_driver_goes_on_with_what_was_under_way_in_any_number_of_lanes(
    tmp_path: Path, serial: tuple[History, str], resumed_in: int
) -> None:
    one, bits = serial
    dies = [len(one.phase.trials) // 2, 3, 9]
    seen = 0

    def kill(entry: Entry) -> None:
        nonlocal seen
        seen += isinstance(entry.event, WindowDone) and entry.lane == 2
        if seen == dies[resumed_in - 1]:
            raise Killed

    clock = FakeClock()
    with pytest.raises(Killed):
        side_by_side(NAMED, tmp_path / "run", FALLS_THEN_FLAT, clock=clock, world=NOISE, on_entry=kill)
    left = fold(entries(tmp_path / "run")).phase.under_way
    assert len(left) == 2
    history = side_by_side(NAMED, tmp_path / "run", FALLS_THEN_FLAT, lanes=resumed_in, clock=clock, world=NOISE)
    assert history.kills == 1
    assert verdicts(history) == verdicts(one)
    assert weights(tmp_path / "run") == bits


def test_probes_of_the_rate_are_taken_side_by_side(tmp_path: Path) -> None:
    def until_the_trunk(entry: Entry) -> None:
        if isinstance(entry.event, TrialStarted) and entry.event.trial.id == "0.trunk-2":
            raise Killed

    with pytest.raises(Killed):
        side_by_side(plan(budget="12m"), tmp_path / "run", lanes=3, world=NOISE, on_entry=until_the_trunk)
    probes = fold(entries(tmp_path / "run")).phase.of_kind("probe")
    assert [t.lane for t in probes] == [1, 2, 3]
    assert probes[2].began < probes[0].until


def test_what_is_a_sign_of_life_depends_on_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, or computing where none are taken: a device that hangs keeps its thread busy."""
    signs = Signs()

    def compute() -> bool:
        until = time.thread_time() + 2 * COMPUTED_SECONDS
        while time.thread_time() < until:
            pass
        return signs.seen()

    signs.begins("open")
    assert compute()
    assert not signs.seen(), "nothing since"
    signs.begins("advance")
    for _ in range(FIRST_STEPS):
        signs.stopping()
    assert [signs.seen(), compute()] == [True, True], "what the first steps need may be compiled"
    with monkeypatch.context() as later:
        later.setattr(alive, "FIRST_SECONDS", 0.0)
        assert not compute(), "but not for ever"
    signs.stopping()
    assert [signs.seen(), compute()] == [True, False]
    signs.begins("save")
    assert compute()

    now = [0.0]
    monkeypatch.setenv("MULTISTEP_LANE_SECONDS", "3")
    patience = Patience(lambda: now[0])
    patience.begins(0)
    patience.begins(1)
    now[0] = 1e6  # the run itself was stopped
    assert patience.over() == []
    for _ in range(6):
        now[0] += 0.5
        patience.heard(0)
        found = patience.over()
    assert found == [1]
    monkeypatch.setenv("MULTISTEP_LANE_SECONDS", "soon")
    with pytest.raises(PlanError, match=r"MULTISTEP_LANE_SECONDS is 'soon'; give a number of seconds, such as 600"):
        Patience()
