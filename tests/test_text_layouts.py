"""Texts as public sets and tools for labelling lay them out: which text, label and split each has, and what is said."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cases_language import opinions

from multistep.core.values.plan import DataSpec
from multistep.data.names import splits_among
from multistep.errors import DataError
from multistep.tasks.language.splits import LabelledSplits, load_labelled
from multistep.tasks.text.files import read_documents

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


def test_names_of_splits_that_go_on() -> None:
    glue = ["train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"]
    assert splits_among(glue) == {"train": "train", "dev_matched": "validation", "test_matched": "test"}
    assert splits_among(["train", "val", "testA", "testB"]) == {"train": "train", "val": "validation", "testA": "test"}
    assert splits_among(["train", "held_out"]) == {"train": "train", "held_out": "test"}
    assert splits_among(["train2017", "val2017"]) == {"train2017": "train", "val2017": "validation"}
    assert splits_among(["train_station", "test_tube", "train99", "MNIST2019"]) == {}
