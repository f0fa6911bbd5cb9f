"""One model on two processes: what they do is what one does, and what goes wrong with either is told once."""

from __future__ import annotations

import json
import pickle
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import many_worker
import numpy as np
import pytest
import torch
from runs import Killed
from two_processes import both, both_succeed, ended, entries, losses, serving, started, written

from multistep import api
from multistep.backends.torch import devices
from multistep.core.values.events import Entry, RunInterrupted, RunResumed, WindowDone
from multistep.core.values.history import History
from multistep.engine.clock import BudgetClock
from multistep.engine.launched import Place, place_of
from multistep.engine.planfile import read_plan
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError

# One for each task, and for what batches are made of: rows of one length, packed, padded; a module.
SHARED = (
    "text-generation",
    "conversations-from-nothing",
    "preference",
    "text-classification",
    "text-classification-bag",
    "text-classification-cnn",
    "fill-mask",
    "speech-recognition",
    "images-of-one-folder-by-a-swin",
    "own-model-tensors",
    "own-model-bags-by-weight",
)


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with serving():
        yield


# The same as one ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of all cases, in one start of them."""
    folder = tmp_path_factory.mktemp("shared")
    for name in SHARED:
        (folder / name).mkdir()
        data = many_worker.KNOWN[name].prepare(folder / name)
        (folder / name / "data").write_bytes(pickle.dumps(data))
    config = folder / "images-of-one-folder-by-a-swin/begin/config.json"  # it leaves layers out by lot
    config.write_text(config.read_text(encoding="utf-8").replace('"drop_path_rate": 0.5', '"drop_path_rate": 0.0'))
    both_succeed(folder, folder, "shared_cases", folder, SHARED)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_do_what_one_does(name: str, shared: Path) -> None:
    torch.manual_seed(0)  # an own module's first weights are those that it has in the first process
    losses, table, weights = many_worker.alone(name, shared, many_worker.steps_of(name))
    found, scores, placed = pickle.loads((shared / name / "seen").read_bytes())
    assert len(found) == many_worker.steps_of(name)
    np.testing.assert_allclose(found, losses, rtol=1e-5, atol=1e-5)
    assert scores.keys() == table.keys()
    for column in table:
        assert len(scores[column]) == len(table[column]), "every example once"
    for column in ("block", "count", "label", "words", "bytes"):
        if column in table:  # of the data alone, and so in what order
            np.testing.assert_array_equal(scores[column], table[column])
    np.testing.assert_allclose(scores["loss"], table["loss"], rtol=1e-3, atol=1e-4)
    assert placed.keys() == weights.keys()


# Whole runs, and what goes wrong with them ----------------------------------------------------------


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = {"dropout": 0.0, "optimizer": "adamw", "batch_size": 7}
    return written(tmp_path_factory.mktemp("plan"), "90 steps", recipe, layers=1, width=32)


@pytest.fixture(autouse=True)
def _here(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plan.parent)


@pytest.fixture(scope="module")
def undisturbed(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    first, second = both(folder, plan.parent, "command", "train", str(plan), "--out", str(folder / "run"), "--json")
    assert (first.code, second.code) == (0, 0), first.said + second.said
    assert second.said == "", "the first speaks for both"
    return folder / "run"


def weights(run: Path) -> str:
    return str(json.loads((run / "result.json").read_text(encoding="utf-8"))["weights_sha256"])


def test_a_run_of_two_processes_is_that_of_one(plan: Path, undisturbed: Path, tmp_path: Path) -> None:
    api.run(read_plan(plan), RunDirectory(tmp_path / "run"), clock=BudgetClock())
    one, two = entries(tmp_path / "run"), entries(undisturbed)
    assert [type(entry.event) for entry in two] == [type(entry.event) for entry in one]
    np.testing.assert_allclose(losses(undisturbed), losses(tmp_path / "run"), rtol=1e-5)
    versions = json.loads((undisturbed / "resolved.json").read_text(encoding="utf-8"))["versions"]
    assert versions["processes"] == "2"


@pytest.mark.parametrize(
    ("verb", "number"), [pytest.param("evaluate", 2, marks=pytest.mark.slow), ("save", 1)], ids=["look", "save"]
)
def test_a_kill_of_the_first_is_told_by_the_other_and_the_same_command_ends_in_the_same_bits(
    verb: str, number: int, plan: Path, undisturbed: Path, tmp_path: Path
) -> None:
    words = ("train", str(plan), "--out", str(tmp_path / "run"), "--json")
    killed, left = both(tmp_path, plan.parent, "killed_in", verb, 0, number, *words)
    assert (killed.code, left.code) == (-signal.SIGKILL, 1)
    assert "multistep: process 0 of 2 no longer answers" in left.said
    both_succeed(tmp_path, plan.parent, "command", *words)
    assert weights(tmp_path / "run") == weights(undisturbed)
    assert any(isinstance(entry.event, RunResumed) for entry in entries(tmp_path / "run"))


def test_after_a_kill_of_the_other_a_run_goes_on_by_one_process_and_by_two_again(
    plan: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("train", str(plan), "--out", str(run), "--json")
    left, killed = both(tmp_path, plan.parent, "killed_in", "advance", 1, 2, *words)
    assert (left.code, killed.code) == (1, -signal.SIGKILL)
    assert "multistep: process 1 of 2 no longer answers: killed, hanging, or on a machine that is gone" in left.said
    assert "start the same command again to go on with the run" in left.said

    def die(entry: Entry, _: History) -> None:
        if isinstance(entry.event, WindowDone):
            raise Killed

    with pytest.raises(Killed):
        api.run(read_plan(plan), RunDirectory(run), clock=BudgetClock(), on_entry=die)
    both_succeed(tmp_path, plan.parent, "command", *words)
    np.testing.assert_allclose(losses(run), losses(undisturbed), rtol=1e-5)


@pytest.mark.parametrize(
    ("hangs", "said"),
    [(1, "process 1 of 2 no longer answers"), (0, "process 1 of 2 on .* is cut off from the others; start the same")],
    ids=["the other", "the first, and its store"],
)
@pytest.mark.slow
def test_who_hangs_is_told_within_the_limit(hangs: int, said: str, plan: Path, tmp_path: Path) -> None:
    words = ("train", str(plan), "--out", str(tmp_path / "run"))
    running = started(tmp_path, plan.parent, "killed_in", "advance", hangs, 2, *words, limit=4.0, by=signal.SIGSTOP)
    left, log = running[1 - hangs]
    left.join(120)
    assert left.exitcode == 1
    assert re.search(f"multistep: {said}", log.read_text(encoding="utf-8"))
    running[hangs][0].kill()
    ended(running)


def test_a_signal_to_either_stops_both_between_two_steps(plan: Path, tmp_path: Path) -> None:
    words = ("train", str(plan), "--out", str(tmp_path / "run"))
    first, second = both(tmp_path, plan.parent, "killed_in", "advance", 1, 2, *words, by=signal.SIGTERM)
    assert first.code == 128 + signal.SIGTERM
    assert second.code == 0, "the first has the exit code"
    assert "multistep: stopped by SIGTERM; go on with `multistep resume" in first.said
    assert second.said == ""
    assert isinstance(entries(tmp_path / "run")[-1].event, RunInterrupted)


def test_a_process_without_memory_fails_the_run_in_both(plan: Path, tmp_path: Path) -> None:
    first, second = both(tmp_path, plan.parent, "without_memory", "train", str(plan), "--out", str(tmp_path / "run"))
    assert (first.code, second.code) == (1, 0)
    assert "multistep: another process: memory runs out with a single example of its share" in first.said
    assert second.said == ""


# Who differs ----------------------------------------------------------------------------------------


def test_processes_that_differ_are_told_of_by_the_first(plan: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in plan.parent.glob("*.txt"):
        (other / file.name).write_text(file.read_text(encoding="utf-8").replace("the", "a"), encoding="utf-8")
    run = str(tmp_path / "run")
    beside = other / "plan.yaml"
    beside.write_text(plan.read_text(encoding="utf-8").replace("90 steps", "91 steps"), encoding="utf-8")
    for do, args, said in (
        ("other_version", ("train", str(plan), "--out", run), "has multistep 0.0.1, process 0"),
        (
            "elsewhere",
            (other, "train", "plan.yaml", "--out", run),
            "process 1 on .* has plan .* give all processes",
        ),
        ("elsewhere", (other, "train", str(plan), "--out", run), "process 1 on .* comes to other data than process 0"),
        ("elsewhere", (tmp_path, "train", "plan.yaml", "--out", run), "process 1 on .*: plan.yaml: no such file"),
    ):
        first, second = both(tmp_path, plan.parent, do, *args)
        assert first.code == 2, first.said
        assert re.search(f"multistep: .*{said}", first.said)
        assert first.said.count("multistep: ") == 1
        assert (second.code, second.said) in ((0, ""), (2, "")), "told once"
        assert not Path(run).exists(), "nothing was won"


def test_a_launcher_that_starts_one_of_two_is_noticed() -> None:
    asked = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}
    with pytest.raises(PlanError, match="accelerate was asked for several processes and has started this one alone"):
        place_of(asked)
    assert place_of({**asked, "RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}) == Place(1, 2, 1, 2)
    assert place_of({"WORLD_SIZE": "1", "RANK": "0"}) is None
    with pytest.raises(PlanError, match="which do not say which process of how many this is"):
        place_of({"WORLD_SIZE": "2"})
    with pytest.raises(PlanError, match="MASTER_ADDR and MASTER_PORT, where the processes meet, are not set"):
        place_of({"WORLD_SIZE": "2", "RANK": "0"})


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert devices.device_of(1, 2) == torch.device("cuda", 1)
    with pytest.raises(PlanError, match=r"3 processes were started on .* and torch finds 2 devices \(cuda\)"):
        devices.device_of(0, 3)
    monkeypatch.setattr(devices, "pick_device", lambda: torch.device("cuda", 0))
    with pytest.raises(PlanError, match="device is 'cuda:0', but 2 processes on this machine need one each"):
        devices.device_of(0, 2)
