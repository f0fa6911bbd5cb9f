"""Lanes as actors of a Ray cluster on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lane_openers import SimulatedOpener
from runs import FALLS_THEN_FLAT, plan, side_by_side

from multistep.core.values.events import Entry, LaneLost, WindowDone
from multistep.core.values.history import History
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.lanes import nodes
from multistep.engine.lanes.hands import HandWorkshop
from multistep.engine.lanes.on_ray import RayHands
from multistep.engine.lanes.store import Store
from multistep.engine.learner import Interrupted
from multistep.engine.loop import Run
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunFailed

ray = pytest.importorskip("ray")
NAMED = plan(recipe={"learning_rate": 0.02}, moves=["dropout-up", "decay-up"])
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    yield
    ray.shutdown()


def on_cluster(
    folder: Path,
    opener: SimulatedOpener,
    lanes: int = 2,
    *,
    shared: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_entry: Callable[[Entry, RayHands], None] = lambda entry, hands: None,
) -> History:
    directory = RunDirectory(folder)
    directory.create()
    with closing(RayHands(None, lanes, pickle.dumps(opener), folder, dict, should_stop, shared=shared)) as hands:
        run = Run(NAMED, directory, HandWorkshop(hands), BudgetClock(), should_stop, reuse=False, hands=hands)
        for entry in run.entries():
            on_entry(entry, hands)
        return run.history


def weights_of(run: Path) -> str:
    return str(json.loads((run / "result.json").read_text(encoding="utf-8"))["weights_sha256"])


def test_an_actor_that_dies_is_replaced_and_the_outcome_is_that_of_one_lane(tmp_path: Path) -> None:
    side_by_side(NAMED, tmp_path / "serial", FALLS_THEN_FLAT, lanes=1)
    windows = 0

    def kill_the_second(entry: Entry, hands: RayHands) -> None:
        nonlocal windows
        windows += isinstance(entry.event, WindowDone) and entry.lane == 2
        if windows == 2:
            windows += 1
            ray.kill(hands._actors[1])

    on_cluster(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT), on_entry=kill_the_second)
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    assert {e.lane for e in entries if isinstance(e.event, WindowDone)} == {1, 2}
    assert [e.event.lane for e in entries if isinstance(e.event, LaneLost)] == [2]
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "serial")
    assert not list((tmp_path / "run").glob(".shared-*"))


def test_lanes_that_do_not_see_the_runs_directory_share_a_store(tmp_path: Path) -> None:
    side_by_side(NAMED, tmp_path / "serial", FALLS_THEN_FLAT, lanes=1)
    url = (tmp_path / "store").as_uri()
    on_cluster(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT), shared=url)
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    assert {e.lane for e in entries if isinstance(e.event, WindowDone)} == {1, 2}
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "serial")
    assert not list((tmp_path / "store").rglob("*.json")), "nothing is left there"
    assert not list((tmp_path / "run").glob(".shared*"))
    with pytest.raises(
        PlanError, match=r"lane 1 \(.*\) does not see .* in memory://x: name a place that all nodes reach"
    ):
        on_cluster(tmp_path / "other", SimulatedOpener(FALLS_THEN_FLAT), shared="memory://x")


def test_an_actor_that_hangs_is_ended_and_its_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTISTEP_LANE_SECONDS", "6")
    hangs, windows = tmp_path / "hangs", 0

    def hang_the_second(entry: Entry, hands: RayHands) -> None:
        nonlocal windows
        windows += isinstance(entry.event, WindowDone) and entry.lane == 2
        if windows == 4 and not hangs.exists():  # after the first steps, in which computing is a sign of life
            pid = int(ray.get(hands._actors[1].sees.remote(str(tmp_path), "none", b"", "none"))[1].split()[-1])
            hangs.write_text(str(pid))

    on_cluster(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT, hangs=hangs), on_entry=hang_the_second)
    lost = [e.event for e in read_entries(tmp_path / "run" / "journal.jsonl") if isinstance(e.event, LaneLost)]
    assert [(event.lane, event.reason) for event in lost] == [(2, "it hung: no sign of life for 6 s")]


def test_a_cluster_that_has_no_room_any_more_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MULTISTEP_LANE_SECONDS", "6")
    others: list[Any] = []

    def crowd_out(entry: Entry, hands: RayHands) -> None:
        if isinstance(entry.event, WindowDone) and not others:
            others.append(ray.remote(Other).options(num_cpus=2).remote())
            for actor in hands._actors:
                ray.kill(actor)
            ray.get(others[0].there.remote())

    with pytest.raises(RunFailed, match=r"no lane has got its 1 CPU from the cluster for 6 s; start the same command"):
        on_cluster(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT), on_entry=crowd_out)
    assert "no lane has got its 1 CPU from the cluster for 1 s; waiting for 6 s" in caplog.text
    ray.kill(others[0])
    on_cluster(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT))
    side_by_side(NAMED, tmp_path / "serial", FALLS_THEN_FLAT, lanes=1)
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "serial")


def test_a_cluster_that_no_longer_answers_a_client_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: Any, **__: Any) -> Any:
        raise ConnectionError('Initialization failure:\nTraceback:\n  File "a.py"\nRuntimeError: no server\n)')

    def once_begun(entry: Entry, hands: RayHands) -> None:
        if isinstance(entry.event, WindowDone):
            monkeypatch.setattr(ray, "wait", cut_off)

    said = (
        r"the Ray cluster no longer answers \(Initialization failure: RuntimeError: no server\); start the same command"
    )
    with pytest.raises(RunFailed, match=said):
        on_cluster(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT), on_entry=once_begun)


class Other:
    """An actor of somebody else's."""

    def there(self) -> bool:
        return True


def test_what_a_cluster_cannot_do_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = SimulatedOpener(FALLS_THEN_FLAT)
    with pytest.raises(PlanError, match=r"--parallel is 5; the cluster has 2 CPUs, so at most --parallel 2"):
        on_cluster(tmp_path / "many", opener, lanes=5)
    with monkeypatch.context() as here:
        here.setattr(nodes, "versions_here", lambda: {"torch": "0.1"})
        with pytest.raises(PlanError, match=r"lane 1 \(.*\) has other versions: torch 0.1 here and .* there"):
            on_cluster(tmp_path / "other", opener)
    with monkeypatch.context() as here:
        # What is written here goes elsewhere: as with a folder of that name on each node.
        here.setattr(Store, "write", lambda *_: None)
        with pytest.raises(PlanError, match=r"lane 1 \(.*\) does not see .*must lie where all nodes see it"):
            RayHands(None, 2, pickle.dumps(opener), tmp_path, dict, lambda: False)


def test_a_request_to_stop_reaches_actors_in_the_middle_of_a_window(tmp_path: Path) -> None:
    asked = [False]

    def stop(entry: Entry, _: RayHands) -> None:
        asked[0] |= bool(entry.lane)

    slow = SimulatedOpener(FALLS_THEN_FLAT, window_seconds=120.0)
    with pytest.raises(Interrupted):
        on_cluster(tmp_path / "run", slow, should_stop=lambda: asked[0], on_entry=stop)
