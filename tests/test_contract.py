"""One contract for every task: from data to a folder that others can load, and the same bits after a kill."""

from __future__ import annotations

import random
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import CASES, Case, OwnCase, as_shipped
from runs import Killed
from safetensors.torch import load_file
from torch import Tensor

from multistep import api
from multistep.api import Result
from multistep.backends.torch.weights import COUNTERS, STATE
from multistep.core.evidence.metric import Evaluation, metric_named
from multistep.core.values.events import Entry, WindowDone
from multistep.core.values.history import History, fold
from multistep.core.values.plan import DataSpec
from multistep.core.values.recipe import Recipe
from multistep.engine.journal import read_entries
from multistep.engine.learner import Learner
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError


@dataclass(frozen=True)
class Made:
    case: Case
    folder: Path
    data: DataSpec
    result: Result

    @property
    def history(self) -> History:
        return fold(read_entries(RunDirectory(self.result.folder).journal))

    @property
    def test_table(self) -> Evaluation:
        history = self.history
        assert history.test is not None
        return RunDirectory(self.result.folder).read_table(history.test.table)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.name)
    data = case.prepare(folder)
    return Made(case, folder, data, case.run(folder, data, folder / "run"))


# A whole run ------------------------------------------------------------------------------------------


def test_a_run_scores_every_example_of_the_test_split_beside_a_baseline(made: Made) -> None:
    table, result = made.test_table, made.result
    assert result.test is not None
    assert len(table) == result.test.n >= 2
    assert made.case.examples in (None, len(table))
    assert result.record["baseline"]["test"]["n"] == len(table)
    if made.case.name != "own-model-pairs-and-functions":  # whose function does not outlive the run
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

    with pytest.raises(Killed):
        made.case.run(made.folder, made.data, tmp_path / "run", die)
    torch.manual_seed(5)  # nothing may hang on what was drawn before
    again = made.case.run(made.folder, made.data, tmp_path / "run")
    assert again.record["weights_sha256"] == made.result.record["weights_sha256"]
    assert again.record["kills_survived"] == 1


def test_its_model_folder_is_where_another_run_begins(made: Made, tmp_path: Path) -> None:
    on = made.case.go_on(made.folder, made.data, tmp_path / "run", made.result)
    assert on.test is not None
    assert made.result.test is not None
    assert on.test.score == pytest.approx(made.result.test.score, abs=2e-3), "hardly a step from where it began"


def test_evaluating_the_folder_gives_the_score_of_the_run(made: Made) -> None:
    assert made.result.test is not None
    score = made.case.score(made.data, made.result)
    if score is not None:
        threshold = (made.result.record["calibration"] or {}).get("threshold") or {"used": False}
        expected = threshold["test"]["at_threshold"] if threshold["used"] else made.result.test.score
        assert score == pytest.approx(expected, rel=1e-3, abs=1e-6)
        return
    facts = made.history.phase.started.facts
    held_out = facts.validation_tokens + facts.test_tokens
    assert api.evaluate(made.result.model, str(made.data))["examples"] == facts.train_examples + held_out


def test_predicting_agrees_with_the_evaluation(made: Made) -> None:
    case = made.case
    if isinstance(case, OwnCase):
        answers = made.result.predict(case.own.keywords()["test"], model=case.own.build())
        assert len(answers) == case.own.test_examples, "its scores are held to the run's in test_own_use"
        return
    if case.inputs is None or case.agree is None:
        with pytest.raises(PlanError, match=case.refused):
            api.predict(made.result.model, ["anything"])
        return
    predictions = api.predict(made.result.model, case.inputs(made.folder))
    assert len(predictions) == (case.asked or len(made.test_table))
    assert case.agree(predictions, as_shipped(made.test_table, made.result.record), made.folder)


def test_the_lines_of_its_usage_run(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (made.result.model / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert code.strip() == made.result.record["usage"].replace("{model}", "'.'"), "a card says how to load the model"
    monkeypatch.chdir(made.result.model)
    monkeypatch.setattr(sys, "argv", ["usage"])
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
    assert str(made.folder) not in card, "paths of this machine say nothing elsewhere"


# A learner ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    learner: Learner
    recipe: Recipe
    rates: tuple[float, ...]

    def advance(self) -> None:
        resolution = self.recipe.resolution[0] if self.recipe.resolution else None
        self.learner.advance(self.rates, resolution=resolution)

    def state(self, folder: Path) -> Mapping[str, Tensor]:
        """All that is saved, the place in the data too."""
        folder.mkdir(exist_ok=True)
        self.learner.save(folder)
        counters = torch.tensor(list((folder / COUNTERS).read_bytes()))
        return {**load_file(folder / STATE), COUNTERS: counters}


@pytest.fixture(scope="module")
def opened(made: Made) -> Opened:
    """With dropout where the model has it, and averaged weights beside the trained ones."""
    learner, ready = made.case.open(made.folder, made.data)
    dropout = 0.2 if "dropout" in ready.facts.settings else 0.0
    recipe = replace(ready.recipe, averaging=0.3, dropout=dropout)
    return Opened(learner, recipe, (recipe.learning_rate or 1e-3,) * 3)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def random_states() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tolist(), torch.get_rng_state().tolist()


def test_the_same_seed_gives_the_same_bits_and_saving_and_loading_goes_on_exactly(
    opened: Opened, tmp_path: Path
) -> None:
    learner, recipe = opened.learner, opened.recipe
    learner.initial(recipe, 0)
    first = opened.state(tmp_path / "first")
    opened.advance()
    opened.state(tmp_path / "middle")
    opened.advance()
    straight = opened.state(tmp_path / "straight")
    assert not same(first, straight)
    torch.manual_seed(11)
    np.random.seed(11)
    learner.load(tmp_path / "middle", recipe, 0)
    opened.advance()
    assert same(straight, opened.state(tmp_path / "loaded"))
    learner.initial(recipe, 0)
    assert same(first, opened.state(tmp_path / "again"))
    opened.advance()
    opened.advance()
    assert same(straight, opened.state(tmp_path / "anew"))


def test_evaluating_changes_nothing_and_says_the_same_twice(opened: Opened, tmp_path: Path) -> None:
    learner = opened.learner
    learner.initial(opened.recipe, 0)
    opened.advance()
    state, chance = opened.state(tmp_path / "before"), random_states()
    sample, whole = learner.evaluate("validation", sample=True), learner.evaluate("validation", sample=False)
    assert random_states() == chance
    assert same(state, opened.state(tmp_path / "after"))
    again = learner.evaluate("validation", sample=False)
    assert all(np.array_equal(whole.columns[name], again.columns[name]) for name in whole.columns)
    assert 2 <= len(sample) <= len(whole) == len(learner.baseline("validation")[1])
    assert learner.exhibits()


def test_the_mean_of_checkpoints_is_that_of_their_averaged_weights(opened: Opened, tmp_path: Path) -> None:
    learner, recipe = opened.learner, opened.recipe
    learner.initial(recipe, 0)
    opened.advance()
    one = opened.state(tmp_path / "one")
    opened.advance()
    other = opened.state(tmp_path / "other")
    learner.average([tmp_path / "one", tmp_path / "other"], recipe, 0)
    mean = opened.state(tmp_path / "mean")
    means = [name for name in mean if name.startswith("average.") and mean[name].is_floating_point()]
    means = [name for name in means if not name.endswith(("running_mean", "running_var"))]  # of those nothing is a mean
    assert means
    for name in means:
        torch.testing.assert_close(mean[name], (one[name] + other[name]) / 2, atol=1e-6, rtol=1e-5)
        assert torch.equal(mean[name], mean[name.replace("average.", "model.", 1)])
    learner.adopt(tmp_path / "other", recipe, 3)
    adopted = opened.state(tmp_path / "adopted")
    assert all(torch.equal(adopted[name], other[name]) for name in means), "where another phase begins"
