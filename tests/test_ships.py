"""What a run gives to its user: the baseline where that leads on validation, the network where it is asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases_images as images
import cases_language as language
import numpy as np
import pytest
from commands import multistep, start
from contract import _texts, as_shipped
from runs import OVERFITS, Killed, execute, plan

from multistep import api
from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.core.evidence.scores import told_apart
from multistep.core.values.events import BaselineScored, Entry, Evaluated, ShipDecided
from multistep.core.values.history import History, fold
from multistep.core.values.plan import DataSpec
from multistep.engine.checkpoints import whole
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.shipping import decided
from multistep.engine.simulate import FakeClock
from multistep.errors import PlanError
from multistep.tasks.baselines import FILE
from multistep.tasks.language.baseline import TERMS, Baseline, joined
from multistep.tasks.language.splits import load_labelled

HARDLY = "3 steps"  # teach a network nothing, where TF-IDF is right of every text
SMALL = ["--set", "model.layers=1", "--set", "model.width=32", "--set", "model.vocabulary=300"]


def trained(folder: Path, data: DataSpec, settings: dict[str, Any], task: str, **more: Any) -> api.Result:
    wanted = plan_from({"task": task, "data": data, "budget": HARDLY, **settings, **more})
    return api.run(wanted, RunDirectory(folder), clock=BudgetClock(FakeClock().now))


def tables(run: Path) -> dict[str, Evaluation]:
    """The baseline's evaluations by split."""
    directory = RunDirectory(run)
    events = [entry.event for entry in read_entries(directory.journal)]
    return {e.split: directory.read_table(e.table) for e in events if isinstance(e, BaselineScored)}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small texts in `data`, and in `run` a run by the command line that hardly trained."""
    folder = tmp_path_factory.mktemp("ships")
    (folder / "data").mkdir()
    language.write_classes(folder / "data")
    given = ["--task", "text-classification", "--data", "data", "--budget", HARDLY, *SMALL]
    out = multistep(folder, "train", *given, "--out", "run")
    assert "\nThe baseline ships, not the network: TF-IDF" in out
    return folder


# Texts, by the command line --------------------------------------------------------------------------


def test_what_leads_on_validation_ships_and_is_said_first(texts: Path) -> None:
    record = json.loads((texts / "run/result.json").read_text(encoding="utf-8"))
    assert (record["ships"], record["model"]) == ("baseline", "baseline")
    validation = record["baseline"]["validation"]["score"]
    of_both = told_apart(METRICS["accuracy"], validation, record["validation"]["score"])
    said = f"{of_both[0]} against the {of_both[1]} expected of the network"
    assert said in record["ships_because"]
    assert {"validation", "test"} <= record["baseline"].keys(), "the test split reports both"
    assert record["test"]["n"] == record["baseline"]["test"]["n"]
    shown = multistep(texts, "show", "run").splitlines()
    assert shown[1] == record["ships_because"]
    told = json.loads(multistep(texts, "show", "run", "--json"))
    assert (told["ships"], told["ships_because"]) == ("baseline", record["ships_because"])
    assert told["model"] == "run/baseline"
    page = (texts / "run/report.html").read_text(encoding="utf-8")
    answer = page[page.index('<section class="answer') :]
    assert answer.index("The baseline ships, not the network") < answer.index("The network is worse than")


def test_it_was_decided_before_the_test_split_was_opened(texts: Path) -> None:
    kinds = [entry.event for entry in read_entries(texts / "run/journal.jsonl")]
    when = next(i for i, event in enumerate(kinds) if isinstance(event, ShipDecided))
    opened = next(i for i, e in enumerate(kinds) if isinstance(e, Evaluated | BaselineScored) and e.split == "test")
    assert when < opened


def test_the_run_answers_as_the_baseline_was_scored(texts: Path) -> None:
    table = tables(texts / "run")["test"]
    found = api.predict(texts / "run", language.class_inputs(texts / "data"))
    record = json.loads((texts / "run/result.json").read_text(encoding="utf-8"))
    assert record["calibration"]["of"] == "baseline"
    assert language.class_agree(found, as_shipped(table, record))
    (one,) = json.loads(multistep(texts, "predict", "run", "what a bore", "--json"))["predictions"]
    assert one["output"] == "bad"
    scores = json.loads(multistep(texts, "evaluate", "run", "--data", "data", "--json"))
    assert scores["scores"]["accuracy"]["score"] == 1.0
    # Of the probabilities that it gives: those of the run's own scores are as they were fitted.
    likely = [p.others[("bad", "good")[int(k)]] for p, k in zip(found, table.columns["label"], strict=True)]
    assert scores["scores"]["loss"]["score"] == pytest.approx(-np.log(likely).mean(), rel=1e-5)
    assert scores["scores"]["loss"]["score"] < float(table.columns["loss"].mean())
    assert sum("ships its baseline" in note for note in scores["notes"]) == 1, "said once, though it is read twice"
    network = json.loads(multistep(texts, "evaluate", "run/model", "--data", "data", "--json"))
    assert network["scores"]["accuracy"]["score"] < 1.0
    again = api.read_result(RunDirectory(texts / "run"))
    assert (again.ships, again.model, again.score) == ("baseline", texts / "run/baseline", 1.0)


def test_the_lines_of_its_usage_run(texts: Path) -> None:
    usage = api.read_result(RunDirectory(texts / "run")).record["usage"].replace("{model}", "'run/baseline'")
    (texts / "use.py").write_text(usage, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "use.py", "a lovely film"]
    done = subprocess.run(command, cwd=texts, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("good 0."), done.stderr


def test_the_network_ships_where_it_is_asked_for(texts: Path) -> None:
    given = ["--task", "text-classification", "--data", "data", "--budget", HARDLY, *SMALL]
    record = json.loads(multistep(texts, "train", *given, "--ship", "network", "--out", "asked", "--json"))
    assert (record["ships"], record["model"]) == ("network", "model")
    assert record["ships_because"].startswith("On validation the baseline leads (TF-IDF")
    assert record["ships_because"].endswith("but the network ships: the plan asks for the network.")
    assert not (texts / "asked/baseline").exists()
    said = api.predict(texts / "asked", ["a lovely film"])
    assert said == api.predict(texts / "asked/model", ["a lovely film"])
    process = start(texts, "train", *given, "--ship", "both")
    _, error = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "ship is 'both'; allowed:" in error


# What the folder holds, and what is refused ----------------------------------------------------------


def test_the_folder_says_what_it_is_and_is_whole(texts: Path) -> None:
    folder = texts / "run/baseline"
    assert whole(folder)
    told = json.loads((folder / "multistep.json").read_text(encoding="utf-8"))
    assert told["task"] == "text-classification"
    assert told["names"] == ["bad", "good"]
    assert "TF-IDF" in told["features"]
    assert {"scikit-learn", "skops"} <= told["versions"].keys()
    assert not list(folder.glob("*.pkl"))


def test_an_untrusted_type_is_refused(texts: Path, tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from skops.io import dump

    folder = copied(texts, tmp_path)
    # What a stranger would like to have called on every text.
    vectorizer = TfidfVectorizer(tokenizer=shutil.rmtree)
    dump({"vectorizer": vectorizer, "model": None}, folder / FILE)
    said = multistep(texts, "predict", str(folder), "what a joy", code=2)
    assert "not loaded, since it holds types that no baseline has: shutil." in said


def test_another_model_of_trusted_types_is_refused_too(texts: Path, tmp_path: Path) -> None:
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from skops.io import dump

    folder = copied(texts, tmp_path)
    dump({"vectorizer": TfidfVectorizer(), "model": DummyClassifier()}, folder / FILE)
    with pytest.raises(PlanError, match="its model is a DummyClassifier; allowed: LogisticRegression"):
        api.predict(folder, ["what a joy"])
    dump([1], folder / FILE)
    with pytest.raises(PlanError, match="does not hold vectorizer and model"):
        api.predict(folder, ["what a joy"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / FILE).write_bytes(b"no archive"), "damaged"),
        (lambda folder: (folder / FILE).unlink(), "no such file"),
        (lambda folder: (folder / TERMS).unlink(), "missing or damaged"),
        (lambda folder: (folder / TERMS).write_text('["a"]'), "holds 1 n-grams where"),
        (
            lambda folder: (folder / "multistep.json").write_text('{"task": "text-classification", "baseline": "x"}'),
            "'labels' is missing",
        ),
    ],
)
def test_a_damaged_folder_is_told(texts: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = copied(texts, tmp_path)
    spoil(folder)
    with pytest.raises(PlanError, match=message):
        api.predict(folder, ["what a joy"])


def test_a_run_without_its_baseline_names_the_network(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/baseline")
    with pytest.raises(PlanError, match=r"ships its baseline, but .* is missing; .*model for the network"):
        api.predict(tmp_path / "run", ["what a joy"])


def copied(texts: Path, folder: Path) -> Path:
    return Path(shutil.copytree(texts / "run/baseline", folder / "baseline"))


# The other labels, and images ------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "write", "inputs", "agree"), language.CLASSIFICATIONS[1:])
def test_several_labels_and_numbers_ship_as_well(
    tmp_path: Path, name: str, write: Any, inputs: Any, agree: Any
) -> None:
    result = trained(tmp_path / "run", write(tmp_path), language.SETTINGS, "text-classification")
    assert result.ships == "baseline", result.record["ships_because"]
    shipped = as_shipped(tables(tmp_path / "run")["test"], result.record)
    assert agree(api.predict(tmp_path / "run", inputs(tmp_path)), shipped)
    scores = api.evaluate(tmp_path / "run", str(next(tmp_path.glob("test.*"))))["scores"]
    assert scores[result.metric]["score"] == pytest.approx(METRICS[result.metric].score(shipped), rel=1e-6)


def test_a_class_that_every_text_has_is_saved_too(tmp_path: Path) -> None:
    for split, count in language.SIZES.items():
        rows = [{"text": t, "labels": ["text", *(["good"] if y else [])]} for t, y in language.opinions(count, 0)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    splits = load_labelled(language._spec(tmp_path, "jsonl"))
    fitted = Baseline.fit(splits.train, splits.labels)
    (tmp_path / "b").mkdir()
    assert fitted.write(tmp_path / "b", "text-classification") == ""
    read = Baseline.read(str(tmp_path / "b"))
    assert np.array_equal(read.says(joined(splits.test)), fitted.says(joined(splits.test)))


def test_images_ship_the_pixels_model(tmp_path: Path) -> None:
    data = images.write(tmp_path)
    result = trained(tmp_path / "run", data, images.SETTINGS, "image-classification")
    assert result.ships == "baseline", result.record["ships_because"]
    found = api.predict(tmp_path / "run", images.inputs(tmp_path))
    assert images.agree(found, as_shipped(tables(tmp_path / "run")["test"], result.record))
    scores = api.evaluate(tmp_path / "run", str(tmp_path / "images/test"))["scores"]
    assert scores["accuracy"]["score"] == result.score
    told = json.loads((tmp_path / "run/baseline/multistep.json").read_text(encoding="utf-8"))
    assert (told["labels"], told["height"], told["channels"]) == (list(images.SHAPES), images.SIDE, 3)


# Where it cannot ship, and after a kill --------------------------------------------------------------


def test_without_skops_the_network_ships_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skops.io", None)
    result = trained(tmp_path / "run", language.write_classes(tmp_path), language.SETTINGS, "text-classification")
    assert result.ships == "network"
    assert "saving it safely needs skops" in result.record["ships_because"]
    assert "pip install 'multistep[language]'" in result.record["ships_because"]
    assert not (tmp_path / "run/baseline").exists()
    assert not list((tmp_path / "run").glob(".baseline*"))


def test_a_task_whose_baseline_has_no_form_says_that_it_leads(tmp_path: Path) -> None:
    small = {"model": {"layers": 1, "width": 16, "context": 16, "tokenizer": "characters"}}
    result = trained(tmp_path / "run", _texts(tmp_path), small, "text-generation")
    assert (result.ships, result.model.name) == ("network", "model")
    assert result.record["ships_because"].startswith("On validation the baseline leads (")
    assert result.record["ships_because"].endswith("a baseline of this task cannot be saved as a model.")


def test_killed_before_or_after_the_decision_it_ships_the_same(tmp_path: Path) -> None:
    data = language.write_classes(tmp_path)
    wanted = plan_from({"task": "text-classification", "data": data, "budget": HARDLY, **language.SETTINGS})

    def run(folder: Path, kill_at: type[Any] | None = None) -> api.Result:
        def on_entry(entry: Entry, _history: History) -> None:
            if kill_at and isinstance(entry.event, kill_at) and getattr(entry.event, "split", "test") == "test":
                raise Killed

        return api.run(wanted, RunDirectory(folder), clock=BudgetClock(FakeClock().now), on_entry=on_entry)

    whole_run = run(tmp_path / "whole")
    for number, kind in enumerate((ShipDecided, BaselineScored)):
        with pytest.raises(Killed):
            run(tmp_path / f"{number}", kind)
        again = run(tmp_path / f"{number}")
        assert again.record["ships_because"] == whole_run.record["ships_because"]
        inputs = language.class_inputs(tmp_path)
        assert api.predict(again.folder, inputs) == api.predict(whole_run.folder, inputs)


# The rule --------------------------------------------------------------------------------------------


def test_equal_scores_leave_the_network_and_the_metrics_goal_counts(tmp_path: Path) -> None:
    history = execute(plan(budget="20s"), tmp_path / "run", OVERFITS)
    assert history.leader is not None
    network = history.trial(history.leader.trial).full
    assert network is not None

    def with_baseline(score: float) -> History:
        first = history.baselines[0]
        scored = replace(first, split="validation", interval=replace(first.interval, score=score))
        return replace(history, baselines=(scored,))

    asked = plan(budget="20s")
    own = network.interval.score
    assert decided(asked, with_baseline(own), "").ships == "network"
    assert decided(asked, with_baseline(own - 0.01), "").ships == "baseline", "a lower loss is better"
    assert decided(asked, with_baseline(own + 0.01), "").ships == "network"
    assert decided(asked, with_baseline(float("nan")), "").ships == "network"
    assert decided(plan(budget="20s", ship="network"), with_baseline(own - 0.01), "").ships == "network"
    assert decided(asked, with_baseline(own - 0.01), "for a reason").reason.endswith("ships: for a reason.")
    assert decided(asked, replace(history, baselines=()), "").ships == "network"
    assert fold([Entry(ShipDecided("baseline", "x"))]).shipping == ShipDecided("baseline", "x")
