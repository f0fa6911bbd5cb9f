"""Plans from files, settings and keywords; and what is said about those that are wrong."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from multistep import api, cli
from multistep.cli import training
from multistep.core.evidence.metric import METRICS
from multistep.core.values.units import Amount, Unit
from multistep.engine.costs import Cost, network_of, remember
from multistep.engine.origins import as_option
from multistep.engine.plancheck import JUDGED_BY
from multistep.engine.planfile import plan_from, read_plan, read_with_origins, to_yaml
from multistep.engine.rundir import plan_hash
from multistep.errors import PlanError
from multistep.report import check
from multistep.report.check import check_plan, print_check, print_cost

HEAD = "task: text-generation\ndata: corpus.txt\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_plan_is_read_and_written_back_equal(tmp_path: Path) -> None:
    text = """
task: text-generation
data: {train: a.txt, validation: b.txt}
model: {name: nanochat, width: 64, tokenizer: characters}
metric: bits_per_byte
budget: 1h30m
seed: 3
tolerance: 0.01
recipe: {optimizer: adamw, learning_rate: 5e-5, betas: [0.9, 0.95]}
phases:
  - {name: warm, until: 3 epochs, recipe: {frozen: ["embedding*"]}}
  - {until: stable}
"""
    plan = read_plan(written(tmp_path, text))
    assert plan.budget == Amount(5400.0, Unit.SECONDS)
    assert plan.phase(0).recipe == {
        "optimizer": "adamw",
        "learning_rate": 5e-5,
        "betas": (0.9, 0.95),
        "frozen": ("embedding*",),
    }
    assert plan.phase(1).name == "phase 2"
    again = read_plan(written(tmp_path, to_yaml(plan)))
    assert again == plan
    assert plan_hash(again) == plan_hash(plan)


def test_plans_that_name_nothing_new_have_the_hash_that_they_always_had() -> None:
    """Runs begun before candidates, conversations and guards, can be resumed."""
    given: dict[str, Any] = {"task": "text-generation", "data": "x.txt", "budget": "60s"}
    assert plan_hash(plan_from(given)) == "16b25c8c3d56"
    phases: list[dict[str, Any]] = [{"name": "a", "until": "30s"}, {"name": "b", "data": "y.txt"}]
    assert plan_hash(plan_from({**given, "phases": phases})) == "96e59783d2c8"
    told = plan_hash(plan_from({**given, "data": {"source": "x.txt", "train_on": "all"}}))
    guarded = plan_hash(plan_from({**given, "phases": [phases[0], {**phases[1], "guard": {"data": "z.txt"}}]}))
    assert len({told, guarded, "16b25c8c3d56", "96e59783d2c8"}) == 4


def test_how_tables_are_read_is_said_in_the_plan(tmp_path: Path) -> None:
    """Delimiters are typed as they are or by name, also where YAML means something by them; each way gives one plan."""
    plain = read_plan(written(tmp_path, HEAD))
    assert (plain.data.delimiter, plain.data.header, plain.data.encoding, plain.data.root) == (None, None, None, None)
    assert plain.data.class_weights == "none"
    for typed, meant in ((r"\t", "\t"), ("tab", "\t"), ("\t", "\t"), ("|", "|"), (",", ","), (";", ";"), ("~", "~")):
        plan = read_plan(written(tmp_path, HEAD), [f"data.delimiter={typed}", "data.header=no", "data.encoding=cp1252"])
        assert (plan.data.delimiter, plan.data.header, plan.data.encoding) == (meant, False, "cp1252")
        assert read_plan(written(tmp_path, to_yaml(plan))) == plan
    group = "task: image-classification\ndata:\n  source: a.csv\n  root: photos\n  class_weights: balanced\n"
    assert read_plan(written(tmp_path, group)).data.root == "photos"
    assert plan_hash(read_plan(written(tmp_path, group))) != plan_hash(
        read_plan(written(tmp_path, group[:-9] + "none"))
    )
    wrong = {
        "delimiter: '||'": r"plan.yaml:4: delimiter is '\|\|'; allowed: one character .* or its name: tab, comma",
        "delimiter: a": "plan.yaml:4: delimiter is 'a'",
        "encoding: utf8-sg": r"plan.yaml:4: encoding is 'utf8-sg'; allowed: .*\. Did you mean 'utf-8-sig'\?",
        "encoding: base64": "plan.yaml:4: encoding is 'base64'",
        "header: perhaps": "plan.yaml:4: data.header is 'perhaps'; allowed: true or false",
        "class_weights: balance": r"allowed: 'none', 'balanced'\. Did you mean 'balanced'\?",
    }
    for line, said in wrong.items():
        with pytest.raises(PlanError, match=said):
            read_plan(written(tmp_path, f"task: text-classification\ndata:\n  source: a.csv\n  {line}\n"))


def test_lengths_are_read_as_people_write_them_and_else_told_how() -> None:
    def budget(given: object) -> Amount:
        found = plan_from({"task": "text-generation", "data": "x.txt", "budget": given}).budget
        assert found is not None
        return found

    for given, seconds in (
        ("10 minutes", 600),
        ("1h30m", 5400),
        ("90 sec", 90),
        ("2 hours", 7200),
        ("1 hr 5 mins", 3900),
        ("1 day", 86400),
        (timedelta(minutes=10), 600),
    ):
        assert budget(given) == Amount(float(seconds), Unit.SECONDS)
    for wrong, said in (
        (
            20,
            r"the amount '20' has no unit; allowed: '20s' \(seconds\), '20m' \(minutes\), '20h' .*, '20 steps', '20 ep",
        ),
        ("half an hour", "Did you mean '30m'\\?"),
        ("an hour and a half", "Did you mean '1h30m'"),
        ("1 hour and 30 minutes", "Did you mean '1h30m'"),
        ("twenty minutes", "Did you mean '20m'"),
        ("1,000 steps", "Did you mean '1000 steps'"),
        ("1:30:00", "Did you mean '1h30m0s'"),
        ("10:00", "Did you mean '10m0s' or '10h0m'"),
        ("10M", r"Did you mean '10m' \(minutes\) or '10M tokens'"),
        ("10 minuts", "Did you mean '10 minutes'"),
        ("unlimited", "Leave it out for no limit"),
        ("-5m", "is not positive"),
        (timedelta(0), "is not positive"),
    ):
        with pytest.raises(PlanError, match=said):
            budget(wrong)


def test_short_keywords_and_options_stand_for_their_keys(tmp_path: Path) -> None:
    head = {"task": "Text_Generation", "data": "corpus.txt"}
    plan = plan_from(head, over={"lr": 1e-3, "batch_size": 8, "epochs": 3, "optimizer": "adamw"})
    assert plan.task == "text-generation"
    assert plan.recipe == {"learning_rate": 1e-3, "batch_size": 8, "optimizer": "adamw"}
    assert plan.budget == Amount(3.0, Unit.EPOCHS)
    assert plan_from({**head, "recipe": {"dropout": 0.1, "learning_rate": 5.0}}, over={"lr": 2.0}).recipe == {
        "dropout": 0.1,
        "learning_rate": 2.0,
    }
    own = written(tmp_path, HEAD + "phases:\n  - {recipe: {learning_rate: 1e-3}}\n")
    for over, said in (
        (
            {"lr": 0.5},
            r"--lr 0.5: phase 1 has a learning_rate of its own \(0.001\).*--set phases.0.recipe.learning_rate=0.5",
        ),
        ({"epochs": 3, "budget": "10m"}, "--epochs 3 and --budget 10m both set budget"),
        ({"lr": 0.5, "recipe": {"learning_rate": 1.0}}, "--lr 0.5 and recipe both set recipe.learning_rate"),
        ({"batch_size": 0}, "--batch-size 0: batch_size is 0; allowed: at least 1"),
    ):
        with pytest.raises(PlanError, match=said):
            read_plan(own, over=over, named=as_option)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "recipe.lr=1e-3",
            r"unknown key 'lr' in recipe.*It is recipe.learning_rate here: --set recipe.learning_rate=0.001\.",
        ),
        ("learning_rate=1e-3", "unknown key 'learning_rate' in the plan.*It is recipe.learning_rate here"),
        ("recipe.per_device_train_batch_size=8", "--set recipe.batch_size=8"),
        ("recipe.optim=adamw", r"Did you mean 'optimizer'\?"),
        ("recipe.optimiser=adamw", r"Did you mean 'optimizer'\?"),
        ("num_train_epochs=5", "A length is a budget here: --budget '5 epochs'"),
        ("recipe.max_steps=100", "--budget '100 steps'"),
        ("phases.0.epochs=5", "The length of a phase is its until: 5 epochs"),
        ("data.label=verdict", "It is data.label_column here: --set data.label_column=verdict"),
        ("layers=2", "It is model.layers here"),
        ("device=cpu", "--device cpu"),
        ("recipe.gradient_accumulation_steps=4", "An optimizer step takes recipe.batch_size examples"),
        ("recipe.lerning_rate=1", "Did you mean 'learning_rate'"),
    ],
)
def test_names_of_other_trainers_are_told_what_they_are_called_here(tmp_path: Path, typed: str, said: str) -> None:
    plan = written(tmp_path, "task: text-generation\ndata: {source: corpus.txt}\nphases: [{name: a}]\n")
    with pytest.raises(PlanError, match=said):
        read_plan(plan, [typed])
    key = typed.partition("=")[0]
    if "." not in key:  # in a file, the same in the words of a file
        with pytest.raises(PlanError, match=r"plan.yaml:3: unknown key") as error:
            read_plan(written(tmp_path, HEAD + typed.replace("=", ": ")))
        assert "--set" not in str(error.value)


def test_tasks_and_plans_that_are_called_otherwise(tmp_path: Path) -> None:
    for task, said in (("asr", "speech-recognition"), ("sentiment", "text-classification"), ("mlm", "fill-mask")):
        with pytest.raises(PlanError, match=f"unknown task '{task}'.*Did you mean '{said}'"):
            plan_from({"task": task, "data": "x"})
    (tmp_path / "reviews.csv").write_text("text,label\na,b\n")
    with pytest.raises(
        PlanError, match=r"is not a plan file \(YAML\); if it holds data, name it with --data .*reviews.csv"
    ):
        read_plan(tmp_path / "reviews.csv")
    written(tmp_path, HEAD)
    with pytest.raises(PlanError, match=r"no such file; .* Did you mean 'plan.yaml'\?"):
        read_plan(tmp_path / "plam.yaml")


def test_options_of_train_and_those_of_other_trainers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def typed(*words: str) -> Any:
        taken.clear()
        cli.app(["train", "--task", "text-generation", "--data", "x.txt", *words], standalone_mode=False)
        return taken[0]

    taken: list[Any] = []
    monkeypatch.setattr(training, "_train", lambda plan, *_: taken.append(plan))
    monkeypatch.delenv("MULTISTEP_DEVICE", raising=False)
    plan = typed("--lr", "1e-3", "--batch-size", "8", "--epochs", "3", "--optimizer", "adamw", "--seed", "4")
    assert plan.recipe == {"learning_rate": 1e-3, "batch_size": 8, "optimizer": "adamw"}
    assert (plan.budget, plan.seed) == (Amount(3.0, Unit.EPOCHS), 4)
    assert typed("--steps", "20").budget == Amount(20.0, Unit.STEPS)
    assert typed("--learning-rate", "0.5").recipe == {"learning_rate": 0.5}
    for words, said in (
        (["--num_train_epochs=5"], "--num_train_epochs: no such option; .*--budget '5 epochs'"),
        (["--per-device-train-batch-size", "8"], "--set recipe.batch_size=8"),
        (["--weight-decay", "0.1"], "--set recipe.weight_decay=0.1"),
        (["--dataset", "y.csv"], "it is data here: --data y.csv"),
        (["--val", "y.csv"], "--set data.validation=y.csv"),
        (["--output_dir", "o"], "--out DIR"),
    ):
        with pytest.raises(PlanError, match=said):
            typed(*words)


def test_settings_override_the_file_and_short_forms_grow(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "phases: [{name: a, until: 3 epochs}]\n")
    plan = read_plan(
        path, ["recipe.learning_rate=1e-3", "phases.0.until=20 steps", "data.text_column=body", "budget=5m"]
    )
    assert plan.recipe == {"learning_rate": 1e-3}
    assert plan.phases[0].until == Amount(20.0, Unit.STEPS)
    assert plan.data.source == "corpus.txt"
    assert plan.data.text_column == "body"
    assert plan.timed


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        (
            "recipe: {optimiser: x}",
            ":3: unknown key 'optimiser' in recipe; allowed: optimizer, .*Did you mean 'optimizer'",
        ),
        ("recipe:\n  optimizer: adamww", ":4: recipe.optimizer is 'adamww'; allowed: .*Did you mean 'adamw'"),
        ("recipe:\n  learning_rate: fast", ":4: recipe.learning_rate is 'fast'"),
        ("recipe:\n  dropout: 1.5", ":4: dropout is 1.5; allowed: at least 0 and less than 1"),
        ("budget: 3 stps", ":3: budget: cannot read the amount '3 stps'; .*Did you mean '3 steps'"),
        ("budget: 10", ":3: budget: the amount '10' has no unit"),
        ("metric: los", ":3: unknown metric 'los'; allowed: loss, .*Did you mean 'loss'"),
        ("seed: -1", ":3: seed is -1"),
        ("tolerance: 0", ":3: tolerance is 0"),
        ("phases:\n  - nme: x", ":4: unknown key 'nme' in phases.0; .*Did you mean 'name'"),
        ("phases: 3", ":3: phases is 3"),
        ("model: {layers: many}", ":3: model.layers is 'many'"),
        ("buget: 3m", ":3: unknown key 'buget' in the plan; .*Did you mean 'budget'"),
        ("recipe: [", r":\d: not YAML"),
        ("seed: !!int x", ": not YAML: invalid literal"),
        ("budget: stable", r":3: budget: cannot read the amount 'stable'; allowed: [^;]*tokens'\.$"),
        ("phases: [{until: 10}]", r":3: until: .* '10 steps', '10 epochs', or any of .*'2M tokens', 'stable'$"),
        ("phases: [{until: stabel}]", r":3: until: .*, 'stable'\. Did you mean 'stable'\?$"),
        ("model: 3", r":3: model is 3; allowed: auto, scratch, a preset, a folder or a hub id; or a list of these, "),
        ("phases: [x]", r":3: phases.0 is 'x'; allowed: a group of name, task, data, "),
        ("phases: 3", r":3: phases is 3; allowed: a list of groups of name, "),
        ("recipe: 3", r":3: recipe is 3; allowed: a group of settings: optimizer, "),
        ("recipe: {frozen: emb}", r":3: recipe.frozen is 'emb'; allowed: a list of patterns of parameter names, "),
        ("recipe: {betas: [0.9]}", r":3: recipe.betas is \[0.9\]; allowed: a list of 2 numbers\."),
        ("recipe: {nesterov: 3}", r":3: recipe.nesterov is 3; allowed: true or false\."),
        ("recipe: {micro_batch: few}", r":3: recipe.micro_batch is 'few'; allowed: a whole number or 'auto'\."),
        ("recipe: {micro_batch: 0}", r":3: micro_batch is 0; allowed: at least 1"),
        ("recipe: {compile: maybe}", r":3: recipe.compile is 'maybe'; allowed: true or false or 'auto'\."),
        ("recipe: {batch_size: 3.5}", r":3: recipe.batch_size is 3.5; allowed: a whole number\."),
        (
            "metric: wer",
            r":3: metric 'wer' cannot be measured for text-generation; allowed: loss, perplexity, bits_per_byte, ex",
        ),
        (
            "phases:\n  - {until: 3s}\n  - {metric: acc}",
            r":5: metric 'accuracy' cannot be measured for text-generation",
        ),
        ("metric: acc\nphases:\n  - {until: 3s}", r":3: metric 'accuracy' cannot be measured for text-generation"),
        ("data: {validation: x}", ":3: not YAML|data names either"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_a_remedy(tmp_path: Path, addition: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_plan(written(tmp_path, HEAD + addition + "\n"))


def test_what_a_plan_needs_is_said() -> None:
    with pytest.raises(PlanError, match="'data' is missing"):
        plan_from({"task": "text-generation"})
    with pytest.raises(PlanError, match=r"unknown task 'text-gen'.*Did you mean 'text-generation'"):
        plan_from({"task": "text-gen", "data": "x"})
    with pytest.raises(PlanError, match=r"--set nonsense: allowed: key.path=value"):
        plan_from({"task": "text-generation", "data": "x"}, settings=["nonsense"])


def test_merged_keys_count_and_settings_of_nothing_are_none(tmp_path: Path) -> None:
    text = """
phases:
  - {until: 10 steps, recipe: &first {dropout: 0.1, learning_rate: null}}
  - {until: 10 steps, recipe: {<<: *first, optimizer: sgd}}
recipe: {batch_size: null, learning_rate: 0.5}
"""
    plan = read_plan(written(tmp_path, HEAD + text), ["recipe.learning_rate="])
    assert [plan.phase(i).recipe for i in (0, 1)] == [{"dropout": 0.1}, {"optimizer": "sgd", "dropout": 0.1}]
    with pytest.raises(PlanError, match=r"plan.yaml:5: dropout is 3; allowed"):
        read_plan(written(tmp_path, HEAD + text.replace("0.1", "3")))
    given = {"task": "text-generation", "data": Path("x"), "phases": ({"until": "3s"}, {"name": None, "recipe": None})}
    assert [phase.name for phase in plan_from(given).phases] == ["phase 1", "phase 2"]


def test_what_is_laid_over_a_file_is_taken_as_it_is_and_blamed_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "budget: 10m\nrecipe: {optimizer: sgd}\n")
    for name in ("notes #1.txt", "[x].txt", "my: file.txt", "2024", "null", "'quoted'", "a  b " * 30 + "c"):
        plan = read_plan(path, over={"data": name, "metric": None, "budget": None})
        assert (plan.data.source, plan.metric, plan.budget) == (name, None, Amount(600.0, Unit.SECONDS))
        again = written(tmp_path, to_yaml(plan))
        assert read_plan(again) == plan
        path = written(tmp_path, HEAD + "budget: 10m\nrecipe: {optimizer: sgd}\n")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"over": {"budget": "3 stps"}, "named": as_option}, "--budget 3 stps: budget: cannot read the amount"),
        ({"over": {"seed": -1}}, "seed=-1: seed is -1; allowed"),
        ({"settings": ["recipe.optimizer=adamww"]}, "--set recipe.optimizer=adamww: recipe.optimizer is 'adamww'; "),
        ({"settings": ["recipe={optimizer: adamww}"]}, "--set recipe={optimizer: adamww}: recipe.optimizer is"),
        ({"settings": ["recipe.dropout=1.5"]}, "--set recipe.dropout=1.5: dropout is 1.5; allowed"),
        ({"settings": ["metric=los"]}, "--set metric=los: unknown metric 'los'; "),
        ({"settings": ["recipe.optimzer=x"]}, "--set recipe.optimzer=x: unknown key 'optimzer' in recipe; "),
    ]
    for given, message in cases:
        with pytest.raises(PlanError) as caught:
            read_plan(path, **given)
        assert str(caught.value).startswith(message)
    listed = written(tmp_path, HEAD + "phases: [x]\n")
    with pytest.raises(PlanError, match=r"^--set phases.0.until=3s: '0' holds a value, not a group of settings$"):
        read_plan(listed, ["phases.0.until=3s"])


def test_python_takes_a_mapping_for_a_plan_and_refuses_other_things(tmp_path: Path) -> None:
    for plan, message in (
        ({"task": "text-generation", "data": "x", "metric": "wer"}, "^plan: metric 'wer' cannot be measured for"),
        (3, "^plan is 3; allowed: the path of a plan file, a mapping, or keywords alone$"),
    ):
        with pytest.raises(PlanError, match=message):
            api.train(plan)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"^budget='x': budget: cannot read"):
        api.train({"task": "text-generation", "data": "x"}, budget="x", metric=None)
    with pytest.raises(PlanError, match=r"^budget: a plan cannot be changed; make another with dataclasses.replace$"):
        api.train(plan_from({"task": "text-generation", "data": "x"}), budget="3s", metric=None)


def test_a_task_is_judged_by_what_its_code_says() -> None:
    from multistep.tasks.classes import class_metrics
    from multistep.tasks.labelled.loss import NUMBER_METRICS, SEVERAL_METRICS
    from multistep.tasks.language.mask import METRICS as MASK_METRICS
    from multistep.tasks.speech.task import USUAL_METRICS

    classes = {*class_metrics(2), *class_metrics(6)}
    labelled = classes | {*NUMBER_METRICS, *SEVERAL_METRICS}
    assert set(JUDGED_BY["image-classification"]) == set(JUDGED_BY["text-classification"]) == labelled
    assert set(JUDGED_BY["fill-mask"]) == set(MASK_METRICS)
    assert set(JUDGED_BY["speech-recognition"]) == set(USUAL_METRICS)
    own = {"pixel_accuracy", "token_accuracy", "mean_iou", "dice"}  # of modules of one's own, which have no list
    assert {name for names in JUDGED_BY.values() for name in names} == set(METRICS) - own


# check and simulate ---------------------------------------------------------------------------------


def test_check_takes_what_train_takes_and_names_the_line_of_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("text", encoding="utf-8")
    for source in ("~/x.txt", "x.txt", "org/name-1.1", "name", "org/name:part", "python-manual"):
        path = written(tmp_path, f"task: text-generation\ndata: {source}\n")
        assert check_plan(*read_with_origins(path))["phases"][0]["data"] == source
    for text, message in (
        ("data: ~/y.txt", ":2: data: ~/y.txt: no such file or folder"),
        ("data: ~nobody-at-all/y.txt", ":2: data: ~nobody-at-all/y.txt: no such"),
        ("data: xx.txt", r":2: data: xx.txt: no such .* Did you mean 'x.txt'\?$"),
        ("data: " + "x" * 300 + ".txt", ":2: data: xxx"),
        ("data:\n  train: x.txt\n  test: /y", ":4: data: /y: no such"),
        ("data: x.txt\nphases:\n  - {until: 3s}\n  - {data: ./z}", ":5: data: ./z: no such"),
    ):
        with pytest.raises(PlanError, match=message):
            check_plan(*read_with_origins(written(tmp_path, f"task: text-generation\n{text}\n")))


def test_check_shows_names_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foo[bar].txt").write_text("text", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    monkeypatch.setattr(check, "Console", lambda: Console(file=out, width=200))
    phase = {"name": "[/b] x", "until": "3 steps", "recipe": {"frozen": ["[a-z]*"]}}
    print_check(check_plan(plan_from({"task": "text-generation", "data": "foo[bar].txt", "phases": [phase]})))
    row = next(line for line in out.getvalue().splitlines() if "[/b] x" in line and "│" in line)
    assert [cell.strip() for cell in row.split("│")[1:3]] == ["[/b] x", "foo[bar].txt"]
    assert "[a-z]*" in row


@pytest.mark.parametrize(
    ("keywords", "seconds"),
    [
        ({"phases": [{"until": "1000 steps"}]}, 125.0),  # 10 steps a second, 80% of the time in training
        ({"phases": [{"until": "1000 steps"}], "budget": "1m"}, 60.0),
        ({"phases": [{"until": "200 steps"}, {"until": "10s"}], "budget": "1m"}, 35.0),
        ({"phases": [{"until": "1000 steps"}, {"until": "stable"}], "budget": "1m"}, 60.0),
        ({"phases": [{"until": "1000 steps"}], "budget": "400 steps"}, 50.0),
        ({"phases": [{"until": "1000 steps"}, {"until": "stable"}]}, None),
        ({"phases": [{"until": "3 epochs"}], "budget": "1m"}, None),
    ],
)
def test_the_cost_that_check_tells_stays_within_the_budget(keywords: dict[str, Any], seconds: float | None) -> None:
    plan = plan_from({"task": "text-generation", "data": "x", **keywords})
    remember(Cost("text-generation", 1000, "here", 5000.0, 10.0, 100.0, 0.8, network_of(plan)))
    assert check_plan(plan)["cost"].get("seconds") == seconds


def test_the_cost_of_another_network_is_not_taken_for_that_of_this_one(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"task": "text-generation", "data": "x", "budget": "1m"}
    known = plan_from({**given, "model": "gpt2"})
    remember(Cost("text-generation", 1000, "here", 5000.0, 10.0, 100.0, 0.8, network_of(known)))
    assert check_plan(known)["cost"]["steps"] == 480
    for other in ({"model": "llama"}, {"model": {"name": "gpt2", "layers": 12}}, {"data": "y", "model": "auto"}):
        found = check_plan(plan_from({**given, **other}))
        assert "steps" not in found["cost"]
        print_cost(found["cost"])
        said = " ".join(capsys.readouterr().out.split())
        assert (
            "cost: unknown; the last run of this task here trained another network (1,000 parameters, 10 steps" in said
        )


def test_simulate_judges_by_loss_what_has_no_other_score(tmp_path: Path) -> None:
    plan = plan_from({"task": "text-classification", "data": "x", "metric": "accuracy", "budget": "300 steps"})
    outcomes, note = api.simulate(plan)
    assert note == "judged by loss, since simulated learners have no accuracy"
    assert [o.stopped for o in outcomes if o.family == "power_law"] == ["budget"]
    assert api.simulate(plan_from({"task": "text-generation", "data": "x", "budget": "300 steps"}))[1] is None


def test_check_simulate_and_report_need_no_torch(tmp_path: Path) -> None:
    """On a machine without torch a plan can be checked: importing it there fails."""
    (tmp_path / "corpus.txt").write_text("text\n" * 100, encoding="utf-8")
    path = written(tmp_path, HEAD + "budget: 2m\n")
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'tokenizers', 'datasets'): sys.modules[name] = None\n"
        "from multistep.cli import app\n"
        f"app([*sys.argv[1:], {str(path)!r}, '--json'], standalone_mode=False)\n"
        "import multistep.report.page, multistep.report.table, multistep.report.live\n"
    )
    for verb in ("check", "simulate"):
        found = subprocess.run(
            [sys.executable, "-c", script, verb],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith("{")
        if verb == "check":
            assert json.loads(found.stdout)["run_unknown"].endswith("is not installed here")


def test_shares_of_splits_are_numbers_where_a_file_may_stand() -> None:
    given = {"task": "text-classification", "data": {"source": "a.csv", "validation": 0.2, "test": 0}}
    plan = plan_from(given)
    assert plan.data.shares == {"validation": 0.2, "test": 0.0}
    assert plan_from(
        {"task": "text-classification", "data": "a.csv"}, settings=["data.validation=0.3"]
    ).data.shares == {"validation": 0.3}
    for data, message in (
        ({"source": "a.csv", "validation": 1.5}, "data.validation is 1.5; allowed: more than 0 and less than 1"),
        ({"source": "a.csv", "validation": 0.6, "test": 0.4}, "take 1 of train"),
        ({"train": "a.csv", "validation": "b.csv", "validation_share": 0.1}, "data.validation names b.csv"),
        ({"train": "a.csv", "validation": 0.1, "validation_share": 0.1}, "give one of them"),
    ):
        with pytest.raises(PlanError, match=re.escape(message)):
            plan_from({"task": "text-classification", "data": data})
