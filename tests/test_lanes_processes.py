"""Lanes as processes of this machine: the same outcomes, and what is left when one of them, or the run, is killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from lane_openers import SimulatedOpener
from runs import FALLS_THEN_FLAT, plan, side_by_side
from torch import Tensor, nn
from torch.utils.data import Dataset

from multistep import api
from multistep.core.values.events import Entry, LaneLost, LanesOpened, WindowDone
from multistep.core.values.history import History, fold
from multistep.engine.asking import Ask
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.lanes.hands import HandLost, HandWorkshop
from multistep.engine.lanes.processes import Place, ProcessHands
from multistep.engine.learner import Interrupted
from multistep.engine.loop import Run
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunDirectoryError

NAMED = plan(recipe={"learning_rate": 0.02}, moves=["dropout-up", "decay-up", "averaging-up"])
HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _found_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")])))


def in_processes(
    folder: Path,
    opener: SimulatedOpener,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_entry: Callable[[Entry, ProcessHands], None] = lambda entry, hands: None,
) -> History:
    directory = RunDirectory(folder)
    directory.create()
    places = [Place(f"process {n}", {}) for n in (1, 2)]
    with closing(ProcessHands(places, pickle.dumps(opener), dict, should_stop)) as hands:
        clock = BudgetClock()
        run = Run(NAMED, directory, HandWorkshop(hands), clock, should_stop, reuse=False, hands=hands)
        for entry in run.entries():
            on_entry(entry, hands)
        return run.history


def weights(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text())["weights_sha256"])


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("serial") / "run"
    side_by_side(NAMED, folder, FALLS_THEN_FLAT, lanes=1)
    return weights(folder)


def test_a_process_killed_in_a_window_is_replaced_and_the_outcome_is_the_same(tmp_path: Path, bits: str) -> None:
    dies, windows = tmp_path / "dies", 0

    def kill_the_second(entry: Entry, hands: ProcessHands) -> None:
        nonlocal windows
        windows += isinstance(entry.event, WindowDone) and entry.lane == 2
        if windows == 2 and not dies.exists():
            dies.write_text(str(hands.processes()[1]))

    opener = SimulatedOpener(FALLS_THEN_FLAT, dies=dies)
    in_processes(tmp_path / "run", opener, on_entry=kill_the_second)
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    assert {e.lane for e in entries if isinstance(e.event, WindowDone)} == {1, 2}
    lost = [e.event for e in entries if isinstance(e.event, LaneLost)]
    assert [(event.lane, event.trial is not None) for event in lost] == [(2, True)]
    assert "ended by SIGABRT" in lost[0].reason
    assert weights(tmp_path / "run") == bits


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_its_trial_goes_on(
    tmp_path: Path, bits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes in vain; a window of the other lane that takes longer than the limit is none, as it takes steps."""
    monkeypatch.setenv("MULTISTEP_LANE_SECONDS", "1.5")
    hangs, slow, windows = tmp_path / "hangs", tmp_path / "slow", 0

    def hang_the_second(entry: Entry, hands: ProcessHands) -> None:
        nonlocal windows
        first, second = hands.processes()
        slow.write_text(str(first))
        windows += isinstance(entry.event, WindowDone) and entry.lane == 2
        if windows == 3 and not hangs.exists():
            hangs.write_text(str(second))

    in_processes(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT, hangs=hangs, slow=slow), on_entry=hang_the_second)
    lost = [e.event for e in read_entries(tmp_path / "run" / "journal.jsonl") if isinstance(e.event, LaneLost)]
    assert [(event.lane, event.reason) for event in lost] == [(2, "it hung: no sign of life for 1.5 s")]
    assert lost[0].trial is not None
    assert not _alive(int(hangs.read_text()))
    assert weights(tmp_path / "run") == bits


def test_a_request_to_stop_reaches_processes_in_the_middle_of_a_window(tmp_path: Path) -> None:
    asked, pids = [False], list[int | None]()

    def stop_in_both(entry: Entry, hands: ProcessHands) -> None:
        pids[:] = hands.processes()
        asked[0] |= entry.lane == 2

    began = time.monotonic()
    opener = SimulatedOpener(FALLS_THEN_FLAT, window_seconds=0.0)
    slow = SimulatedOpener(FALLS_THEN_FLAT, window_seconds=60.0)
    with pytest.raises(Interrupted):
        in_processes(tmp_path / "run", opener, should_stop=lambda: asked[0], on_entry=stop_in_both)
    asked[0] = False
    with pytest.raises(Interrupted):
        in_processes(tmp_path / "run", slow, should_stop=lambda: time.monotonic() > began + 4, on_entry=stop_in_both)
    assert time.monotonic() - began < 40, "a window would have lasted for a minute"
    assert not [pid for pid in pids if pid and _alive(pid)]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_killed_run_leaves_no_processes_and_is_resumed(tmp_path: Path, bits: str) -> None:
    script = tmp_path / "drive.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path[:0] = [{HERE!r}]
        from test_lanes_processes import FALLS_THEN_FLAT, SimulatedOpener, in_processes
        said = lambda entry, hands: print(entry.lane, *hands.processes(), flush=True)
        in_processes(Path({str(tmp_path / "run")!r}), SimulatedOpener(FALLS_THEN_FLAT), on_entry=said)
        """)
    )
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids: list[int] = []
    for line in driver.stdout:
        lane, *pids = map(int, line.split())
        if lane == 2:
            break
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert len(pids) == 2
    until = time.monotonic() + 20
    while any(map(_alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_alive, pids)), "whoever has nobody to answer to ends"
    assert fold(read_entries(tmp_path / "run" / "journal.jsonl")).finished is None
    assert in_processes(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT)).kills == 1
    assert weights(tmp_path / "run") == bits


def test_a_lane_that_sees_other_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"lane 2 \(process 2\) does not see .* data: simulated and another"):
        in_processes(tmp_path / "run", SimulatedOpener(FALLS_THEN_FLAT, differs=True))


def test_what_a_lane_said_while_another_was_waited_for_is_of_no_use_later(tmp_path: Path) -> None:
    """Its answer about a phase that ended meanwhile, and its end while it had nothing to do."""
    places = [Place(f"process {n}", {}) for n in (1, 2)]
    opener = pickle.dumps(SimulatedOpener(FALLS_THEN_FLAT, differs=True))
    with closing(ProcessHands(places, opener, dict, lambda: False)) as hands:

        def heard(lane: int) -> None:
            until = time.monotonic() + 60
            while not any(which == lane for which, _ in hands._early) and time.monotonic() < until:
                hands._early += hands._heard()

        hands.open(1, NAMED, 0)
        heard(1)
        hands.open(1, NAMED, 0)
        assert hands.wait(1)[1].value.fingerprint == "another", "of the phase that was asked for last"
        pid = hands.processes()[1]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        heard(1)
        hands.begin(1, Ask("fit"))
        assert isinstance(hands.wait(1)[1].error, HandLost)


class Held(Dataset[tuple[Tensor, Tensor]]):
    """Examples behind a lock, which no other process can have."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(8), torch.zeros((), dtype=torch.long)


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def test_a_module_is_trained_in_two_processes_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch, a module of the caller's, its data in memory: no clock decides, so both end in the same bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MULTISTEP_DEVICE", "cpu")
    inputs = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] + inputs[:, 1] ** 2 > 1.0).long()

    def train(parallel: int) -> Any:
        return api.train(
            model=net(),
            loss="cross_entropy",
            train=(inputs[:200], targets[:200]),
            validation=(inputs[200:], targets[200:]),
            recipe={"learning_rate": 3e-2, "batch_size": 20},
            tolerance=0.02,
            moves=["decay-up", "averaging-up"],
            out=tmp_path / f"in-{parallel}",
            parallel=parallel,
            progress=False,
        )

    one, two = train(1), train(2)
    assert two.record["weights_sha256"] == one.record["weights_sha256"]
    assert [(v.trial, v.expected) for v in two.verdicts] == [(v.trial, v.expected) for v in one.verdicts]
    assert len(one.verdicts) >= 4
    found = [e.event for e in read_entries(tmp_path / "in-2" / "journal.jsonl") if isinstance(e.event, LanesOpened)]
    assert found == [LanesOpened(("cpu, 1 thread", "cpu, 1 thread"))]


def test_what_is_not_possible_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    common: dict[str, Any] = {"train": (torch.zeros(40, 8), torch.zeros(40).long()), "loss": "cross_entropy"}
    common |= {"budget": "10 steps", "out": tmp_path / "run", "progress": False, "device": "cpu"}
    with pytest.raises(PlanError, match=rf"--parallel is 4096; this machine has {cores} core.* --parallel {cores} is"):
        api.train(model=net(), parallel=4096, **common)
    with pytest.raises(PlanError, match=r"--parallel is 0; allowed: 1 or more"):
        api.train(model=net(), parallel=0, **common)
    with pytest.raises(PlanError, match="--shared names what the nodes of a cluster share; name the cluster with --on"):
        api.train(model=net(), parallel=2, shared="s3://bucket/runs", **common)
    rows = [{"text": "a", "label": "x"}] * 20
    with pytest.raises(PlanError, match="shared: data that were given as objects in Python lie in the run's directory"):
        api.train(task="text-classification", data=rows, on="ray", shared="s3://bucket/runs", out=tmp_path / "run")
    if cores >= 2:
        with pytest.raises(PlanError, match=r"cannot be sent to other processes .* leave parallel out"):
            api.train(model=net(), parallel=2, **{**common, "train": Held()})
    assert not (tmp_path / "run" / "journal.jsonl").exists()
