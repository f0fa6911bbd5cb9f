"""Splits that the data names by columns, files and folders, the same in every domain; and cuts of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_language import opinions

from multistep.core.values.plan import DataSpec
from multistep.data.names import NAMES, splits_among
from multistep.data.splits import held_out_table
from multistep.errors import DataError
from multistep.tasks.images.splits import load_splits as load_images
from multistep.tasks.images.splits import look_through
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.rows import FORM, is_table
from multistep.tasks.language.spans import load_all, load_texts
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.speech.splits import read_splits as read_speech
from multistep.tasks.text.files import read_documents
from multistep.tasks.text.manual import MANUAL
from multistep.tasks.text.splits import load_splits as load_text

ROWS = [(f"{text} {i}", "good" if label else "bad") for i, (text, label) in enumerate(opinions(100, 0))]
SPLITS = ["train", "TRAIN", "train", "Val", "test"]  # of the rows in turn


def write(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return str(path)


def csv_of(header: str, rows: list[tuple[object, ...]]) -> str:
    return "\n".join([header, *(",".join(f'"{value}"' for value in row) for row in rows)]) + "\n"


def marked(path: Path, header: str = "text,label,split", splits: list[str] = SPLITS) -> str:
    """A table whose rows are in these splits in turn."""
    return write(path, csv_of(header, [(*row, splits[i % len(splits)]) for i, row in enumerate(ROWS)]))


def load(source: str, **columns: Any) -> LabelledSplits:
    return load_labelled(DataSpec(source=source, **columns))


def sizes(splits: LabelledSplits) -> list[int]:
    return [len(splits.train), len(splits.validation), len(splits.test)]


# Columns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["text,label,split", "text,label,Subset", "opinion,verdict,PARTITION"])
def test_a_column_of_splits_is_obeyed_by_all_who_read_the_table(header: str, tmp_path: Path) -> None:
    source = marked(tmp_path / "a.csv", header)
    splits = load(source)
    assert splits.test.texts == tuple(text for text, _ in ROWS[4::5])
    assert splits.validation.texts == tuple(text for text, _ in ROWS[3::5])
    assert sizes(splits) == [60, 20, 20]
    column = header.split(",")[2]
    assert f"{source}: splits from column '{column}': train 60, validation 20, test 20 rows" in splits.notes
    assert not any("cut into" in note for note in splits.notes)
    hidden = load_texts(DataSpec(source=source))
    assert (hidden.train.texts, hidden.test.texts) == (splits.train.texts, splits.test.texts)
    name = header.split(",")[0]
    written = load_text(source, text_column=name)
    assert (written.train, written.validation, written.test) == (
        splits.train.texts,
        splits.validation.texts,
        splits.test.texts,
    )
    assert read_documents(source, text_column=name).texts == splits.test.texts, "what is scored"
    assert load_all(DataSpec(source=source)).texts == splits.test.texts


def test_what_a_column_of_splits_lacks_is_cut_or_asked_for(tmp_path: Path) -> None:
    source = marked(tmp_path / "a.csv", splits=["train", "train", "train", "train", "testing"])
    splits = load(source)
    assert sizes(splits) == [72, 8, 20], "validation is cut from train, test stays as it is"
    assert sizes(load(marked(tmp_path / "b.csv", splits=["train"]))) == [80, 10, 10]
    with pytest.raises(DataError, match=r"c\.csv: has validation, test but no train split; call the training data"):
        load(marked(tmp_path / "c.csv", splits=["dev", "test"]))
    with pytest.raises(DataError, match=r"d\.csv:3: unknown split 'trian' in 'split'.*Did you mean 'train'"):
        load(marked(tmp_path / "d.csv", splits=["train", "trian", "test"]))
    with pytest.raises(DataError, match=r"e\.csv:4: no split, though other rows have one in 'split'"):
        load_text(marked(tmp_path / "e.csv", splits=["train", "test", ""]), text_column="text")


def test_a_column_that_names_no_splits_is_left_where_it_is(tmp_path: Path) -> None:
    source = marked(tmp_path / "a.csv", "text,label,subset", splits=["books", "films"])
    splits = load(source)
    assert sizes(splits) == [80, 10, 10]
    assert f"{source}: column 'subset' names no splits ('books', 'films'), so rows are not split by it" in splits.notes
    named = load(marked(tmp_path / "b.csv", "text,label,split"), label_column="split")
    assert named.labels.names == ("TRAIN", "Val", "test", "train"), "what the user names is no column of splits"


def test_the_tables_of_a_folder_agree_on_their_column(tmp_path: Path) -> None:
    marked(tmp_path / "a.csv")
    marked(tmp_path / "b.csv")
    assert sizes(load(str(tmp_path))) == [120, 40, 40]
    assert load(str(tmp_path)).test.texts[:2] == (ROWS[4][0], ROWS[9][0])
    assert len(load_text(str(tmp_path), text_column="text").test) == 40
    write(tmp_path / "c.csv", csv_of("text,label", [*ROWS]))
    with pytest.raises(DataError, match=r"c\.csv: no column says which split a row is in, but .*a\.csv has one"):
        load(str(tmp_path))


def test_labels_of_a_test_split_that_are_not_told_leave_it_out(tmp_path: Path) -> None:
    rows = [(text, "" if i % 5 == 4 else label, SPLITS[i % 5]) for i, (text, label) in enumerate(ROWS)]
    splits = load(write(tmp_path / "a.csv", csv_of("text,label,split", [*rows])))
    assert sizes(splits) == [60, 20, 0]
    assert "left out, since its labels are not told" in " ".join(splits.notes)


# Names ----------------------------------------------------------------------------------------------


def test_longer_names_count_beside_others_that_differ_in_the_split_alone() -> None:
    assert splits_among(["seg_train", "seg_test", "seg_pred"]) == {"seg_train": "train", "seg_test": "test"}
    assert splits_among(["training_set", "test_set"]) == {"training_set": "train", "test_set": "test"}
    assert splits_among(["ptb.train", "ptb.valid"]) == {"ptb.train": "train", "ptb.valid": "validation"}
    assert splits_among(["train", "test", "test_clean"]) == {"train": "train", "test": "test"}
    assert splits_among(["train_station", "test_tube", "desk"]) == {}
    assert splits_among(["Train", " TEST "]) == {"Train": "train", " TEST ": "test"}


def labelled(path: Path) -> None:
    write(path.with_suffix(".csv"), csv_of("text,label", [*ROWS[:30]]))


def spoken(path: Path) -> None:
    write(path.with_suffix(".csv"), csv_of("path,text", [(f"{i}.wav", text) for i, (text, _) in enumerate(ROWS[:30])]))


def running(path: Path) -> None:
    write(path.with_suffix(".txt"), f"{path.stem}: " + "\n".join(text for text, _ in ROWS))


def pictures(path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for i in range(20):
        file = path / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.new("L", (4, 4), sum(path.name.encode()) % 8 + 8 * i).save(file)


def speech_notes(source: str) -> tuple[list[int], tuple[str, ...]]:
    found = read_speech(DataSpec(source=source))
    return [len(found.train), len(found.validation), len(found.test)], found.notes


def image_notes(source: str) -> tuple[list[int], tuple[str, ...]]:
    found = load_images(look_through(DataSpec(source=source)))
    return [len(found.train), len(found.validation), len(found.test)], found.notes


def label_notes(source: str) -> tuple[list[int], tuple[str, ...]]:
    found = load(source)
    return sizes(found), found.notes


def text_notes(source: str) -> tuple[list[int], tuple[str, ...]]:
    found = load_text(source)
    assert found.train[0].lower().startswith("train")
    return [len(found.train), len(found.validation), len(found.test)], found.notes


Read = Callable[[str], tuple[list[int], tuple[str, ...]]]
DOMAINS: dict[str, tuple[Callable[[Path], None], Read, int]] = {
    "language": (labelled, label_notes, 30),
    "speech": (spoken, speech_notes, 30),
    "text": (running, text_notes, 1),
    "images": (pictures, image_notes, 20),
}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_same_names_of_splits_in_every_domain(domain: str, tmp_path: Path) -> None:
    put, read, size = DOMAINS[domain]
    for number, (train, validation, test) in enumerate(
        [("train", "validation", "test"), ("training", "development", "testing"), ("Train", "eval", "TEST")]
    ):
        for name in (train, validation, test, "test_clean"):
            put(tmp_path / str(number) / name)
        # Speech joins what begins with the same word, as LibriSpeech names its parts.
        expected = [size, size, 2 * size if domain == "speech" else size]
        found, notes = read(str(tmp_path / str(number)))
        assert found == expected
        assert domain == "speech" or any("left out, since their" in note and "test_clean" in note for note in notes)


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_without_train_are_no_pool(domain: str, tmp_path: Path) -> None:
    put, read, _ = DOMAINS[domain]
    for name in ("dev", "test"):
        put(tmp_path / name)
    with pytest.raises(DataError, match="train split"):
        read(str(tmp_path))
    if domain == "speech":
        return
    for name in ("dev", "test"):
        put(tmp_path / "longer" / f"my_{name}")
    with pytest.raises(DataError, match="train split"):
        read(str(tmp_path / "longer"))
    for name in ("test", "whatever"):
        put(tmp_path / "one" / name)
    with pytest.raises(DataError, match="train split"):
        read(str(tmp_path / "one"))


def test_suffixes_in_capitals_are_splits_too(tmp_path: Path) -> None:
    train = write(tmp_path / "Train.CSV", csv_of("text,label", [*ROWS]))
    write(tmp_path / "Test.Csv", csv_of("text,label", [*ROWS[:10]]))
    splits = load(str(tmp_path))
    assert sizes(splits) == [90, 10, 10]
    assert f"{train}: cut into train 90, validation 10 rows" in splits.notes
    assert held_out_table(DataSpec(source=str(tmp_path)), FORM).origin == str(tmp_path / "Test.Csv")


def test_a_script_makes_no_split_of_the_texts_beside_it(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / f"{i}.txt", f"Text number {i} says hello to number {i + 1}.\n" * 2)
    write(tmp_path / "test.py", "assert True\n")
    found = load_text(str(tmp_path))
    assert len(found.train) + len(found.validation) + len(found.test) == 20
    write(tmp_path / "test.txt", "Text number 21.\n")
    with pytest.raises(DataError, match=r"has test\.txt but no train split; call the training data 'train', or name"):
        load_text(str(tmp_path))
    assert read_documents(str(tmp_path)).texts == ("Text number 21.\n",), "to score it takes no train split"


def test_of_a_data_set_the_held_out_split_is_scored_by_any_name(tmp_path: Path) -> None:
    import datasets

    part = datasets.Dataset.from_dict({"text": [t for t, _ in ROWS], "label": [n for _, n in ROWS]})
    datasets.DatasetDict({"training": part, "dev": part.select(range(3))}).save_to_disk(tmp_path / "set")
    source = str(tmp_path / "set")
    assert len(held_out_table(DataSpec(source=source), FORM)) == 3
    assert is_table(source)
    datasets.DatasetDict({"test": part}).save_to_disk(tmp_path / "one")
    with pytest.raises(DataError, match="has test but no train split"):
        load(str(tmp_path / "one"))
    assert set(NAMES.values()) == {"train", "validation", "test"}


def test_hidden_words_of_whatever_text_generation_reads(tmp_path: Path) -> None:
    assert not is_table(MANUAL)
    assert load_texts(DataSpec(source=MANUAL)).test.texts == load_text(MANUAL).test
    for split in ("train", "test"):
        marked(tmp_path / split / "1.csv", "text,label,part")
    assert is_table(str(tmp_path)), "tables in folders of splits are tables"


# Cuts -----------------------------------------------------------------------------------------------


def lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rare_tags() -> str:
    tags = [["x"], ["y", "x"], ["z"], []]
    return lines(
        [{"text": f"text {i}", "labels": [*tags[i % 4], *([f"r{i}"] if i % 9 == 0 else [])]} for i in range(90)]
    )


def few_of_each() -> str:
    return lines([{"text": f"say {i}", "label": f"intent {i % 25}"} for i in range(60)])


def two_labels_a_text() -> str:
    rare = [{"text": f"same {i}", "label": label} for i in range(15) for label in ("usual", f"rare {i}")]
    return lines([*rare, *({"text": f"other {i}", "label": "usual"} for i in range(60))])


@pytest.mark.parametrize("make", [rare_tags, few_of_each, two_labels_a_text])
def test_a_cut_takes_no_labels_last_training_example(make: Callable[[], str], tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", make())
    splits = load(source)  # raised "does not occur in training ... add examples" for what it had cut away itself
    truth = splits.train.labels
    several = splits.labels.kind == "classes"
    there = np.flatnonzero(truth.sum(0)) if several else np.unique(truth)
    assert len(there) == len(splits.labels.names), "each class has an example in train"
    assert min(sizes(splits)) >= 5
    assert load_texts(DataSpec(source=source)).train.texts == splits.train.texts, "hidden words see the same cut"


def test_what_labels_are_is_seen_in_all_that_is_cut(tmp_path: Path) -> None:
    for odd in range(20):
        rows = [{"text": f"text {i}", "label": 2.5 if i == odd else i % 20} for i in range(60)]
        assert load(write(tmp_path / "a.jsonl", lines(rows))).labels.kind == "number", "wherever the fraction went"
