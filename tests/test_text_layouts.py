"""Texts as public sets and tools for labelling lay them out: which text, label and split each has, and what is said."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cases_language import opinions
from PIL import Image

from multistep.core.values.plan import DataSpec
from multistep.data.names import splits_among
from multistep.data.table import of_columns
from multistep.errors import DataError
from multistep.tasks.chat.formats import read_conversations
from multistep.tasks.chat.load import ChatSplits
from multistep.tasks.images.files import read_items
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.text.files import read_documents
from multistep.tasks.writing.sources import read_splits

OPINIONS = opinions(200, 0)
TEXTS = {
    name: tuple(f"{text}, {i}" for i, (text, label) in enumerate(OPINIONS) if label == number)
    for number, name in enumerate(("bad", "good"))
}


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        held = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(gzip.compress(held) if name.endswith(".gz") else held)
    return folder


def load(source: Path, **more: Any) -> LabelledSplits:
    return load_labelled(DataSpec(source=str(source), **more))


def told(found: LabelledSplits) -> dict[str, str]:
    """The label of each text."""
    parts = (found.train, found.validation, found.test)
    return {text: found.labels.names[int(c)] for part in parts for text, c in zip(part.texts, part.labels, strict=True)}


# A file for each class ------------------------------------------------------------------------------


def of_class(name: str, start: int = 0, end: int = 40) -> str:
    return "\n".join(TEXTS[name][start:end]) + "\n"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("good.txt", "bad.txt"),
        ("rt-polaritydata/rt-polarity.good", "rt-polaritydata/rt-polarity.bad"),
        ("good.tok.gt9.5000", "bad.tok.gt9.5000"),
        ("amazon_reviews_good.txt", "amazon_reviews_bad.txt"),
        ("good.txt.gz", "bad.txt.gz"),
    ],
)
def test_files_that_are_called_for_the_class_of_their_lines(good: str, bad: str, tmp_path: Path) -> None:
    about = {"rt-polaritydata.README.1.0.txt": "About the data.\n\nThey are such."}
    write(tmp_path, {good: of_class("good"), bad: of_class("bad"), **about})
    found = load(tmp_path)
    assert found.labels.names == ("bad", "good")
    assert told(found) == {text: name for name in TEXTS for text in TEXTS[name][:40]}
    assert "one text a line, the class is the name of its file: bad (40), good (40)" in " ".join(found.notes)


@pytest.mark.parametrize(
    "layout", ["{split}/{name}.txt", "{split}.{name}.txt", "{name}_{split}.txt", "{name}/{split}.txt"]
)
def test_files_of_classes_in_splits(layout: str, tmp_path: Path) -> None:
    for split, rows in (("train", (0, 40)), ("test", (40, 60))):
        write(tmp_path, {layout.format(split=split, name=name): of_class(name, *rows) for name in TEXTS})
    found = load(tmp_path)
    assert told(found) == {text: name for name in TEXTS for text in TEXTS[name][:60]}
    assert set(found.test.texts) == {text for name in TEXTS for text in TEXTS[name][40:60]}


def test_documents_and_tables_are_no_files_of_classes(tmp_path: Path) -> None:
    prose = {"alice.txt": "\n\n".join(TEXTS["good"][:40]), "moby.txt": "\n\n".join(TEXTS["bad"][:40])}
    chapters = {f"chapter{i}.txt": of_class("good", 20 * i, 20 * i + 20) for i in range(3)}
    letters = {"essay.txt": TEXTS["good"][0], "letter.txt": TEXTS["bad"][0]}
    reviews = {f"cv{i:03}_{99 * i}.txt": of_class("good", 20 * i, 20 * i + 20) for i in range(3)}
    for files in (prose, chapters, letters, reviews):
        folder = write(tmp_path / next(iter(files))[:3], files)
        with pytest.raises(DataError, match=r"holds files of text \(.*nothing says which class a text is of; allowed:"):
            load(folder)
        assert len(read_documents(str(folder)).texts) == len(files)
    shops = {
        f"{shop}_labelled.txt": "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(TEXTS["good"][at : at + 40]))
        for at, shop in ((0, "amazon"), (40, "yelp"))
    }
    assert load(write(tmp_path / "shops", shops)).labels.names == ("0", "1")


def test_tables_that_are_called_for_classes_and_lines_in_folders_of_classes(tmp_path: Path) -> None:
    """A column that repeats was taken for the label of True.csv and Fake.csv, as of a set of news."""
    for table, name in (("True", "good"), ("Fake", "bad")):
        rows = "".join(f'"{text}","{("news", "politics")[i % 2]}"\n' for i, text in enumerate(TEXTS[name][:40]))
        write(tmp_path / "news", {f"{table}.csv": f"text,subject\n{rows}"})
    found = load(tmp_path / "news")
    assert told(found) == {text: label for label, n in (("True", "good"), ("Fake", "bad")) for text in TEXTS[n][:40]}
    assert "the class is the name of each table: Fake (40), True (40)" in " ".join(found.notes)
    assert load(tmp_path / "news", label_column="subject").labels.names == ("news", "politics")
    bare = {f"{name}.csv": "text\n" + "".join(f'"{text}"\n' for text in TEXTS[name][:40]) for name in TEXTS}
    folders = {f"{name}/articles.txt": of_class(name) for name in TEXTS}
    for where, files in (("bare", bare), ("folders", folders)):
        assert told(load(write(tmp_path / where, files))) == {text: name for name in TEXTS for text in TEXTS[name][:40]}
    notes = {"notes.txt": of_class("good"), "todo.txt": of_class("bad")}
    with pytest.raises(DataError, match=r"files of text \(notes.txt, todo.txt\)"):
        load(write(tmp_path / "desk", notes))


def test_names_of_splits_that_go_on() -> None:
    glue = ["train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"]
    assert splits_among(glue) == {"train": "train", "dev_matched": "validation", "test_matched": "test"}
    assert splits_among(["train", "val", "testA", "testB"]) == {"train": "train", "val": "validation", "testA": "test"}
    assert splits_among(["train", "held_out"]) == {"train": "train", "held_out": "test"}
    assert splits_among(["train2017", "val2017"]) == {"train2017": "train", "val2017": "validation"}
    assert splits_among(["trainset", "testset"]) == {"trainset": "train", "testset": "test"}
    assert splits_among(["train_station", "test_tube", "train99", "MNIST2019"]) == {}


# Exports of tools for labelling ---------------------------------------------------------------------

LABELLED = [(text, name) for name in ("good", "bad") for text in TEXTS[name][:40]]


def chosen(label: str | list[str], kind: str = "choices", **more: Any) -> dict[str, Any]:
    """What an annotator said, as Label Studio writes it."""
    value = {kind: label if isinstance(label, list) else [label], **more}
    return {"result": [{"from_name": "mood", "type": kind, "value": value}], "was_cancelled": False, "lead_time": 2.5}


def label_studio(text: str, label: str) -> dict[str, Any]:
    cancelled = {**chosen("unsure"), "was_cancelled": True}
    return {"id": 1, "data": {"text": text}, "annotations": [cancelled, chosen(label)], "predictions": []}


def label_studio_min(text: str, label: str) -> dict[str, Any]:
    about = {"id": 1, "annotator": 1, "annotation_id": 1, "created_at": "2026", "updated_at": "2026", "lead_time": 2.5}
    return {"text": text, "sentiment": label, **about}


def doccano(text: str, label: str) -> dict[str, Any]:
    return {"id": 1, "text": text, "label": [label], "Comments": []}


def prodigy(text: str, label: str) -> dict[str, Any]:
    options = [{"id": "good", "text": "Good"}, {"id": "bad", "text": "Bad"}]
    return {"text": text, "_input_hash": 1, "_task_hash": 2, "options": options, "accept": [label], "answer": "accept"}


@pytest.mark.parametrize("tool", [label_studio, label_studio_min, doccano, prodigy])
def test_exports_of_tools_for_labelling(tool: Any, tmp_path: Path) -> None:
    rows = [tool(text, label) for text, label in LABELLED]
    name = "a.json" if tool in (label_studio, label_studio_min) else "a.jsonl"
    content = json.dumps(rows, indent=1) if name == "a.json" else "\n".join(map(json.dumps, rows))
    found = load(write(tmp_path, {name: content}) / name)
    assert (found.labels.kind, told(found)) == ("class", dict(LABELLED))
    assert any("an export of" in note or "annotations of Prodigy" in note for note in found.notes)


def test_what_nobody_chose_and_what_several_are(tmp_path: Path) -> None:
    rows = [{**prodigy(t, n), "answer": "ignore" if i == 3 else "accept"} for i, (t, n) in enumerate(LABELLED)]
    found = load(write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, rows))}) / "a.jsonl")
    assert set(told(found)) == {text for i, (text, _) in enumerate(LABELLED) if i != 3}
    assert "rows left out, ignored by whoever labelled them: 1" in " ".join(found.notes)
    asked = [
        {"text": t, "label": "GOOD", "_task_hash": 1, "answer": "accept" if n == "good" else "reject"}
        for t, n in LABELLED
    ]
    found = load(write(tmp_path, {"b.jsonl": "\n".join(map(json.dumps, asked))}) / "b.jsonl")
    assert told(found) == {t: "GOOD" if n == "good" else "not GOOD" for t, n in LABELLED}
    several = [{**doccano(t, n), "label": [n, "long"] if i % 3 else [n]} for i, (t, n) in enumerate(LABELLED)]
    found = load(write(tmp_path, {"c.jsonl": "\n".join(map(json.dumps, several))}) / "c.jsonl")
    assert (found.labels.kind, found.labels.names) == ("classes", ("bad", "good", "long"))


@pytest.mark.parametrize(
    "row",
    [
        {"id": 1, "text": "Ann left.", "label": [[0, 3, "PERSON"]], "Comments": []},
        {
            "id": 1,
            "text": "Ann left.",
            "entities": [{"label": "P", "start_offset": 0, "end_offset": 3}],
            "Comments": [],
        },
        {"text": "Ann left.", "_task_hash": 1, "answer": "accept", "spans": [{"start": 0, "end": 3, "label": "P"}]},
        {"data": {"text": "Ann left."}, "annotations": [chosen("P", "labels", start=0, end=3)]},
    ],
)
def test_marks_of_parts_are_no_labels_of_texts(row: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, {"a.jsonl": "\n".join([json.dumps(row)] * 20)}) / "a.jsonl"
    with pytest.raises(
        DataError, match=r"a.jsonl:1: 'label' marks parts of the text \(.*labels here are of whole texts"
    ):
        load(path)


def test_images_in_exports(tmp_path: Path) -> None:
    """Uploaded files have a hash before their names, local ones a query before their paths, Prodigy's are base64."""
    held = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 0, 0)).save(held, "PNG")
    write(tmp_path, {f"photos/{i}.png": held.getvalue() for i in range(6)})
    colours = ["red", "blue"] * 3

    def items(name: str, rows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        found, *_ = read_items(DataSpec(source=str(tmp_path / name)))
        return [(item.label, item.content) for item in found["train"]]

    for form in ("/data/upload/7/0a1b2c3d-{}.png", "/data/local-files/?d=photos/{}.png"):
        rows = [{"data": {"image": form.format(i)}, "annotations": [chosen(c)]} for i, c in enumerate(colours)]
        assert items("a.jsonl", rows) == [(c, tmp_path / f"photos/{i}.png") for i, c in enumerate(colours)]
    image = f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
    asked = [{"image": image, "_task_hash": 1, "accept": [c], "answer": "accept"} for c in colours]
    assert items("b.jsonl", asked) == [(c, held.getvalue()) for c in colours]


# Questions, trees and turns -------------------------------------------------------------------------

ASKED = [(f"What is {i} plus {i}?", f"It is {2 * i}.") for i in range(20)]


def chats(path: Path) -> tuple[dict[str, list[str]], str]:
    """The turns of each conversation by its first prompt, and all notes."""
    found = read_splits(DataSpec(source=str(path)))
    assert isinstance(found, ChatSplits)
    everything = (*found.train, *found.validation, *found.test)
    return {c.turns[0].content: [turn.content for turn in c.turns[1:]] for c in everything}, " ".join(found.notes)


def test_squad_is_learnt_as_questions_on_a_context_and_is_no_classification(tmp_path: Path) -> None:
    qas = [
        [
            {"question": q, "id": "1", "answers": [{"text": a, "answer_start": 0}], "is_impossible": False},
            {"question": f"{q}?", "id": "2", "answers": [], "is_impossible": True},
        ]
        for q, a in ASKED
    ]
    paragraphs = [{"context": f"Sums, {i}.", "qas": held} for i, held in enumerate(qas)]
    data = {"version": "v2.0", "data": [{"title": "Sums", "paragraphs": paragraphs}]}
    path = write(tmp_path, {"train-v2.0.json": json.dumps(data)}) / "train-v2.0.json"
    found, said = chats(path)
    assert found == {f"Sums, {i}.\n\n{q}": [a] for i, (q, a) in enumerate(ASKED)}
    assert "rows left out, no answer to it: 20 of 40" in said
    with pytest.raises(DataError, match=r"answers out of a context \(SQuAD\), which are no classes; --task text-gener"):
        load(path)
    assert load(path, label_column="is_impossible").labels.names == ("false", "true")


def message(text: str, role: str, key: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": key, "text": text, "role": role, "rank": rank, "deleted": False, **more}


def tree(number: int, question: str, answer: str) -> list[dict[str, Any]]:
    """A tree of OpenAssistant, its messages in a row: of two answers the better is asked on."""
    more = [
        message("Worse.", "assistant", f"{number}b", 1, parent_id=f"{number}a"),
        message(answer, "assistant", f"{number}c", 0, parent_id=f"{number}a"),
        message("Gone.", "assistant", f"{number}d", -1, parent_id=f"{number}a", deleted=True),
        message("Sure?", "prompter", f"{number}e", parent_id=f"{number}c"),
        message("Yes.", "assistant", f"{number}f", parent_id=f"{number}e"),
        message("And?", "prompter", f"{number}g", parent_id=f"{number}c"),
    ]
    return [message(question, "prompter", f"{number}a", message_tree_id=f"{number}a"), *more]


def nested(rows: list[dict[str, Any]], at: dict[str, Any]) -> dict[str, Any]:
    return {**at, "replies": [nested(rows, row) for row in rows if row.get("parent_id") == at["message_id"]]}


@pytest.mark.parametrize("form", ["trees.jsonl.gz", "flat.jsonl", "flat.csv"])
def test_trees_of_openassistant_give_the_best_answers(form: str, tmp_path: Path) -> None:
    import pandas

    trees = [tree(i, q, a) for i, (q, a) in enumerate(ASKED)]
    rows: list[dict[str, Any]] = [row for each in trees for row in each]
    if form == "trees.jsonl.gz":
        rows = [{"message_tree_id": each[0]["message_id"], "prompt": nested(each, each[0])} for each in trees]
    content = pandas.DataFrame(rows).to_csv(index=False) if form == "flat.csv" else "\n".join(map(json.dumps, rows))
    found, said = chats(write(tmp_path, {form: content}) / form)
    assert found == {q: [a, "Sure?", "Yes."] for q, a in ASKED}
    assert "20 conversations from 20 prompts; of several answers the best ranked counts, 20 others are left out" in said


def test_an_export_of_chatgpt_gives_the_branch_that_was_seen_last(tmp_path: Path) -> None:
    def node(parent: str | None, role: str, *texts: str, kind: str = "text") -> dict[str, Any]:
        content = {"content_type": kind, "parts": list(texts)}
        return {"parent": parent, "message": {"author": {"role": role}, "content": content, "recipient": "all"}}

    def talk(question: str, answer: str) -> dict[str, Any]:
        nodes = {
            "root": {"parent": None, "message": None},
            "system": node("root", "system", ""),
            "user": node("system", "user", question),
            "old": node("user", "assistant", "Another."),
            "new": node("user", "assistant", "One moment."),
            "tool": node("new", "tool", "4", kind="execution_output"),
            "end": node("tool", "assistant", answer),
        }
        return {"title": "Sums", "create_time": 1.0, "mapping": nodes, "current_node": "end"}

    content = json.dumps([talk(*each) for each in ASKED])
    found, said = chats(write(tmp_path, {"conversations.json": content}) / "conversations.json")
    assert found == {q: [f"One moment.\n\n{a}"] for q, a in ASKED}
    assert "read as an export of ChatGPT" in said


def test_turns_that_stand_in_rows_of_their_own_or_in_other_lists(tmp_path: Path) -> None:
    rows = [
        (i, turn, ("customer", "agent")[turn], text) for i, each in enumerate(ASKED) for turn, text in enumerate(each)
    ]
    lines = [json.dumps(dict(zip(("session_id", "turn", "role", "text"), row, strict=True))) for row in rows[::-1]]
    expected = {q: [a] for q, a in ASKED}
    assert chats(write(tmp_path, {"a.jsonl": "\n".join(lines)}) / "a.jsonl")[0] == expected
    forms: dict[str, Any] = {
        "pairs": lambda q, a: {"conversation": [{"human": q, "assistant": a}]},
        "texts": lambda q, a: {"dialog": [q, a], "act": [1, 2]},
        "parts": lambda q, a: {
            "contents": [{"role": n, "parts": [{"text": t}]} for n, t in (("user", q), ("model", a))]
        },
        "several": lambda q, a: {"question": q, "answer": [a, "or so"]},
    }
    for name, form in forms.items():
        content = "\n".join(json.dumps(form(*each)) for each in ASKED)
        assert chats(write(tmp_path, {f"{name}.jsonl": content}) / f"{name}.jsonl")[0] == expected, name
    content = "\n".join(
        json.dumps({"instruction": q, "output": a, "history": [[f"{q} Please.", "Wait."]]}) for q, a in ASKED
    )
    read = read_splits(DataSpec(source=str(write(tmp_path, {"h.jsonl": content}) / "h.jsonl")))
    assert isinstance(read, ChatSplits)
    assert [turn.content for turn in read.train[0].turns] == [f"{ASKED[0][0]} Please.", "Wait.", *ASKED[0]]
    summaries = "\n".join(json.dumps({"dialogue": f"{q} {a} " * 20, "summary": "Sums."}) for q, a in ASKED)
    texts = read_splits(DataSpec(source=str(write(tmp_path, {"s.jsonl": summaries}) / "s.jsonl")))
    assert not isinstance(texts, ChatSplits), "a dialogue as one text is running text"


def test_texts_and_labels_in_two_files(tmp_path: Path) -> None:
    for split, rows in (("train", slice(0, 60)), ("val", slice(60, 80))):  # as of TweetEval
        part = LABELLED[rows]
        write(tmp_path, {f"{split}_text.txt": "\n".join(text for text, _ in part) + "\n"})
        write(tmp_path, {f"{split}_labels.txt": "".join(f"{int(label == 'good')}\n" for _, label in part)})
    write(tmp_path, {"mapping.txt": "0\tbad\n1\tgood\n"})
    found = load(tmp_path)
    assert told(found) == dict(LABELLED)
    assert set(found.validation.texts) == {text for text, _ in LABELLED[60:]}
    write(tmp_path, {"train_labels.txt": "1\n0\n"})
    with pytest.raises(DataError, match=r"train_labels.txt: 2 labels, but train_text.txt has 60 texts"):
        load(tmp_path)


def test_texts_with_as_many_commas_each_are_no_table(tmp_path: Path) -> None:
    lines = {name: "".join(f"a {name} film, said in line {i}\n" for i in range(40)) for name in TEXTS}
    assert len(load(write(tmp_path / "a", {f"{name}.txt": text for name, text in lines.items()})).train) == 64
    table = "".join(f"said in line {i}, {('good', 'bad')[i % 2]}\n" for i in range(40))
    found = load(write(tmp_path / "b", {f"{name}.txt": table.replace("said", f"{name} said") for name in ("x", "y")}))
    assert {text.split()[0] for text in told(found)} == {"x", "y"}


@pytest.mark.parametrize(
    "row",
    [
        lambda text, label: {"text": text, "cats": {name: float(name == label) for name in TEXTS}},
        lambda text, label: {"source": text, "job": 0, "job-metadata": {"class-name": label, "confidence": 0.9}},
        lambda text, label: {"textContent": text, "classificationAnnotation": {"displayName": label}},
        lambda text, label: {"fields": {"text": text}, "responses": {"mood": [{"value": label}]}, "metadata": {}},
    ],
    ids=["spacy", "sagemaker", "vertex", "argilla"],
)
def test_records_of_libraries_and_clouds(row: Any, tmp_path: Path) -> None:
    content = "\n".join(json.dumps(row(*each)) for each in LABELLED)
    assert told(load(write(tmp_path, {"a.jsonl": content}) / "a.jsonl")) == dict(LABELLED)


def test_labels_before_texts_in_names_and_texts_in_words(tmp_path: Path) -> None:
    kinds = {"good": "ENTY:animal", "bad": "DESC:manner"}  # as of TREC
    trec = write(tmp_path, {"train_5500.label": "".join(f"{kinds[name]} {text}\n" for text, name in LABELLED)})
    assert told(load(trec / "train_5500.label")) == {text: kinds[name] for text, name in LABELLED}
    sst = "".join(f"{int(name == 'good')} {text}{', so' * (i % 3)}\n" for i, (text, name) in enumerate(LABELLED))
    found = load(write(tmp_path, {"sst.txt": sst}) / "sst.txt")
    assert sorted(told(found).values()) == ["0"] * 40 + ["1"] * 40
    named = {f"{name}.{i}.txt": text for i, (text, name) in enumerate(LABELLED)}
    assert told(load(write(tmp_path / "named", named))) == dict(LABELLED)
    words = [{"tokens": text.split(" "), "label": name} for text, name in LABELLED]
    path = write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, words))}) / "a.jsonl"
    assert told(load(path)) == dict(LABELLED)


def test_one_object_with_a_key_for_each_row(tmp_path: Path) -> None:
    by_class = {"good": [*TEXTS["good"][:40]], "bad": [*TEXTS["bad"][:39]]}
    rasa = {"rasa_nlu_data": {"common_examples": [{"text": t, "intent": n, "entities": []} for t, n in LABELLED]}}
    for name, content in {"texts": dict(LABELLED), "rasa": rasa}.items():
        path = write(tmp_path, {f"{name}.json": json.dumps(content)}) / f"{name}.json"
        assert told(load(path)) == dict(LABELLED), name
    assert len(told(load(write(tmp_path, {"c.json": json.dumps(by_class)}) / "c.json"))) == 79
    held = io.BytesIO()
    Image.new("RGB", (4, 4)).save(held, "PNG")
    write(tmp_path / "photos", {f"img/{i}.png": held.getvalue() for i in range(8)})
    labels = {f"{i}.png": ("cat", "dog")[i % 2] for i in range(8)}
    write(tmp_path / "photos", {"labels.json": json.dumps(labels, indent=1)})
    found, *_ = read_items(DataSpec(source=str(tmp_path / "photos")))
    assert [item.label for item in found["train"]] == ["cat", "dog"] * 4


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (lambda right: ["No.", right], 1),
        (lambda right: {"text": ["No.", right], "label": ["A", "B"]}, "B"),
        (lambda right: {"A": "No.", "B": right}, "B"),
        (lambda right: str(["No.", right]), None),
    ],
)
def test_options_stand_in_the_prompt(options: Any, answer: Any, tmp_path: Path) -> None:
    """As of MMLU and ARC, whose options were left out of what was learnt."""
    rows = [{"question": q, "choices": options(a), "answer": a if answer is None else answer} for q, a in ASKED]
    found, said = chats(write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, rows))}) / "a.jsonl")
    assert found == {f"{q}\n\nA. No.\nB. {a}": [f"B. {a}"] for q, a in ASKED}
    assert "questions with options, which the prompt shows" in said


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        (("2", "4", None), ("B. 2", "A. 4")),  # digits that are options of every row are what they say
        (("0", "2", ""), ("A. 1", "C. 6")),
        ((1, 2, None), ("B. 2", "C. 6")),
    ],
)
def test_digits_are_an_options_number_or_what_it_says(answers: Sequence[object], taken: Sequence[str]) -> None:
    options = [["1", "2", "3"], ["4", "5", "6"], ["7", "8", "9"]]
    columns: dict[str, Sequence[object]] = {"question": ["a?", "b?", "c?"], "choices": options, "answer": answers}
    found, _ = read_conversations(of_columns("here", columns, ["here:1", "here:2", "here:3"]))
    assert [talk.answers[0] for talk in found] == list(taken)
