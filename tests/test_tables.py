"""Tables however they are written: delimiters, headers, encodings, JSON, spreadsheets, labels over several columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multistep.core.values.plan import DataSpec
from multistep.data.encodings import find_encoding
from multistep.data.files import read_table
from multistep.data.pieces import read_pieces
from multistep.errors import DataError, PlanError
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.text.splits import load_splits

TEXTS = [f"{'a fine film, really, number' if i % 2 else 'dull and far too long, this'} {i}" for i in range(40)]
NAMES = ["pos" if i % 2 else "neg" for i in range(40)]


def load(source: Path, **more: Any) -> LabelledSplits:
    return load_labelled(DataSpec(source=str(source), **more))


def lines(rows: Sequence[Sequence[str]], mark: str) -> str:
    return "".join(mark.join(row) + "\n" for row in rows)


# Fields ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "said"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")], ids=["semicolon", "tab", "bar"]
)
def test_the_delimiter_is_found_and_said(mark: str, said: str, tmp_path: Path) -> None:
    rows = [("text", "label"), *zip(TEXTS, NAMES, strict=True)]
    (tmp_path / "a.csv").write_text(lines(rows, mark), encoding="utf-8")
    found = load(tmp_path / "a.csv")
    assert found.labels.names == ("neg", "pos")
    assert sorted((*found.train.texts, *found.validation.texts, *found.test.texts)) == sorted(TEXTS)
    assert any(f"fields are separated by {said}; data.delimiter=CHARACTER names another" in n for n in found.notes)
    pieces = list(read_pieces(str(tmp_path / "a.csv"), 15))
    assert [text for piece in pieces for text in piece.table.column("text")] == TEXTS
    assert [len(piece.table) for piece in pieces] == [15, 15, 10]


def test_excels_line_that_names_the_delimiter_is_no_row(tmp_path: Path) -> None:
    rows = [("text", "label"), *zip(TEXTS, NAMES, strict=True)]
    content = "sep=;\r\n" + lines(rows, ";").replace("\n", "\r\n")
    (tmp_path / "a.csv").write_bytes(content.encode("utf-8-sig"))
    table = read_table(tmp_path / "a.csv")
    assert table.names == ("text", "label")
    assert (len(table), table.place(0)) == (40, f"{tmp_path / 'a.csv'}:3")
    (piece,) = read_pieces(str(tmp_path / "a.csv"), 100)
    assert (piece.table.column("text"), piece.table.place(39)) == (TEXTS, f"{tmp_path / 'a.csv'}:42")


def test_a_delimiter_that_is_named_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text^label\n" + lines(list(zip(TEXTS, NAMES, strict=True)), "^"))
    with pytest.raises(DataError, match=r"say what stands between the fields with data\.delimiter"):
        load(tmp_path / "a.csv")
    assert load(tmp_path / "a.csv", delimiter="^").labels.names == ("neg", "pos")


def test_backslashes_before_quotation_marks_are_understood(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"he said \\"no, never\\"",neg\n"fine, thanks",pos\n', encoding="utf-8")
    assert read_table(tmp_path / "a.csv").column("text") == ['he said "no, never"', "fine, thanks"]


def test_empty_columns_that_nobody_named_are_no_columns(tmp_path: Path) -> None:
    (tmp_path / "spam.csv").write_text("v1,v2,,,\n" + "ham,see you at 5 then,,,\nspam,you won a prize,,,\n" * 20)
    table = read_table(tmp_path / "spam.csv")
    assert table.names == ("v1", "v2")
    assert load_columns(tmp_path / "spam.csv") == ("v2", "v1")


def load_columns(source: Path) -> tuple[str, str | None]:
    from multistep.tasks.language.columns import find_columns

    found = find_columns(read_table(source), DataSpec(source=str(source)), labelled=True)
    return found.text, found.label


# Headers --------------------------------------------------------------------------------------------

SENTIMENT = [
    [("0", "4")[i % 2], str(1000 + i), f"Mon Apr 06 22:19:{i:02} PDT 2009", "NO_QUERY", f"user{i}", TEXTS[i]]
    for i in range(40)
]
COLA = [["gj04", str(i % 2), "" if i % 2 else "*", TEXTS[i]] for i in range(40)]
EMOTION = [[TEXTS[i], ("joy", "fear")[i % 2]] for i in range(40)]
LONG = "; and then it goes on for a good while, as reports do"
NEWS = [[str(1 + i % 4), f"Headline {i}", TEXTS[i] + LONG] for i in range(40)]


@pytest.mark.parametrize(
    ("rows", "mark", "columns"),
    [
        (SENTIMENT, ",", ("column 6", "column 1")),
        (COLA, "\t", ("column 4", "column 2")),
        (EMOTION, ";", ("column 1", "column 2")),
        (NEWS, ",", ("column 3", "column 1")),
    ],
    ids=["sentiment", "cola", "emotion", "news"],
)
def test_a_missing_header_is_seen_and_no_row_is_lost(
    rows: list[list[str]], mark: str, columns: tuple[str, str], tmp_path: Path
) -> None:
    quoted = [[f'"{field}"' for field in row] for row in rows] if mark == "," else rows
    path = tmp_path / ("a.tsv" if mark == "\t" else "a.csv")
    path.write_text(lines(quoted, mark), encoding="utf-8")
    table = read_table(path)
    assert len(table) == 40
    assert any("the first line looks like a row" in note and "data.header=true" in note for note in table.notes)
    assert load_columns(path) == columns
    assert sum(len(piece.table) for piece in read_pieces(str(path), 7)) == 40
    with pytest.raises(DataError):
        load(path, header=True, label_column="column 2")


@pytest.mark.parametrize(
    "header",
    ["text,label", "0,1", "What did you like about our shop?,Branch", "my review of it,verdict", "sentence_a_b,gold"],
)
def test_what_names_columns_is_a_header(header: str, tmp_path: Path) -> None:
    rows = [header.split(","), *([text.replace(",", ""), name] for text, name in zip(TEXTS, NAMES, strict=True))]
    (tmp_path / "a.csv").write_text(lines(rows, ","), encoding="utf-8")
    table = read_table(tmp_path / "a.csv")
    assert table.names == tuple(header.split(","))
    assert len(table) == 40


# Encodings ------------------------------------------------------------------------------------------

WRITTEN = {
    "cp1252": "le café était déjà vu à l'été, it’s £100 – “très” français",
    "cp1250": "żółć gęślą jaźń, są łąki i źdźbła",
    "cp1251": "привет, мир, как твои дела сегодня",
    "koi8_r": "привет, мир, как твои дела сегодня",
    "gb18030": "这部电影太好看了, 我很喜欢",
    "big5": "這部電影太好看了, 我很喜歡",
    "cp932": "この映画はとても面白いです, 大好き",
    "euc_kr": "이 영화는 정말 재미있다, 좋아요",
    "utf-16": "wide, déjà vu",
    "utf-16-le": "wide and plain, without a mark",
    "utf-8-sig": "déjà vu 你好",
    "utf-8": "déjà vu 你好",
}


@pytest.mark.parametrize("encoding", WRITTEN)
def test_the_encoding_is_found_and_a_guess_is_said(encoding: str, tmp_path: Path) -> None:
    texts = [f"{WRITTEN[encoding]} {i}" for i in range(30)]
    (tmp_path / "a.csv").write_bytes(("text\n" + "".join(f'"{text}"\n' for text in texts)).encode(encoding))
    table = read_table(tmp_path / "a.csv")
    assert table.column("text") == texts
    assert any("not UTF-8; read as" in note for note in table.notes) == (
        encoding not in ("utf-8", "utf-8-sig", "utf-16")
    )
    (piece,) = read_pieces(str(tmp_path / "a.csv"), 100)
    assert piece.table.column("text") == texts


def test_an_encoding_that_is_named_is_taken_and_one_bad_byte_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(("łąka " * 200).encode("iso8859_2"))
    assert load_splits_of(tmp_path / "a.txt", encoding="iso8859_2").startswith("łąka")
    damaged = ("déjà vu " * 50).encode() + b"\xff"
    found = find_encoding(damaged)
    assert found == ("utf-8", False), "a single byte makes no other encoding of it"


def load_splits_of(source: Path, encoding: str) -> str:
    from multistep.data.splits import given_splits
    from multistep.tasks.text.files import FORM

    tables, _ = given_splits(DataSpec(source=str(source), encoding=encoding), FORM)
    return str(tables["train"].column("text")[0])


# JSON and spreadsheets ------------------------------------------------------------------------------

OBJECTS = [{"text": text, "label": name} for text, name in zip(TEXTS, NAMES, strict=True)]
JSON: dict[str, Callable[[], str]] = {
    "a list": lambda: json.dumps(OBJECTS, indent=1),
    "a list under a name": lambda: json.dumps({"version": 1, "data": OBJECTS}),
    "columns": lambda: json.dumps({"text": TEXTS, "label": NAMES}),
    "columns by index": lambda: json.dumps({"text": dict(enumerate(TEXTS)), "label": dict(enumerate(NAMES))}),
    "rows by index": lambda: json.dumps(dict(enumerate(OBJECTS))),
    "an object a line": lambda: "".join(json.dumps(row) + "\n" for row in OBJECTS),
}


@pytest.mark.parametrize("form", JSON)
def test_json_however_its_rows_are_written(form: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(JSON[form](), encoding="utf-8")
    table = read_table(tmp_path / "a.json")
    assert (table.column("text"), table.column("label")) == (TEXTS, NAMES)
    assert len(load_splits({"train": str(tmp_path / "a.json")}, text_column="text").train) > 30, "a document a row"


def test_a_spreadsheet_is_read_by_its_first_sheet(tmp_path: Path) -> None:
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.title = "reviews"
    for row in [("text", "stars"), *((text, i % 5) for i, text in enumerate(TEXTS))]:
        book.active.append(row)
    book.create_sheet("old")
    book.save(tmp_path / "a.xlsx")
    table = read_table(tmp_path / "a.xlsx")
    assert (table.column("text"), list(table.column("stars"))[:6]) == (TEXTS, [0, 1, 2, 3, 4, 0])
    assert table.place(0).endswith("a.xlsx: row 2")
    assert "read from its first sheet, 'reviews'; left out: old" in table.notes[0]
    (tmp_path / "b.xlsx").write_bytes((tmp_path / "a.xlsx").read_bytes()[:500])
    with pytest.raises(DataError, match=r"b\.xlsx: not a spreadsheet that can be read"):
        read_table(tmp_path / "b.xlsx")


def test_a_file_that_is_no_text_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(DataError, match="not a text file but a ZIP archive"):
        read_table(tmp_path / "a.csv")


# Labels ---------------------------------------------------------------------------------------------


def rows_of(path: Path, labels: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps({"text": t, "label": v}) + "\n" for t, v in zip(TEXTS, labels, strict=True)))
    return path


@pytest.mark.parametrize("one", [1, 1.0, True])
def test_lists_of_zeros_and_ones_are_a_class_for_each_position(one: object, tmp_path: Path) -> None:
    hot = [[one if c == i % 3 or c == 0 else type(one)(0) for c in range(3)] for i in range(40)]  # type: ignore[call-arg]
    found = load(rows_of(tmp_path / "a.jsonl", hot))
    assert (found.labels.kind, found.labels.names) == ("classes", ("0", "1", "2"))
    assert found.train.labels.sum(0).tolist()[0] == len(found.train)
    assert any("lists of 3 zeros and ones, so each position is a class" in note for note in found.notes)
    written = [f"{t};{[int(c == i % 3 or c == 0) for c in range(3)]}" for i, t in enumerate(TEXTS)]
    (tmp_path / "b.csv").write_text("\n".join(["text;label", *written]) + "\n")
    again = load(tmp_path / "b.csv")
    assert again.labels == found.labels
    assert sum(p.labels.sum() for p in (again.train, again.validation, again.test)) == 40 + 26
    hot[3] = [one, one]
    with pytest.raises(
        DataError, match=r"a\.jsonl:4: the labels are .*, but as in training they must be 3 zeros and ones"
    ):
        load(rows_of(tmp_path / "a.jsonl", hot))


def test_lists_of_names_stay_names(tmp_path: Path) -> None:
    found = load(rows_of(tmp_path / "a.jsonl", [[0, 1] if i % 3 else [1] for i in range(40)]))
    assert found.labels.names == ("0", "1")
    assert found.train.labels.mean() > 0.7, "one of three rows lacks the class 0, none the class 1"


def test_columns_of_zeros_and_ones_are_labels(tmp_path: Path) -> None:
    several = [f'"{t}",{i % 2},{int(i % 5 == 0)}' for i, t in enumerate(TEXTS)]
    (tmp_path / "a.csv").write_text("comment_text,toxic,insult\n" + "\n".join(several) + "\n")
    found = load(tmp_path / "a.csv")
    assert (found.labels.kind, found.labels.names) == ("classes", ("insult", "toxic"))
    single = [f'"{t}",{int(i % 3 == 0)},{int(i % 3 == 1)},{int(i % 3 == 2)}' for i, t in enumerate(TEXTS)]
    (tmp_path / "b.csv").write_text("text,red,green,blue\n" + "\n".join(single) + "\n")
    found = load(tmp_path / "b.csv")
    assert (found.labels.kind, found.labels.names) == ("class", ("blue", "green", "red"))
    assert any("labels from 3 columns of zeros and ones, one class a row" in note for note in found.notes)


def test_decimal_commas_are_numbers_and_lists_of_numbers_are_classes(tmp_path: Path) -> None:
    found = load(rows_of(tmp_path / "a.jsonl", [f"{i % 5},{i:02}" for i in range(40)]))
    assert found.labels.kind == "number"
    assert float(found.train.labels.max()) == pytest.approx(4.3, abs=0.1)
    found = load(rows_of(tmp_path / "b.jsonl", [("0,27", "3", "27", "0")[i % 4] for i in range(40)]))
    assert (found.labels.kind, found.labels.names) == ("classes", ("0", "3", "27"))


def test_class_weights_let_all_classes_contribute_alike(tmp_path: Path) -> None:
    path = rows_of(tmp_path / "a.jsonl", ["rare" if i % 8 == 0 else "usual" for i in range(40)])
    plain, found = load(path), load(path, class_weights="balanced")
    assert plain.weights is None
    assert found.weights is not None
    counts = np.bincount(found.train.labels.astype(int))
    assert np.allclose(counts * found.weights, len(found.train) / 2)
    assert plain.fingerprint != found.fingerprint
    with pytest.raises(PlanError, match="the labels are numbers, which have no classes"):
        load(rows_of(tmp_path / "b.jsonl", [i / 7 for i in range(40)]), class_weights="balanced")


def test_copies_of_few_texts_are_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "fine,pos\nbad,neg\n" * 50)
    with pytest.raises(DataError, match="the 100 rows hold 2 different texts, and equal ones stay in one split"):
        load(path)


# Folders of code ------------------------------------------------------------------------------------


def test_code_is_read_at_any_depth_without_what_is_hidden_or_anothers(tmp_path: Path) -> None:
    for i in range(30):
        file = tmp_path / ("src" if i % 2 else "test/unit") / f"mod{i}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def function_{i}(x):\n    return x + {i}\n" * 10)
    for name in (
        "node_modules/z/index.js",
        ".git/config.py",
        "src/__pycache__/a.py",
        "README.md",
        "logo.png",
        "min.js",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x" * 3000)
    found = load_splits(str(tmp_path))
    assert len((*found.train, *found.validation, *found.test)) == 30
    said = " ".join(found.notes)
    assert "30 files of code at any depth (.py 30), each a document; left out: 2 hidden; 1 in node_modules" in said
    assert "1 minified" in said
