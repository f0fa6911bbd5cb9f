"""One contract for every task: from data to a folder that others can load, and the same bits after a kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from contract import CASES, Case
from runs import Killed

from multistep import api
from multistep.api import Result
from multistep.core.events import Entry, WindowDone
from multistep.core.history import History, fold
from multistep.core.metric import Evaluation, metric_named
from multistep.core.plan import DataSpec, Plan
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock


@dataclass(frozen=True)
class Made:
    case: Case
    folder: Path
    data: DataSpec
    result: Result

    @property
    def test_table(self) -> Evaluation:
        directory = RunDirectory(self.result.folder)
        history = fold(read_entries(directory.journal))
        assert history.test is not None
        return directory.read_table(history.test.table)


def wanted(case: Case, data: DataSpec, **changes: object) -> Plan:
    length = {"phases": [{"name": "only", "until": f"{case.steps} steps"}]}
    return plan_from({"task": case.task, "data": data, **case.settings, **length, **changes})


def run(plan: Plan, folder: Path, on_entry: Callable[[Entry, History], None] | None = None) -> Result:
    return api.run(plan, RunDirectory(folder), clock=BudgetClock(FakeClock().now), on_entry=on_entry)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.name)
    data = case.write(folder)
    return Made(case, folder, data, run(wanted(case, data), folder / "run"))


def test_a_run_scores_every_example_of_the_test_split_beside_a_baseline(made: Made) -> None:
    table, result = made.test_table, made.result
    assert result.test is not None
    assert len(table) == result.test.n >= 2
    assert made.case.examples in (None, len(table))
    assert result.record["baseline"]["test"]["n"] == len(table)
    assert metric_named(result.metric).score(table) == pytest.approx(result.test.score)
    assert np.isfinite(result.test.score)
    assert result.record["steps"] == made.case.steps


def test_killed_in_the_middle_it_ends_in_the_same_bits(made: Made, tmp_path: Path) -> None:
    windows = 0

    def die(entry: Entry, _history: History) -> None:
        nonlocal windows
        windows += isinstance(entry.event, WindowDone)
        if windows == 2:
            windows += 1
            raise Killed

    plan = wanted(made.case, made.data)
    with pytest.raises(Killed):
        run(plan, tmp_path / "run", die)
    again = run(plan, tmp_path / "run")
    assert again.record["weights_sha256"] == made.result.record["weights_sha256"]
    assert again.record["kills_survived"] == 1


def test_its_model_folder_is_where_another_run_begins(made: Made, tmp_path: Path) -> None:
    recipe = {**made.case.settings.get("recipe", {}), "learning_rate": 1e-9, "warmup_steps": 0}
    phase = {"name": "on", "until": "2 steps"}
    on = run(
        wanted(made.case, made.data, model=str(made.result.model), recipe=recipe, phases=[phase]), tmp_path / "run"
    )
    assert on.test is not None
    assert made.result.test is not None
    assert on.test.score == pytest.approx(made.result.test.score, abs=2e-3), "hardly a step from where it began"


def test_evaluating_the_folder_gives_the_score_of_the_run(made: Made) -> None:
    source = made.data.test or ""
    scores = api.evaluate(made.result.model, source)["scores"]
    assert made.result.test is not None
    assert scores[made.result.metric]["score"] == pytest.approx(made.result.test.score, rel=1e-3, abs=1e-6)


def test_predicting_agrees_with_the_evaluation(made: Made) -> None:
    case = made.case
    if case.inputs is None or case.agree is None:
        pytest.skip(f"{case.task} predicts nothing")
    predictions = api.predict(made.result.model, case.inputs(made.folder))
    assert len(predictions) == len(made.test_table)
    assert case.agree(predictions, made.test_table)


def test_the_lines_of_its_usage_run(made: Made) -> None:
    usage = made.result.record["usage"].replace("{model}", repr(str(made.result.model)))
    assert usage
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", usage], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
