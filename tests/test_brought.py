"""Labelled texts as public data sets, competitions and spreadsheets hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks.chat.load import load_conversations
from multistep.tasks.labelled.labels import Column, Labels, encode
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.preference.load import load_pairs
from multistep.tasks.text.splits import load_splits
from multistep.tasks.writing.sources import read_splits

TEXTS = [f"{'a fine film, really, number' if i % 2 else 'dull and far too long, this'} {i}" for i in range(80)]
NAMES = ["pos" if i % 2 else "neg" for i in range(80)]
ROWS = list(zip(TEXTS, NAMES, strict=True))


def load(source: Path, **more: Any) -> LabelledSplits:
    return load_labelled(DataSpec(source=str(source), **more))


def put(path: Path, rows: Sequence[Sequence[object]], mark: str = "\t") -> Path:
    path.write_text("".join(mark.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


def said(found: LabelledSplits) -> str:
    return "\n".join(found.notes)


# Splits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["id", "id label", "id answer"])
def test_a_test_split_without_labels_is_left_out(header: str, tmp_path: Path) -> None:
    """As GLUE and Kaggle hand them out: no column of labels, or one of question marks; another column is no label."""
    put(tmp_path / "train.tsv", [("text", "label"), *ROWS])
    put(tmp_path / "dev.tsv", [("label", "text"), *((name, f"{text} more") for text, name in ROWS[:20])])
    last = {"id": (), "id label": ("?",), "id answer": ("x",)}[header]
    put(tmp_path / "test.tsv", [(*header.split(), "text"), *((i, *last, f"{TEXTS[i]} new") for i in range(20))])
    found = load(tmp_path)
    assert (len(found.train), len(found.validation), len(found.test)) == (80, 20, 0)
    assert "test.tsv: the test split is left out, since its labels are not told" in said(found)
    assert found.validation.texts[0] == f"{TEXTS[0]} more", "columns are found by their names, not their order"


def test_all_splits_are_read_by_the_columns_of_train(tmp_path: Path) -> None:
    """What train's label column is called is no guess any more, whatever else repeats in another split."""
    put(tmp_path / "train.tsv", [("opinion", "verdict"), *ROWS])
    rows = [(f"{text} new", "a" if i % 3 else "b", name) for i, (text, name) in enumerate(ROWS[:20])]
    put(tmp_path / "test.tsv", [("opinion", "class", "verdict"), *rows])
    found = load(tmp_path)
    assert (found.labels.names, len(found.test)) == (("neg", "pos"), 20)


def test_a_class_that_no_row_of_the_test_split_has_is_still_its_column(tmp_path: Path) -> None:
    hot = [(text, int(i % 3 == 0), int(i % 3 == 1), int(i % 2 == 0)) for i, text in enumerate(TEXTS)]
    put(tmp_path / "train.tsv", [("comment", "rude", "threat", "insult"), *hot])
    rows = [(f"{text} new", rude, 0, 1) for text, rude, *_ in hot[:20]]
    put(tmp_path / "test.tsv", [("comment", "rude", "threat", "insult"), *rows])
    found = load(tmp_path)
    assert found.labels.names == ("insult", "rude", "threat")
    assert found.test.labels.sum(0).tolist() == [20, 7, 0]


def test_tables_of_one_folder_need_a_column_in_common(tmp_path: Path) -> None:
    put(tmp_path / "a.tsv", [("text", "label"), *ROWS[:40]])
    put(tmp_path / "b.tsv", [("text", "label"), *ROWS[40:]])
    assert "2 tables are read as one (a.tsv, b.tsv)" in said(load(tmp_path))
    put(tmp_path / "b.tsv", ROWS[40:])
    with pytest.raises(DataError, match=r"b\.tsv: its columns are 'column 1', 'column 2', but those of .*a\.tsv"):
        load(tmp_path)


# Columns and labels ---------------------------------------------------------------------------------


def test_pairs_without_agreement_have_no_label(tmp_path: Path) -> None:
    """SNLI's gold_label is "-" where its annotators did not agree."""
    rows = [
        {"gold_label": "-" if i < 4 else NAMES[i], "pairID": f"p{i}", "sentence1": text, "sentence2": text[::-1]}
        for i, text in enumerate(TEXTS)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = load(tmp_path / "a.jsonl")
    assert found.labels.names == ("neg", "pos")
    assert "no label: 4" in said(found)


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        (("airline", "airline_sentiment", "negativereason", "tweet"), "tweet", "airline_sentiment"),
        (("sender", "is_spam", "seen", "message"), "message", "is_spam"),
        (("seen", "genre", "Title", "Overview"), "Overview", "genre"),
    ],
    ids=["ending", "flag", "longer"],
)
def test_columns_by_what_names_say(header: Sequence[str], text: str, label: str, tmp_path: Path) -> None:
    values = {text: TEXTS, label: NAMES, "Title": [f"No {i}" for i in range(80)]}
    rows = list(zip(*(values.get(name, [f"v{i % 7}" for i in range(80)]) for name in header), strict=True))
    found = load(put(tmp_path / "a.tsv", [header, *rows]))
    assert found.columns == {"text_column": text, "label_column": label}


@pytest.mark.parametrize(
    ("written", "scale"),
    [("1,{:03}", 1.0), ("$1,{:03}.00", 1.0), ("1{:03} %", 1.0), ("1.{:03},00", 1.0), ("1.{:03}.000,5", 1000.0)],
    ids=["thousands", "money", "percent", "german", "millions"],
)
def test_numbers_as_people_write_them(written: str, scale: float, tmp_path: Path) -> None:
    """1,234 is neither 1.234 nor the classes 1 and 234."""
    amounts = [written.format(7 * i) for i in range(80)]
    half = 0.5 if scale > 1 else 0.0
    numbers = [scale * (1000 + 7 * i) + half for i in range(80)]
    found = load(put(tmp_path / "a.tsv", [("text", "price"), *zip(TEXTS, amounts, strict=True)]))
    assert found.labels.kind == "number"
    assert sorted((*found.train.labels, *found.validation.labels, *found.test.labels)) == numbers
    assert f"labels such as '{amounts[0]}' are numbers ({numbers[0]:g})" in said(found)


def test_lists_sets_and_arrays_in_a_field(tmp_path: Path) -> None:
    for form in ("{{'a', '{}'}}", "('a', '{}')", "['a', '{}']"):
        rows = [(text, form.format("b" if i % 2 else "c")) for i, text in enumerate(TEXTS)]
        found = load(put(tmp_path / "a.tsv", [("text", "tags"), *rows]))
        assert (found.labels.kind, found.labels.names) == ("classes", ("a", "b", "c")), form
    rows = [(text, "[0 1 1]" if i % 2 else "[ 1 0 0]") for i, text in enumerate(TEXTS)]
    assert load(put(tmp_path / "a.tsv", [("text", "tags"), *rows])).labels.multi_hot


def test_a_model_of_positions_reads_zeros_and_ones_as_such() -> None:
    """A model folder holds names alone: [1, 0, 1] is the first and the third class, not the classes 1 and 0."""
    labels = Labels("classes", ("0", "1", "2"))
    assert encode(labels, Column([[1, 0, 1], [0, 0, 0], [0, 1, 0]], str)).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert encode(labels, Column([["0", "2"], ["1"]], str)).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_what_is_odd_about_labels_is_said(tmp_path: Path) -> None:
    rows = [(text, ["spam", "Spam ", "ham", "NaN"][i % 4]) for i, text in enumerate(TEXTS)]
    rows += [(TEXTS[0], "ham")]
    notes = said(load(put(tmp_path / "a.tsv", [("text", "label"), *rows])))
    assert "classes that differ in capitals or spaces alone are told apart: 'Spam' and 'spam'" in notes
    assert "1 texts stand several times with different labels (first: " in notes
    assert "a.tsv:2 'spam', " in notes
    assert "no label: 20 (first: " in notes
    many = [(text, 10 * (i % 40)) for i, text in enumerate(TEXTS)]
    notes = said(load(put(tmp_path / "a.tsv", [("text", "score"), *many])))
    assert "40 different whole numbers, taken for classes; to predict them as numbers" in notes


# Files ----------------------------------------------------------------------------------------------


def test_titles_above_a_table_are_left_out(tmp_path: Path) -> None:
    rows = [("text", "label"), *((text.replace(",", ""), name) for text, name in ROWS)]
    put(tmp_path / "a.csv", [("Feedback 2024", ""), ("", ""), *rows], ",")
    found = load(tmp_path / "a.csv")
    assert (found.labels.names, len(found.train)) == (("neg", "pos"), 64)
    assert "the first 2 lines are left out, since they stand above the table" in said(found)
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.append(("Feedback 2024",))
    book.active.append(())
    for row in [("text", "label"), *ROWS[:70], (2024, "pos")]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    found = load(tmp_path / "a.xlsx")
    assert found.labels.names == ("neg", "pos")
    assert "2024" in {*found.train.texts, *found.validation.texts, *found.test.texts}, "a number among texts is one"
    assert "rows left out, since they stand above the table: 1" in said(found)


def test_sheets_that_are_named_for_splits(tmp_path: Path) -> None:
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.title = "Train"
    test = book.create_sheet("Test")
    for row in [("text", "label"), *ROWS]:
        book.active.append(row)
    for row in [("text", "label"), *ROWS[:10]]:
        test.append(row)
    book.save(tmp_path / "a.xlsx")
    found = load(tmp_path / "a.xlsx")
    assert len(found.test) == 10
    assert "a.xlsx: sheet 'Test', row 2" in said(found), "where the first duplicate stands"


def test_a_table_whose_name_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "readme").write_text("About these data\n")
    put(tmp_path / "SMSSpamCollection", [(name, text) for text, name in ROWS])
    assert load(tmp_path).labels.names == load(tmp_path / "SMSSpamCollection").labels.names == ("neg", "pos")


def test_spaces_before_quotation_marks_and_lines_of_spaces(tmp_path: Path) -> None:
    content = "text, label\n" + "".join(f'"{text}", "{name}"\n' for text, name in ROWS) + "   \n\n"
    (tmp_path / "a.csv").write_text(content)
    assert load(tmp_path / "a.csv").labels.names == ("neg", "pos")


WORDS = "\n\n".join(
    "\n".join(f"{word} NN {'B-PER' if i == 0 else 'O'}" for i, word in enumerate(["a", "b", "c"])) for _ in range(20)
)
REFUSED = {
    "a.csv": ("<!DOCTYPE html>\n<html><p>a, b</p></html>\n", "a web page"),
    "b.csv": ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "a pointer of Git LFS"),
    "c.parquet": ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "a pointer of Git LFS"),
    "d.txt": (WORDS.replace(" NN", ", NN", 1), "a tagged word a line, as CoNLL"),
    "e.xls": ("\0", "an old Excel file; save it as .xlsx"),
    "f.pkl": ("\0", "a pickle"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_called_by_its_name(name: str, tmp_path: Path) -> None:
    content, what = REFUSED[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=what):
        load(tmp_path / name)


# Running text ---------------------------------------------------------------------------------------


def test_what_is_said_of_files_holds_for_running_text(tmp_path: Path) -> None:
    """data.encoding and data.delimiter were for classification alone."""
    (tmp_path / "a.txt").write_bytes(("Grüße aus Köln, schöne Straße\n" * 200).encode("cp850"))
    found = load_splits(DataSpec(source=str(tmp_path / "a.txt"), encoding="cp850"))
    assert found.train[0].startswith("Grüße aus Köln, schöne Straße\n")
    (tmp_path / "a.csv").write_text("id~text\n" + "".join(f"{i}~{text}\n" for i, text in enumerate(TEXTS)))
    assert set(load_splits(DataSpec(source=str(tmp_path / "a.csv"), delimiter="~")).train) < set(TEXTS)


def test_a_repository_is_read_for_its_code_and_notebooks_for_their_cells(tmp_path: Path) -> None:
    """A table beside the sources does not take their place, nor do pictures that a notebook has drawn."""
    cells = [{"cell_type": "code", "source": ["x = 1\n", "x + 1"], "outputs": [{"data": {"image/png": "A" * 999}}]}]
    (tmp_path / "src").mkdir()
    for i in range(6):
        (tmp_path / "src" / f"{i}.ipynb").write_text(json.dumps({"cells": cells, "metadata": {"i": i}}))
        (tmp_path / "src" / f"{i}.py").write_text(f"def f{i}():\n    return {i}\n" * 9)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    found = load_splits(str(tmp_path))
    texts = {*found.train, *found.validation, *found.test}
    assert len(texts) == 7
    assert "x = 1\nx + 1" in texts


def test_the_text_is_the_long_column_and_no_number(tmp_path: Path) -> None:
    put(tmp_path / "a.tsv", [("title", "verses"), *((f"No {i}", f"{text} {text}") for i, text in enumerate(TEXTS))])
    assert set(load_splits(str(tmp_path / "a.tsv")).train) < {f"{text} {text}" for text in TEXTS}
    rows = [json.dumps({"id": f"x{i}", "data": [text, text]}) for i, text in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"no column holds text; .*\('data': lists or objects, in which no text"):
        load_splits(str(tmp_path / "a.jsonl"))


def test_a_column_may_be_called_like_a_label_where_names_are_no_line(tmp_path: Path) -> None:
    """A data frame without names has the columns 0 and 1; of a .csv it means that the header is missing, unless another
    column of it is called as columns are.
    """
    frame = [{"0": text, "1": str(i % 2)} for i, text in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, frame)))
    assert load(tmp_path / "a.jsonl").columns == {"text_column": "0", "label_column": "1"}
    put(tmp_path / "a.tsv", [("opinion", "pos"), *ROWS])
    found = load(tmp_path / "a.tsv")
    assert found.columns == {"text_column": "column 1", "label_column": "column 2"}
    assert "the first line looks like a row ('opinion', 'pos')" in said(found)
    assert load(tmp_path / "a.tsv", header=True).columns["label_column"] == "pos"
    put(tmp_path / "b.tsv", [("text", "pos"), *ROWS])
    assert load(tmp_path / "b.tsv").columns == {"text_column": "text", "label_column": "pos"}


@pytest.mark.parametrize(
    ("encoding", "text"), [("cp932", "この映画はとても良かった"), ("euc_kr", "이 영화는 정말 좋았다")]
)
def test_few_letters_that_tell_their_encoding(encoding: str, text: str, tmp_path: Path) -> None:
    """A statistic of letters says nothing of so little; it was read as Western European."""
    rows = [("text", "label"), *((f"{text} {i}", name) for i, (_, name) in enumerate(ROWS))]
    (tmp_path / "a.tsv").write_bytes("".join("\t".join(row) + "\n" for row in rows).encode(encoding))
    assert load(tmp_path / "a.tsv").train.texts[0].startswith(text)


# JSON -----------------------------------------------------------------------------------------------


def test_json_by_split_and_as_lists(tmp_path: Path) -> None:
    pairs = [[text, name] for text, name in ROWS]
    objects = [{"text": text, "label": name} for text, name in ROWS]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": pairs[:60], "val": pairs[60:70], "test": pairs[70:], "oos_val": [["x", "y"]]}))
    found = load(path)
    assert (found.labels.names, len(found.train), len(found.test)) == (("neg", "pos"), 60, 10)
    assert "left out, since their names are not those of splits: oos_val" in said(found)
    assert len(load_splits(str(path)).test) == 10, "of running text, too"
    path.write_text(json.dumps({"columns": ["text", "label"], "index": [*range(80)], "data": pairs}))
    assert load(path).labels.names == ("neg", "pos")
    path.write_text(json.dumps({"features": [{"name": "text"}], "rows": [{"row_idx": 0, "row": o} for o in objects]}))
    assert load(path).labels.names == ("neg", "pos")


# Turns and preferences ------------------------------------------------------------------------------

ASKED = [(f"What is {text}?", f"It is {name}: {text}") for text, name in ROWS[:20]]


def write_lines(path: Path, rows: Sequence[object]) -> DataSpec:
    path.write_text("\n".join(map(json.dumps, rows)))
    return DataSpec(source=str(path))


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (lambda q, a: {"system_prompt": "Be brief.", "question": q, "response": a}, ["system", "user", "assistant"]),
        (lambda q, a: {"input": q, "output": a}, ["user", "assistant"]),
        (lambda q, a: {"Context": q, "Response": a}, ["user", "assistant"]),
        (lambda q, a: {"messages": str([{"role": "developer", "content": "Be brief."}, *turns_of(q, a)])}, None),
    ],
    ids=["system", "input", "context", "printed"],
)
def test_conversations_by_other_names(row: Any, turns: list[str] | None, tmp_path: Path) -> None:
    """What the system says is no column to be dropped, and lists are read as Python prints them."""
    splits = load_conversations(write_lines(tmp_path / "a.jsonl", [row(q, a) for q, a in ASKED]))
    assert [turn.role for turn in splits.train[0].turns] == (turns or ["system", "user", "assistant"])
    assert (splits.train[0].turns[-2].content, splits.train[0].turns[-1].content) in ASKED


def turns_of(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_a_table_with_a_turn_a_row_is_no_running_text(tmp_path: Path) -> None:
    rows = [{"message_id": i, "role": "prompter", "text": q} for i, (q, _) in enumerate(ASKED)]
    data = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=r"each row is one turn \(columns 'role' and 'text'\)"):
        read_splits(data)
    assert len(read_splits(replace(data, text_column="text")).train) == 16


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        (lambda q, a: {k: f"\n\nHuman: {q}\n\nAssistant: {x}" for k, x in (("chosen", a), ("rejected", "no"))}, "{}"),
        (lambda q, a: {"instruction": q, "input": "Here.", "chosen": a, "rejected": "no"}, "{}\n\nHere."),
        (lambda q, a: {"system": "Be brief.", "prompt": q, "chosen": a, "rejected": "no"}, "{}"),
        (
            lambda q, a: {
                "conversations": [{"from": "human", "value": q}],
                "chosen": {"from": "gpt", "value": a},
                "rejected": {"from": "gpt", "value": "no"},
            },
            "{}",
        ),
    ],
    ids=["spoken", "instruction", "system", "turns"],
)
def test_pairs_by_other_names(row: Any, prompt: str, tmp_path: Path) -> None:
    splits = load_pairs(write_lines(tmp_path / "a.jsonl", [row(q, a) for q, a in ASKED]))
    assert len(splits.train) == 16
    asked = {prompt.format(question): answer for question, answer in ASKED}
    for pair in splits.train:
        assert pair.answers == (asked[pair.prompt[-1].content], "no")
        assert (pair.prompt[0].role == "system") == ("system" in row("", ""))
