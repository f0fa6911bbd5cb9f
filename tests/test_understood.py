"""What a run understood of its data and model: the same words in the terminal, the journal and resolved.json."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from commands import multistep
from corpora import english

from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts
from multistep.core.values.understood import Part, Understood, classes_in_words
from multistep.core.values.units import Amount, Unit
from multistep.data.names import NO_TEST
from multistep.engine.costs import Cost, network_of, remember
from multistep.engine.planfile import plan_from
from multistep.tasks.reckoned import expected_words
from multistep.tasks.understood import _budget, by_topic, licence, of_files


def reviews(folder: Path) -> None:
    """60 rows of two classes, one text in two splits, two rows that cannot be used."""
    rows = [f"train,{'fine' if i % 3 else 'bad'} film number {i},{'good' if i % 3 else 'bad'}" for i in range(48)]
    rows += [f"validation,{'fine' if i % 3 else 'bad'} seat {i},{'good' if i % 3 else 'bad'}" for i in range(9)]
    rows += ["validation,bad film number 0,bad", "train,,good", "train,a film,"]
    (folder / "reviews.csv").write_text("\n".join(["split,review,label", *rows]) + "\n", encoding="utf-8")


def test_a_dry_run_says_what_was_understood_and_leaves_nothing(tmp_path: Path) -> None:
    reviews(tmp_path)
    arguments = ["train", "--task", "text-classification", "--data", "reviews.csv", "--model", "scratch"]
    before = sorted(tmp_path.iterdir())
    said = multistep(tmp_path, *arguments, "--budget", "30s", "--dry-run", columns=70)
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == before
    assert max(map(len, said.splitlines())) <= 70
    told = dict(re.findall(r"^(\S.{9})  (.*(?:\n {12}.*)*)", said, flags=re.M))
    told = {name.strip(): " ".join(text.split()) for name, text in told.items()}
    assert told["task"] == "text-classification, judged by accuracy"
    assert "text from column 'review', label from 'label'" in told["columns"]
    assert told["classes"] == "2 in training: good 32, bad 16"
    assert told["splits"].startswith("train 48 examples, validation 10 examples, no test split")
    assert "1 of 10 texts stand word for word in train" in told["duplicates"]
    assert "no text: 1" in told["left out"]
    assert "no label: 1" in told["left out"]
    assert told["weights"] == "from nothing (drawn at random)"
    held = r"about [\d,]+ steps, [\d,.]+ epochs, beside scoring, by steps that were timed: [\d,.]+ examples a second"
    assert re.match(held, told["expected"])
    assert told["training"].startswith("64 examples a step")
    assert "from nothing: 30s are too few" not in said, "where --model says so, nothing was decided"


def test_splits_in_files_of_their_own_can_be_named_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(english(400), encoding="utf-8")
    (tmp_path / "b.txt").write_text(english(60, seed=5), encoding="utf-8")
    given = ["train", "--task", "text-generation", "--budget", "20 steps", "--dry-run"]
    said = multistep(tmp_path, *given, "--set", "data.train=a.txt", "--set", "data.validation=b.txt")
    assert re.search(r"^data +a\.txt, b\.txt$", said, re.M)
    refused = multistep(tmp_path, *given, "--set", "data.encoding=latin-1", code=2)
    assert "data names either one source, or train (and validation, test) files" in refused


def test_what_several_files_of_a_folder_have_in_common_is_said_once() -> None:
    columns, lost = "conversations from 'prompt', 'completion'", "rows left out, an empty turn: 1 of 20 (first: row 3)"
    notes = [
        f"/data/chats/train.jsonl: {columns}",
        f"/data/chats/train.jsonl: {lost}",
        f"/data/chats/test.jsonl: {columns}",
    ]
    said = [f"train.jsonl, test.jsonl: {columns}", f"train.jsonl: {lost}", "splits are the files: 2"]
    assert of_files([*notes, "/data/chats: splits are the files: 2"], "/data/chats") == said
    assert of_files(["a.csv: text from column 'x'", "elsewhere.csv: 1"], "a.csv") == [
        "text from column 'x'",
        "elsewhere.csv: 1",
    ]


def test_what_cannot_be_reckoned_is_expected_to_go_as_the_last_run_of_it_went() -> None:
    """Of a user's own module, or of a bag of n-grams, nobody knows beforehand what a step costs."""
    facts = Facts(4_000, 1_000, 1, 100, 100, 0, False, "x86_64", "bag")
    named = {"task": "text-classification", "data": "reviews.csv", "model": "scratch"}
    wanted = plan_from({**named, "recipe": {"model": "bag"}, "budget": "60s"})
    recipe = Recipe(batch_size=64)
    assert not expected_words(facts, recipe, None, wanted), "none was run"
    remember(Cost(wanted.task, 4_000, "x86_64", 640.0, 10.0, 20.0, 0.5, network_of(wanted)))
    assert expected_words(facts, recipe, None, wanted) == (
        "about 300 steps, 19 epochs, with what is tried, as the last run of it here did 10 steps a second"
    )
    assert not expected_words(replace(facts, parameters=5_000), recipe, None, wanted), "that is another network"
    assert not expected_words(facts, recipe, None, replace(wanted, budget=Amount(9.0, Unit.STEPS)))


def test_a_run_keeps_in_its_record_what_it_said(tmp_path: Path) -> None:
    reviews(tmp_path)
    multistep(
        tmp_path,
        *("train", "--task", "text-classification", "--data", "reviews.csv", "--model", "scratch"),
        *("--budget", "8 steps", "--set", "recipe.model=bag", "--out", "run"),
    )
    phase = json.loads((tmp_path / "run" / "resolved.json").read_text(encoding="utf-8"))["phases"][0]
    found = phase["facts"]["understood"]
    assert found["classes"] == {"bad": 16, "good": 32}
    assert [(part["name"], part["size"]) for part in found["splits"][:2]] == [("train", 48), ("validation", 10)]
    assert found["budget"] == "8 steps"


def test_notes_are_sorted_by_what_they_are_about() -> None:
    """Notes as the readers write them; what is of no topic stays a note."""
    notes = {
        "columns": ["text from column 'sentence', label from 'label' (of 'sentence', 'label')"],
        "cut": ["a.csv: cut into train 48, validation 6, test 6 rows"],
        "duplicates": ["test: 2 of 9 sounds are in train too (first: x.wav); on these it measures memory"],
        "left_out": [
            "a.csv: rows left out because they have no text: 1 (a.csv:4)",
            "train: 1 of 8 rows cannot be used: 1 no such file (first: a.csv:4: x.wav)",
            "test: test.csv has no column of labels beside 'id', so it is left aside",
        ],
        "notes": ["always saying '1', the most frequent class of train, is right 50.9% of validation"],
    }
    assert by_topic(note for some in notes.values() for note in some) == {
        topic: tuple(some) for topic, some in notes.items()
    }


def test_of_many_classes_the_largest_and_the_smallest_are_named() -> None:
    counts = {f"class {i}": 100 - i for i in range(40)}
    assert classes_in_words(counts) == (
        "40 in training; the largest: class 0 100, class 1 99, class 2 98; the smallest: class 38 62, class 39 61"
    )
    aside = ("left out, since their names are not those of splits: submission.csv",)
    lines = dict(Understood(model="net", splits=(Part("train", 1, "examples"),), left_out=aside).lines())
    assert lines["splits"] == "train 1 example"
    assert lines["left out"] == "since their names are not those of splits: submission.csv"
    assert NO_TEST not in lines.values()


def test_a_licence_is_read_from_the_models_own_card(tmp_path: Path) -> None:
    assert licence(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n", encoding="utf-8")
    assert licence(str(tmp_path)) == "apache-2.0"
    assert licence("no such/model/at all") is None


def test_an_end_that_a_phase_has_is_said_where_there_is_no_budget() -> None:
    """It was said that one of 30 steps ends when its score no longer gets better."""
    given: dict[str, Any] = {"task": "text-generation", "data": "x"}
    phases = [{"name": "a", "until": "30 steps"}, {"name": "b"}]
    two = plan_from({**given, "phases": phases})
    assert _budget(two, 0) == "none: this phase, one of 2, ends after 30 steps"
    assert _budget(two, 1) == "none: this phase, one of 2, ends when the score no longer gets better"
    assert _budget(plan_from({**given, "phases": phases[:1]}), 0) == "no limit: it ends after 30 steps"
    assert _budget(plan_from(given), 0) == "no limit: it ends when the score no longer gets better"
    timed = plan_from({**given, "budget": "60s", "phases": phases})
    assert _budget(timed, 0) == "1m, for 2 phases, this one until 30 steps"
