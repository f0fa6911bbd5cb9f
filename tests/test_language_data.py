"""Labelled texts from wherever the user keeps them: columns, labels, splits, and what is wrong with them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_language import opinions

from multistep.core.values.plan import DataSpec
from multistep.data.files import read_table
from multistep.errors import DataError
from multistep.tasks.language.docstrings import DOCSTRINGS, python_docstrings
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.spans import load_all, load_texts
from multistep.tasks.language.splits import load_labelled

ROWS = [(text, "good" if label else "bad") for text, label in opinions(200, 0)]


def write(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return str(path)


def csv_of(header: str, rows: Sequence[tuple[object, ...]]) -> str:
    return "\n".join([header, *(",".join(f'"{value}"' for value in row) for row in rows)]) + "\n"


def json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def load(source: str, **columns: Any) -> LabelledSplits:
    return load_labelled(DataSpec(source=source, **columns))


# Forms ----------------------------------------------------------------------------------------------


def test_one_table_in_four_forms(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [(f"{text}, {i}", label) for i, (text, label) in enumerate(ROWS)]
    texts, labels = [row[0] for row in rows], [row[1] for row in rows]
    sources = [
        write(tmp_path / "a.csv", csv_of("id,text,label", [(i, *row) for i, row in enumerate(rows)])),
        write(tmp_path / "a.tsv", "label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in rows)),
        write(tmp_path / "a.jsonl", json_lines([{"text": text, "label": label} for text, label in rows])),
        str(tmp_path / "a.parquet"),
    ]
    parquet.write_table(pyarrow.table({"text": texts, "label": labels}), sources[-1])
    found = [load(source) for source in sources]
    assert all(splits.labels.names == ("bad", "good") for splits in found)
    assert len({splits.fingerprint for splits in found}) == 1, "the same rows in the same splits"
    assert "text from column 'text', label from 'label'" in " ".join(found[0].notes)
    splits = found[0]
    together = [*splits.train.texts, *splits.validation.texts, *splits.test.texts]
    assert sorted(together) == sorted(texts)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [160, 20, 20]


def test_a_hugging_face_data_set_names_its_classes(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "sentence1": datasets.Value("string"),
            "sentence2": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "idx": datasets.Value("int32"),
        }
    )
    rows = [{"sentence1": t, "sentence2": f"{t}?", "label": i % 2, "idx": i} for i, (t, _) in enumerate(ROWS)]
    part = datasets.Dataset.from_list(rows, features=features)
    secret = datasets.Dataset.from_list([{**row, "label": -1} for row in rows], features=features)
    datasets.DatasetDict({"train": part, "validation": part, "test": secret}).save_to_disk(tmp_path / "set")
    splits = load(str(tmp_path / "set"))
    assert splits.labels.names == ("no", "yes")
    assert splits.train.seconds == tuple(f"{text}?" for text, _ in ROWS)
    assert len(splits.test) == 0
    notes = " ".join(splits.notes)
    assert "left out, since its labels are not told" in notes
    assert "validation: 200 of 200 texts stand word for word in train" in notes


def test_tabs_with_quotation_marks_are_text_unless_the_rows_need_them(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.tsv", 'label\ttext\n0\t"so\n1\t"quoted"\n')
    assert read_table(Path(plain)).column("text") == ['"so', '"quoted"']
    named = write(tmp_path / "c.tsv", '"label"\t"text"\n0\t"so"\n1\t"a ""word"""\n')
    assert read_table(Path(named)).column("text") == ["so", 'a "word"'], "its names say that marks are meant"
    quoted = read_table(Path(write(tmp_path / "b.tsv", 'label\ttext\n0\t"two\tfields"\n1\t"a ""word"""\n')))
    assert quoted.column("text") == ["two\tfields", 'a "word"']
    assert "read with quoting" in quoted.notes[0]


def test_a_folder_of_splits_by_any_name(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.csv", csv_of("review,sentiment", ROWS[:40]))
    splits = load(str(tmp_path))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40, 40, 40]
    (tmp_path / "test.csv").unlink()
    splits = load(str(tmp_path))
    assert len(splits.test) == 0
    assert "no test split" in " ".join(splits.notes)


# Cutting --------------------------------------------------------------------------------------------


def test_cuts_keep_the_shares_of_classes_and_equal_texts_together(tmp_path: Path) -> None:
    rows = [(f"text number {i // 2}", "rare" if i % 10 == 0 else "usual") for i in range(1000)]
    splits = load(write(tmp_path / "a.csv", csv_of("text,label", rows)))
    parts = [set(part.texts) for part in (splits.train, splits.validation, splits.test)]
    assert not (parts[0] | parts[1]) & parts[2]
    assert not parts[0] & parts[1]
    for part in (splits.validation, splits.test):
        assert len(part) == pytest.approx(100, abs=4)
        assert np.mean(part.labels == 0) == pytest.approx(0.1, abs=0.03)
    moved = load(write(tmp_path / "b.csv", csv_of("text,label", rows[::-1])))
    assert set(moved.test.texts) == parts[2], "where a text goes depends on no order"


def test_a_phase_of_hidden_words_sees_the_same_splits(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", csv_of("text,label", ROWS))
    labelled, texts = load(source), load_texts(DataSpec(source=source))
    assert texts.train.texts == labelled.train.texts
    assert texts.test.texts == labelled.test.texts
    running = write(tmp_path / "a.txt", "\n".join(text for text, _ in ROWS))
    assert len(load_texts(DataSpec(source=running)).train.texts) == 1
    assert len(load_all(DataSpec(source=source)).texts) == len(ROWS)


# Labels ---------------------------------------------------------------------------------------------


def test_kinds_of_labels(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(60)]

    def labels_of(values: list[Any], **columns: Any) -> LabelledSplits:
        rows = [{"text": text, "label": value} for text, value in zip(texts, values, strict=True)]
        return load(write(tmp_path / "a.jsonl", json_lines(rows)), **columns)

    whole = [i % 11 for i in range(60)]
    assert labels_of(whole).labels.names == tuple(str(i) for i in range(11)), "in the order of numbers"
    assert labels_of(whole, labels="number").labels.kind == "number"
    assert labels_of([i / 7 for i in range(60)]).labels.kind == "number"
    assert labels_of([i % 2 == 0 for i in range(60)]).labels.names == ("false", "true")
    several = labels_of([["a", "b"][: i % 3] for i in range(60)])
    assert (several.labels.kind, several.labels.names) == ("classes", ("a", "b"))
    assert several.train.labels.shape == (len(several.train), 2)
    joined = labels_of([["", "x", "x|y"][i % 3] for i in range(60)], labels="classes")
    assert (joined.labels.names, joined.labels.separator) == (("x", "y"), "|")
    assert len(joined.train) + len(joined.validation) + len(joined.test) == 60, "none of the classes is an answer, too"


def test_a_list_in_a_field_of_a_csv(tmp_path: Path) -> None:
    rows = [(f"text {i}", "['a', 'b']" if i % 2 else "['b']") for i in range(60)]
    assert load(write(tmp_path / "a.csv", csv_of("text,tags", rows))).labels.names == ("a", "b")


def test_several_classes_in_one_field_are_hinted_at(tmp_path: Path) -> None:
    def hints(names: list[str], **columns: Any) -> list[str]:
        rows = [(f"text {i}", names[i % len(names)]) for i in range(60)]
        notes = load(write(tmp_path / "a.csv", csv_of("text,label", rows)), **columns).notes
        return [note for note in notes if "data.labels=classes" in note]

    genres = ["drama|comedy", "drama", "comedy|action", "action|drama"]
    (hint,) = hints(genres)
    assert "most labels hold '|', such as 'action|drama', and their parts come back in others" in hint
    assert not hints(genres, labels="classes")
    assert not hints(["Rome, Italy", "Lyon, France", "Bonn, Germany"]), "no part comes back"
    assert not hints(["drama", "comedy", "drama|comedy"]), "most hold one"
    many = [f"a{i % 20}|b{i // 20}" for i in range(200)]
    rows = [(f"text {i}", label) for i, label in enumerate(many)]
    with pytest.raises(DataError, match=r"hardly a label column.*most labels hold '\|', such as 'a0\|b0'.*=classes"):
        load(write(tmp_path / "a.csv", csv_of("text,label", rows)))


# What is wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\n", "no row below the names"),
        ("a.csv", "text,one,two\na,b,c\n", r"which of 'one', 'two' is the label\? columns: 'text', 'one', 'two'"),
        ("a.csv", "text\na\n", "no column is left for the label; columns: 'text'; name it with --set data.lab"),
        ("a.csv", "label\n1\n", "no column holds text; columns: 'label'; name it with --set data.text_column=NAME"),
        ("a.csv", "text,label\n3.5,a\n4,b\n", r"a\.csv:2: 'text' is '3.5': the whole column holds numbers"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": 5, "label": 0}\n', r"a\.jsonl:2: 'text' is 5, a int"),
        ("a.csv", "text,text,label\na,b,c\n", "two columns are called 'text'"),
        ("a.tsv", "text\tlabel\na\tb\tc\n", r"a\.tsv:2: 3 fields, but the first line names 2"),
        ("a.csv", csv_of("text,label", [(t, "same") for t, _ in ROWS]), "every row has the label 'same'"),
        ("a.csv", csv_of("text,label", [*ROWS[:50], ("x", "7")]), r"a\.csv:52: the label '7' is a whole number, but"),
        ("a.csv", csv_of("text,label", [(t, 9**9 + i) for i, (t, _) in enumerate(ROWS)]), "set data.labels to num"),
        ("a.csv", csv_of("text,label", [(t, f"w{i}") for i, (t, _) in enumerate(ROWS)]), "hardly a label column"),
        ("a.csv", csv_of("text,label", ROWS[:6]), "at least 8 are needed"),
    ],
)
def test_errors_say_where(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / name, content))


def test_a_label_that_training_does_not_have(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", csv_of("text,label", ROWS))
    write(tmp_path / "validation.csv", csv_of("text,label", ROWS[:20]))
    write(tmp_path / "test.csv", csv_of("text,label", [*ROWS[:3], ("x", "goood")]))
    with pytest.raises(DataError, match=r"test\.csv:5: the label 'goood' does not occur.*'bad', 'good'.*Did you mean"):
        load(str(tmp_path))


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [*ROWS, ("", "good"), ("no label", ""), (" ", "bad"), ("one", "lonely")]
    splits = load(write(tmp_path / "a.csv", csv_of("text,label", rows)))
    notes = " ".join(splits.notes)
    assert "rows left out because they have no text: 2" in notes
    assert "no label: 1 (first: " in notes
    assert "a.csv:203" in notes
    assert "a.csv:205: the only example of class 'lonely' in train" in notes


def test_wrong_numbers_name_the_row(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "NaN" if i == 7 else str(i)} for i in range(30)]
    notes = "\n".join(load(write(tmp_path / "a.jsonl", json_lines(rows)), labels="number").notes)
    assert re.search(r"no label: 1 \(first: .*a\.jsonl:8\)", notes)
    rows[7]["label"] = "inf"
    with pytest.raises(DataError, match=r"a\.jsonl:8: the label is 'inf'"):
        load(write(tmp_path / "a.jsonl", json_lines(rows)), labels="number")
    rows[7]["label"] = "many"
    with pytest.raises(DataError, match=r"a\.jsonl:8: the label 'many' is not a number"):
        load(write(tmp_path / "a.jsonl", json_lines(rows)), labels="number")


def test_a_misspelt_column(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", csv_of("text,label", ROWS))
    with pytest.raises(DataError, match=r"no column 'lable'; columns: 'text', 'label'\. Did you mean 'label'"):
        load(source, label_column="lable")


# Data that is there ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_docstrings_of_the_library_do_not_name_their_package() -> None:
    texts, packages = python_docstrings()
    assert len(texts) == len(packages) > 1000
    assert len(set(texts)) == len(texts)
    assert 10 <= len(set(packages)) <= 20
    assert not any(package in text.split() for text, package in zip(texts, packages, strict=True))
    splits = load(DOCSTRINGS)
    assert not any("word for word" in note for note in splits.notes)
    assert "own package is replaced" in " ".join(splits.notes)


@pytest.mark.real_data
@pytest.mark.skipif("MULTISTEP_DATA" not in os.environ, reason="needs the real data")
def test_real_data() -> None:
    data = Path(os.environ.get("MULTISTEP_DATA", ""))
    films = load(str(data / "sst2"))
    assert [len(part) for part in (films.train, films.validation, films.test)] == [6920, 872, 1821]
    reviews = load(str(data / "chnsenticorp"))
    assert [len(part) for part in (reviews.train, reviews.validation, reviews.test)] == [9600, 1200, 1200]
    notes = " ".join(reviews.notes)
    assert "validation: 338 of 1200 texts" in notes, "as the data's README counts them"
    assert "test: 331 of 1200 texts" in notes
    assert sum('"' in text for text in reviews.train.texts) > 10, "quotation marks are text"
