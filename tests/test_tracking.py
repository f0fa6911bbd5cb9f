"""Trackers: what real local backends hold of a run, live and afterwards, told once however often it is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import execute, plan

from multistep.core.values.events import VerdictGiven
from multistep.core.values.history import fold
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunFailed
from multistep.report.scalars import numbers_of
from multistep.tracking.account import account_of
from multistep.tracking.beside import LOG_NAME, tracked
from multistep.tracking.follow import follow, track, tracker_names
from multistep.tracking.marks import Marks

WANTED = plan(budget="2000 steps", moves=["rate-down"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run with a move, for tests that only read it."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    execute(WANTED, folder)
    (folder / "report.html").write_text("<p>report</p>", encoding="utf-8")
    return RunDirectory(folder)


def test_a_longer_journal_only_adds_to_the_curves(run: RunDirectory) -> None:
    entries = list(read_entries(run.journal))
    whole: dict[str, list[Any]] = {}
    for numbers in numbers_of(entries):
        whole.setdefault(numbers.run, []).append(numbers)
    for end in range(1, len(entries), 7):
        if not fold(entries[:end]).phases:
            continue
        part: dict[str, list[Any]] = {}
        for numbers in numbers_of(entries[:end]):
            part.setdefault(numbers.run, []).append(numbers)
        for name, points in part.items():
            assert name == "chosen" or points == whole[name][: len(points)]


def test_an_account_tells_the_verdicts_and_the_settings(run: RunDirectory) -> None:
    account = account_of(run)
    assert account is not None
    told = {one.name: one for one in account.runs}
    verdicts = [e.event for e in read_entries(run.journal) if isinstance(e.event, VerdictGiven)]
    assert verdicts
    for verdict in verdicts:
        assert told[verdict.trial].said["why"] == verdict.reason
    assert told["."].settings["task"] == "text-generation"
    assert told["."].settings["recipe.optimizer"] == "muon"
    assert told["."].ended == "finished"
    assert [path.name for path in account.files] == ["report.html", "result.json"]


def test_an_unknown_tracker_is_named_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"unknown tracker 'mlfow'; allowed: .*mlflow.*Did you mean 'mlflow'"):
        tracker_names("mlfow")
    with pytest.raises(PlanError), tracked(tmp_path / "run", "nobody"):
        raise AssertionError("it began")


# MLflow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["files", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_mlflow_holds_a_run_once_with_its_trials_nested(
    run: RunDirectory, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'multistep[mlflow]'")
    uri = f"sqlite:///{tmp_path}/mlflow.db" if store == "sqlite" else (tmp_path / "mlruns").as_uri()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with quiet():
        mlflow.set_tracking_uri(uri)
        seen = []
        for _ in range(2):
            track(run, "mlflow")
            client = mlflow.MlflowClient()
            experiment = client.get_experiment_by_name("multistep").experiment_id
            found = client.search_runs([experiment])
            metrics = {
                (each.data.tags["multistep.trial"], key): [
                    (point.step, point.value) for point in client.get_metric_history(each.info.run_id, key)
                ]
                for each in found
                for key in each.data.metrics
            }
            seen.append(metrics)
        whole = next(each for each in found if each.data.tags["multistep.trial"] == ".")
        files = {file.path for file in client.list_artifacts(whole.info.run_id)}
    assert seen[0] == seen[1]
    for numbers in numbers_of(list(read_entries(run.journal))):
        for tag, value in numbers.by_tag.items():
            held = [score for step, score in seen[0][numbers.run, tag] if step == numbers.step]
            assert any(score == pytest.approx(value) for score in held), (numbers.run, tag)
    account = account_of(run)
    assert account is not None
    assert sorted(each.data.tags["multistep.trial"] for each in found) == sorted(one.name for one in account.runs)
    nested = [each for each in found if each is not whole]
    assert {each.data.tags["mlflow.parentRunId"] for each in nested} == {whole.info.run_id}
    assert whole.info.status == "FINISHED"
    assert whole.data.params["task"] == "text-generation"
    history = fold(read_entries(run.journal))
    assert history.leader is not None
    leads = history.trial(history.leader.trial).full
    assert leads is not None
    assert whole.data.metrics["final/validation"] == pytest.approx(leads.interval.score)
    assert {"result.json", "report.html"} <= files
    judged = next(each for each in nested if "multistep.verdict" in each.data.tags)
    assert judged.data.tags["multistep.why"]


def quiet() -> Any:
    """The libraries' own warnings are not ours to mend."""
    import warnings

    manager = warnings.catch_warnings()
    manager.__enter__()
    warnings.simplefilter("ignore")

    class _Quiet:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None:
            manager.__exit__(None, None, None)

    return _Quiet()


# W&B, Trackio ---------------------------------------------------------------------------------------


def of_its_own(code: str, environment: dict[str, str], *arguments: str) -> str:
    """What Python prints in a process of its own: these libraries leave threads and services behind."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TELL = "import sys; from multistep.api import track; [track(sys.argv[2], sys.argv[1]) for _ in range(2)]"


def test_wandb_offline_holds_each_run_of_the_group_once(run: RunDirectory, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'multistep[wandb]'")
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    of_its_own(TELL, environment, "wandb", str(run.folder))
    account = account_of(run)
    assert account is not None
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == len(account.runs)
    points = {}
    for folder in folders:
        name = folder.name.split("-", 3)[3]
        points[name] = wandb_points(next(folder.glob("run-*.wandb")))
    for told in account.runs:
        name = account.id if told.name == "." else f"{account.id}-{told.name}"
        assert points[name] == [numbers.step for numbers in told.curve]


def wandb_points(file: Path) -> list[int]:
    """The steps in W&B's log: blocks of 32 KiB, in them records with a header of checksum, length and kind."""
    from wandb.proto import wandb_internal_pb2

    protocol: Any = wandb_internal_pb2  # made from a protocol, without types

    content, at, whole, steps = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of several
            record = protocol.Record.FromString(whole)
            whole = b""
            told = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            steps += [int(json.loads(told["step"]))] if "step" in told else []
    return steps


def test_trackio_holds_each_run_of_the_group_once(run: RunDirectory, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed: pip install 'multistep[trackio]'")
    environment = {"TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "TRACKIO_PROJECT": "ours"}
    of_its_own(TELL, environment, "trackio", str(run.folder))
    read = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S; "
        "print(json.dumps({r['name']: [p['step'] for p in S.get_logs('ours', r['name'])] "
        "for r in S.get_run_records('ours')}))"
    )
    held = json.loads(of_its_own(read, environment).splitlines()[-1])
    account = account_of(run)
    assert account is not None
    assert len(held) == len(account.runs)
    for told in account.runs:
        name = f"{told.title} {account.id}" if told.name == "." else f"{told.name} {account.id}"
        last = [told.curve[-1].step if told.curve else 0]  # of the scores and words in the end
        assert held[name] == [numbers.step for numbers in told.curve] + last


# Live -----------------------------------------------------------------------------------------------


class Listening:
    """Stands for a tracker's library: keeps what it was told, or fails."""

    told: list[int]
    destination = "a list"

    def __init__(self, *, failing: bool = False) -> None:
        self.told, self.failing = [], failing

    def send(self, account: Any) -> None:
        if self.failing:
            raise ConnectionError("the server is away")
        self.told.append(sum(len(one.curve) for one in account.runs))

    def close(self) -> None: ...


def test_a_tracker_that_fails_keeps_the_others_and_the_run_from_nothing(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers = {"mlflow": Listening(failing=True), "tensorboard": Listening()}
    monkeypatch.setattr("multistep.tracking.follow.PACKAGES", dict.fromkeys(trackers, "json"))
    monkeypatch.setattr("multistep.tracking.follow.open_tracker", lambda name, *_, **__: trackers[name])
    said: list[str] = []
    ends = iter([False, False, True])
    well = follow(run, list(trackers), ended=lambda: next(ends), say=said.append, wait=lambda _: None)
    assert not well
    assert said == ["mlflow: the server is away"] * 2  # once for the journal as it stands, once in the end
    assert len(trackers["tensorboard"].told) == 2
    with pytest.raises(RunFailed, match=r"not tracked by mlflow \(the server is away\)"):
        track(run, list(trackers))


def test_tensorboard_follows_a_run_that_goes_on(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event as Record

    folder = tmp_path / "run"
    execute(WANTED, folder)
    journal = RunDirectory(folder).journal
    whole = journal.read_bytes().splitlines(keepends=True)
    directory = RunDirectory(tmp_path / "live")
    directory.create()
    parts = iter((25, 50, 75))

    def grow(_: float = 0) -> None:
        directory.journal.write_bytes(b"".join(whole[: next(parts)]))

    grow()
    ends = iter([False, False, True])
    assert follow(directory, "tensorboard", ended=lambda: next(ends), say=print, wait=grow)
    read: dict[str, list[tuple[int, str]]] = {}
    for file in sorted(directory.events.rglob("*tfevents*")):
        for raw in RawEventFileLoader(str(file)).Load():
            event = Record.FromString(raw)
            read.setdefault(file.parent.name, []).extend((event.step, v.tag) for v in event.summary.value)
    expected: dict[str, list[tuple[int, str]]] = {}
    for numbers in numbers_of(list(read_entries(directory.journal))):
        expected.setdefault(numbers.run, []).extend((numbers.step, tag) for tag in numbers.by_tag)
    assert read["0.trunk"] == expected["0.trunk"]
    assert read["events"] == expected["."]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX alone")
def test_the_process_beside_a_run_tells_the_last_of_it_and_ends_with_it(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    with tracked(run.folder, "tensorboard", wait_seconds=60):
        pass
    assert (run.folder / LOG_NAME).read_text(encoding="utf-8") == ""
    assert (run.events / "chosen").is_dir()
    assert not caplog.records


def test_trackers_keep_their_marks_beside_each_other(run: RunDirectory, tmp_path: Path) -> None:
    """Whoever wrote last erased what the other had been told, which was told again."""
    directory = RunDirectory(tmp_path)
    account = account_of(run)
    assert account is not None
    told = account.runs[0]
    one, other = Marks(directory, "wandb p"), Marks(directory, "trackio p")
    for marks in (one, other):
        assert len(list(marks.new(told))) == len(told.curve) > 0
    one.close(told)
    other.close(told)
    for destination in ("wandb p", "trackio p"):
        again = Marks(directory, destination)
        assert not list(again.new(told))
        assert again.closed(told)
