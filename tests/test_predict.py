"""Predictions for the rows of files: read piece by piece, answered, written beside what the rows hold already."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from cases_images import picture, small_swin
from cases_language import RECIPE, opinions, rows_of, several_inputs, write_classes, write_numbers, write_several
from PIL import Image
from pyarrow import parquet
from tiny_chat import CHATML, tiny_llama, tiny_tokenizer, write_tiny_chat

from multistep import api
from multistep.cli import main
from multistep.core.evidence.brief import in_single_precision
from multistep.core.values.plan import DataSpec
from multistep.data.files import read_table
from multistep.data.pieces import read_pieces
from multistep.data.table import of_columns
from multistep.data.text import opened_bytes
from multistep.engine.clock import BudgetClock
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.errors import DataError, PlanError
from multistep.tasks import predicting
from multistep.tasks.chat.answers import exchanges, prompt_tokens
from multistep.tasks.chat.encode import write_all
from multistep.tasks.chat.formats import read_conversations
from multistep.tasks.chat.reply import _turns, predictor
from multistep.tasks.chat.talk import Writer, load_writer
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.prediction import Asked
from multistep.tasks.text.generate import generate
from multistep.tasks.written import writing

Verb = Callable[..., str]


def trained(folder: Path, write: Callable[[Path], DataSpec]) -> Path:
    """The model folder of a bag of words that saw the texts for 30 steps."""
    content = {"task": "text-classification", "model": "bag", "recipe": RECIPE, "ship": "network"}
    length = {"phases": [{"name": "only", "until": "30 steps"}]}
    plan = plan_from({**content, **length, "data": write(folder)})
    return api.run(plan, RunDirectory(folder / "run"), clock=BudgetClock(FakeClock().now)).model


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("classes"), write_classes)


@pytest.fixture
def multistep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """The command line, in this process and in the test's folder: what it says on standard output or, where another
    exit code than 0 is expected, on standard error.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def verb(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["multistep", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == code, said
        return said.err if code else said.out

    return verb


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_metrics_are_asked_for_by_name(bag: Path, tmp_path: Path, multistep: Verb) -> None:
    (tmp_path / "rows.csv").write_text("review,verdict\n" + "it was great,good\nit was bad,bad\n" * 4, encoding="utf-8")
    data = ("evaluate", str(bag), "--data", "rows.csv", "--json")
    every = json.loads(multistep(*data))["scores"]
    some = json.loads(multistep(*data, "--metric", "f1", "--metric", "accuracy"))["scores"]
    assert list(some) == ["macro_f1", "accuracy"]
    assert some == {name: every[name] for name in some}


def test_a_table_comes_back_with_labels_row_by_row(bag: Path, tmp_path: Path, multistep: Verb) -> None:
    texts = [text for text, _ in opinions(30, seed=9)]
    texts[3] = 'cold, "stupid"\nand what a bore'
    texts[7] = ""
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "review", "prediction"], *([i, text, "?"] for i, text in enumerate(texts))])
    said = multistep("predict", str(bag), "--input", "in.csv", "--output", "out.csv", "--json")
    assert json.loads(said) == {"model": str(bag), "input": "in.csv", "rows": 30, "without": 1, "output": "out.csv"}
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["id", "review", "prediction", "prediction_", "probability"]
    assert [(row["id"], row["review"], row["prediction"]) for row in found] == [
        (str(i), text, "?") for i, text in enumerate(texts)
    ]
    assert (found[7]["prediction_"], found[7]["probability"]) == ("", "")
    there = [row for row in found if row["review"]]
    by_hand = api.predict(bag, [row["review"] for row in there])
    assert [row["prediction_"] for row in there] == [p.output for p in by_hand]
    assert {p.output for p in by_hand} == {"good", "bad"}
    assert [float(row["probability"]) for row in there] == pytest.approx([p.probability for p in by_hand], abs=1e-6)
    assert max(len(row["probability"]) for row in there) <= 11, "as many digits as single precision has"
    shown = multistep("predict", str(bag), "--input", "in.csv").splitlines()
    assert [json.loads(line)["prediction_"] for line in shown if json.loads(line)["review"]] == [
        p.output for p in by_hand
    ]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.csv", "out.csv"]


def test_pieces_of_one_size_or_another_say_the_same(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": text, "more": {"deep": [i]}} for i, (text, _) in enumerate(opinions(25, seed=4))]
    del rows[13]["text"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    told: list[tuple[int, float | None]] = []
    whole = api.predict_file(bag, tmp_path / "in.jsonl", tmp_path / "whole.jsonl")
    assert (whole.rows, whole.without) == (25, 1)
    assert f"rows without an answer: 1 of 25 (first: {tmp_path / 'in.jsonl'}:14: no text)" in caplog.text
    assert caplog.text.count("text from 'text' (of 'text', 'more')") == 1
    load = predicting.load_predictor
    monkeypatch.setattr(predicting, "load_predictor", lambda *given: replace(load(*given), at_once=4))
    api.predict_file(bag, tmp_path / "in.jsonl", tmp_path / "pieces.jsonl", on_progress=lambda *done: told.append(done))
    assert [done for done, _ in told] == [4, 8, 12, 16, 20, 24, 25]
    assert told[-1][1] == 1.0
    pieces, at_once = records(tmp_path / "pieces.jsonl"), records(tmp_path / "whole.jsonl")
    assert [{**row, "probability": None} for row in pieces] == [{**row, "probability": None} for row in at_once]
    assert [row["more"] for row in pieces] == [row["more"] for row in rows]
    api.predict_file(bag, tmp_path / "in.jsonl", tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")[1] == '{"deep": [0]}'
    (tmp_path / "grows.jsonl").write_text('{"text": "a"}\n' * 4 + '{"text": "a", "new": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"grows.jsonl:5: here rows begin to have 'new', .*; ask for a .jsonl file"):
        api.predict_file(bag, tmp_path / "grows.jsonl", tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()
    assert not list(tmp_path.glob(".*")), "nothing is left of what failed"


def test_numbers_and_pairs_are_answered_too(tmp_path: Path, multistep: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, write in (("numbers", write_numbers), ("pairs", write_several)):
        (tmp_path / name).mkdir()
        trained(tmp_path / name, write)
    api.predict_file(tmp_path / "numbers/run/model", tmp_path / "numbers/test.tsv", tmp_path / "numbers.jsonl")
    rows = records(tmp_path / "numbers.jsonl")
    assert list(rows[0]) == ["sentence", "score", "prediction"]
    by_hand = api.predict(tmp_path / "numbers/run/model", [row["sentence"] for row in rows])
    assert [row["prediction"] for row in rows] == pytest.approx([float(p.output) for p in by_hand], rel=1e-4)
    assert np.std([row["prediction"] for row in rows]) > 1
    api.predict_file(tmp_path / "pairs/run/model", tmp_path / "pairs/test.jsonl", tmp_path / "pairs.jsonl")
    for wrong, why in (
        (("a", ""), "holds a blank text"),
        (("a", None), r"is \('a', None\); allowed: a text, or a pair of two texts"),
        (["a", "b", "c"], r"is \['a', 'b', 'c'\]; allowed"),
    ):
        with pytest.raises(DataError, match=rf"inputs: number 1 \(from 0\) {why}"):
            api.predict(tmp_path / "pairs/run/model", [("a", "b"), wrong])
    rows = records(tmp_path / "pairs.jsonl")
    by_hand = api.predict(tmp_path / "pairs/run/model", [f"{row['text1']} ||| {row['text2']}" for row in rows])
    assert [row["prediction"] for row in rows] == [p.output for p in by_hand]
    piped = io.BytesIO("".join(f"{row['text1']} ||| {row['text2']}\n" for row in rows).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(piped)))
    out = multistep("predict", str(tmp_path / "pairs/run/model"), "-")
    assert [json.loads(line)["prediction"] for line in out.splitlines()] == [p.output for p in by_hand]
    (tmp_path / "single.csv").write_text("text\na lovely film\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"single.csv: one text a row, but .* was trained on pairs; name --text-column"):
        api.predict_file(tmp_path / "pairs/run/model", tmp_path / "single.csv", tmp_path / "x.csv")


def test_numbers_have_as_many_digits_as_single_precision(tmp_path: Path) -> None:
    def write_prices(folder: Path) -> DataSpec:
        spec = write_numbers(folder)
        for path in folder.glob("*.tsv"):
            first, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
            lines = [first, *([text, f"{1_234_567.8 + 300 * float(score):.2f}"] for text, score in rows)]
            path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
        return spec

    model = trained(tmp_path, write_prices)
    by_hand = [p.output for p in api.predict(model, [text for text, _ in opinions(20, seed=9)])]
    assert all(re.fullmatch(r"12\d{5}(\.\d+)?", said) for said in by_hand), by_hand
    assert max(map(len, by_hand)) > len("1234567")
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text, _ in opinions(20, seed=9)), encoding="utf-8")
    api.predict_file(model, tmp_path / "in.txt", tmp_path / "out.csv")
    assert [row["prediction"] for row in rows_of(tmp_path / "out.csv")] == by_hand
    api.predict_file(model, tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert [row["prediction"] for row in records(tmp_path / "out.jsonl")] == [float(said) for said in by_hand]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1_234_567.8, "1234567.8"),
        (5.0, "5"),
        (-0.1, "-0.1"),
        (0.0, "0"),
        (1e15, "1000000000000000"),
        (3e20, "3e+20"),
        (0.00002, "0.00002"),
        (2e-9, "2e-09"),
        (3e39, "3e+39"),
        (math.inf, "inf"),
    ],
)
def test_a_number_of_single_precision_is_written_as_a_person_would(value: float, written: str) -> None:
    assert in_single_precision(value) == written
    assert float(written) == pytest.approx(value)


def test_a_table_given_as_an_argument_is_predicted_row_by_row(bag: Path, tmp_path: Path, multistep: Verb) -> None:
    texts = [text for text, _ in opinions(12, seed=5)]
    rows = [{"id": i, "label": "?", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "test.csv").write_text("id,label,text\n" + "".join(f"{i},?,{t}\n" for i, t in enumerate(texts)))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    by_hand = api.predict(bag, texts)
    for source in ("test.csv", "test.jsonl", "test.json"):
        multistep("predict", str(bag), source, "--output", "out.csv", "--batch-size", "5", "--top-k", "2")
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
        assert [(row["id"], row["label"], row["text"]) for row in found] == [
            (str(r["id"]), "?", r["text"]) for r in rows
        ]
        assert [row["prediction"] for row in found] == [p.output for p in by_hand]
        assert [{row["prediction"], row["prediction_2"]} for row in found] == [{"good", "bad"}] * 12
        sums = [float(row["probability"]) + float(row["probability_2"]) for row in found]
        assert sums == pytest.approx([1.0] * 12, abs=1e-5)
    shown = multistep("predict", str(bag), "test.csv", "test.jsonl", "a lovely film", "--top-k", "2")
    lines = [json.loads(line) for line in shown.splitlines()]
    assert [line["text"] for line in lines] == [*texts, *texts, "a lovely film"]
    assert [line["top"][0]["label"] for line in lines] == [line["prediction"] for line in lines]
    assert [p.output for p in api.predict(bag, tmp_path / "test.csv")] == [p.output for p in by_hand]


def test_of_several_labels_the_likeliest_has_columns_too(tmp_path: Path) -> None:
    model = trained(tmp_path, write_several)
    pairs = several_inputs(tmp_path)
    named = DataSpec(source=str(tmp_path / "test.jsonl"), text_column="text1", second_text_column="text2")
    for top_k in (1, 2):
        api.predict_file(model, named, tmp_path / "out.csv", top_k=top_k)
        rows = rows_of(tmp_path / "out.csv")
        ranks = range(1, top_k + 1)
        new = ["prediction", "probability", *(f"{name}_{k}" for k in ranks for name in ("prediction", "probability"))]
        assert list(rows[0]) == ["text1", "text2", "labels", *new]
        for row, said in zip(rows, api.predict(model, pairs), strict=True):
            ranked = sorted(said.others.items(), key=lambda pair: -pair[1])[:top_k]
            assert [row[f"prediction_{k}"] for k in ranks] == [label for label, _ in ranked]
            told = [float(row[f"probability_{k}"]) for k in ranks]
            assert told == pytest.approx([share for _, share in ranked], abs=1e-5)


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_what_is_written_is_read_as_the_same_cells(tmp_path: Path, packed: str) -> None:
    marked = [
        'a "fine" film',
        '"fine" it was',
        '"open',
        'close"',
        'back\\"slash',
        '{"deep": [0]}',
        "commas, too; no | bar",
    ]
    broken = ["a\ttab", "two\nlines", "old\rMac", ' "after" a space', "x\n\ty"]
    for name in ("out.csv", "out.tsv"):
        path = tmp_path / f"{name}{packed}"
        for texts in (marked, [*marked, *broken], [*broken, *marked], [*marked * 60, "late\tand\nbroken", *marked]):
            table = of_columns("the rows", {"text": texts, "more": texts[::-1]})
            with writing(str(path)) as write:
                for at in range(0, len(texts), 50):
                    some = table.take(range(at, min(at + 50, len(texts))))
                    write(some, {"prediction": ["good"] * len(some), "probability": [0.5] * len(some)})
            found = read_table(path)
            assert {column: found.column(column) for column in found.names} == {
                "text": texts,
                "more": texts[::-1],
                "prediction": ["good"] * len(texts),
                "probability": ["0.5"] * len(texts),
            }
            assert [text for piece in read_pieces(str(path), 40) for text in piece.table.column("text")] == texts
            assert not found.notes
            if name.endswith(".tsv") and texts == marked:
                with opened_bytes(path) as file:
                    lines = file.read().decode().splitlines()
                assert lines[1].split("\t")[0] == texts[0], "a mark in a cell is no reason for more of them"
    assert len(list(tmp_path.iterdir())) == 2, "nothing is left beside"


def test_a_packed_output_is_packed(bag: Path, tmp_path: Path, multistep: Verb) -> None:
    (tmp_path / "in.txt").write_text("a lovely film\nwhat a bore\n", encoding="utf-8")
    for name in ("out.csv.gz", "out.jsonl.gz", "out.tsv.GZ", "out.jsonl.zst"):
        api.predict_file(bag, tmp_path / "in.txt", tmp_path / name)
        packed = (tmp_path / name).read_bytes()
        assert packed.startswith(b"\x1f\x8b" if name.lower().endswith(".gz") else b"\x28\xb5\x2f\xfd")
        table = read_table(tmp_path / name)
        assert table.names == ("text", "prediction", "probability")
        assert table.column("text") == ["a lovely film", "what a bore"]
    said = multistep("predict", str(bag), "in.txt", "--output", "out.parquet.gz", code=2)
    assert "out.parquet.gz: a .parquet file is packed within; leave out the .gz" in said
    said = multistep("predict", str(bag), "in.txt", "--output", "out.csv.bz2", code=2)
    assert "allowed: .csv, .tsv, .jsonl, .parquet, all but .parquet also with .gz or .zst behind it" in said


def test_columns_of_the_training_data_are_found_again_and_others_are_said(
    bag: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = "a very long remark that is no opinion at all, " * 3
    (tmp_path / "same.csv").write_text(f'note,review\n"{long}",a lovely film\n', encoding="utf-8")
    api.predict_file(bag, tmp_path / "same.csv", tmp_path / "out.jsonl")
    assert "same.csv: text from 'review' (of 'note', 'review'), as in training" in caplog.text
    (tmp_path / "other.csv").write_text("number,remark\n1,a lovely film\n", encoding="utf-8")
    api.predict_file(bag, tmp_path / "other.csv", tmp_path / "out.jsonl")
    assert "text from 'remark' (of 'number', 'remark'); in training it was 'review'" in caplog.text
    assert json.loads((bag / "multistep.json").read_text())["columns"] == {
        "text_column": "review",
        "label_column": "label",
    }


def bag_of(folder: Path, name: str, written: str | bytes, **data: Any) -> Path:
    """A bag of words trained on a file that is written as it is here."""

    def write(folder: Path) -> DataSpec:
        source = folder / name
        source.write_bytes(written if isinstance(written, bytes) else written.encode())
        return DataSpec(source=str(source), **data)

    return trained(folder, write)


def answers(model: Path, source: Path) -> list[dict[str, Any]]:
    done = api.predict_file(model, source, source.with_suffix(".out.jsonl"))
    rows = records(source.with_suffix(".out.jsonl"))
    assert done.rows == len(rows)
    return rows


def test_tables_are_read_as_those_of_training_were_where_they_do_not_say_how(tmp_path: Path) -> None:
    rows = [(text.replace(",", ""), label) for text, label in opinions(200, seed=1)]
    model = bag_of(
        tmp_path,
        "train.csv",
        "text#label\n" + "".join(f"{text}#{label}\n" for text, label in rows),
        delimiter="#",
        text_column="text",
        label_column="label",
    )
    about = json.loads((model / "multistep.json").read_text())
    assert about["reading"] == {"delimiter": "#"}
    some, by_hand = rows[:3], [said.output for said in api.predict(model, [text for text, _ in rows[:3]])]
    for name, written in {
        "alike.csv": "id#text\n" + "".join(f"{i}#{text}\n" for i, (text, _) in enumerate(some)),
        "usual.csv": "id,text\n" + "".join(f"{i},{text}\n" for i, (text, _) in enumerate(some)),
    }.items():
        (tmp_path / name).write_text(written, encoding="utf-8")
        found = answers(model, tmp_path / name)
        assert [(row["text"], row["prediction"]) for row in found] == [
            (text, said) for (text, _), said in zip(some, by_hand, strict=True)
        ]
    assert api.evaluate(model, tmp_path / "train.csv")["examples"] == len(rows)
    said = api.predict_file(model, tmp_path / "alike.csv", tmp_path / "o.jsonl", delimiter=";")
    assert (said.rows, next(iter(records(tmp_path / "o.jsonl")[0]))) == (3, "id#text")  # what the user says counts


@pytest.mark.parametrize("told", [None, False])
def test_a_first_row_without_names_is_answered_too(tmp_path: Path, told: bool | None) -> None:
    rows = [(text.replace(",", ""), label) for text, label in opinions(200, seed=1)]
    model = bag_of(tmp_path, "train.csv", "".join(f"{text},{label}\n" for text, label in rows), header=told)
    texts = [f"a film that is {text}" for text, _ in rows[:2]]
    for name, lines in {"one.csv": texts, "two.csv": [f"{text},3" for text in texts]}.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert [row["column 1"] for row in answers(model, tmp_path / name)] == texts
    (tmp_path / "named.csv").write_text("text,id\n" + f"{texts[0]},1\n", encoding="utf-8")
    assert [row["text"] for row in answers(model, tmp_path / "named.csv")] == texts[:1]


def test_an_encoding_that_was_named_holds_for_what_is_no_utf_8(tmp_path: Path) -> None:
    rows = [(f"gęś {text} źdźbło", label) for text, label in opinions(200, seed=1)]
    written = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows)
    model = bag_of(tmp_path, "train.csv", written.encode("cp1250"), encoding="cp1250")
    for encoding in ("cp1250", "utf-8"):
        (tmp_path / "new.csv").write_bytes(f'text\n"{rows[0][0]}"\n'.encode(encoding))
        assert answers(model, tmp_path / "new.csv")[0]["text"] == rows[0][0]


def test_labelled_lines_are_read_as_in_training_and_texts_a_line_as_texts(tmp_path: Path, multistep: Verb) -> None:
    rows = opinions(200, seed=1)
    model = bag_of(tmp_path, "train.txt", "".join(f"__label__{label} {text}\n" for text, label in rows))
    by_hand = [said.output for said in api.predict(model, [text for text, _ in rows[:4]])]
    for name, mark in {"labelled.txt": "__label__{} ", "lines.txt": ""}.items():
        (tmp_path / name).write_text("".join(mark.format(label) + f"{text}\n" for text, label in rows[:4]))
        found = answers(model, tmp_path / name)
        assert [(row["text"], row["prediction"]) for row in found] == [
            (text, said) for (text, _), said in zip(rows[:4], by_hand, strict=True)
        ]
    for label in ("pos", "neg"):
        (tmp_path / "classes").mkdir(exist_ok=True)
        (tmp_path / f"classes/{label}.txt").write_text("".join(f"{t}\n" for t, _ in rows[:3]), encoding="utf-8")
    assert len(answers(model, tmp_path / "classes")) == 6
    assert "Did you mean 'lines.txt'?" in multistep("predict", str(model), "line s.txt", code=2)


def test_saved_sets_and_archives_are_answered(bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    texts = [text for text, _ in opinions(5, seed=3)]
    by_hand = [said.output for said in api.predict(bag, texts)]
    datasets.Dataset.from_dict({"review": texts}).save_to_disk(str(tmp_path / "saved"))
    assert [row["prediction"] for row in answers(bag, tmp_path / "saved")] == by_hand
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("new.csv", "review\n" + "".join(f'"{text}"\n' for text in texts))
    assert [row["prediction"] for row in answers(bag, tmp_path / "packed.zip")] == by_hand


def test_folders_of_texts_and_parquet_and_standard_input(
    bag: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, multistep: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    texts = [text for text, _ in opinions(6, seed=8)]
    for i, text in enumerate(texts):
        (tmp_path / f"texts/part{i % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"texts/part{i % 2}/{i}.txt").write_text(text + "\n", encoding="utf-8")
    (tmp_path / "texts/.ipynb_checkpoints").mkdir()
    (tmp_path / "texts/.ipynb_checkpoints/0.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / "texts/.hidden.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / "texts/part0/notes.docx").write_text("no text", encoding="utf-8")
    (tmp_path / "texts/part1/empty.txt").touch()
    done = api.predict_file(bag, tmp_path / "texts", tmp_path / "out.parquet", top_k=1)
    assert (done.rows, done.without) == (7, 1)
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    names = [f"part{k}/{i}.txt" for k in (0, 1) for i in range(k, 6, 2)] + ["part1/empty.txt"]
    assert [row["file"] for row in rows] == names
    by_hand = {p.input: p.output for p in api.predict(bag, texts)}
    assert [row["prediction"] for row in rows[:-1]] == [by_hand[row["text"].strip()] for row in rows[:-1]]
    assert rows[0]["top"] == [{"label": rows[0]["prediction"], "probability": rows[0]["probability"]}]
    assert (rows[-1]["prediction"], rows[-1]["top"]) == (None, None)
    assert "texts: files left out because they are not .txt: 1" in caplog.text
    piped = io.BytesIO("\n".join(texts).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(piped)))
    out = multistep("predict", str(bag), "-")
    assert [json.loads(line)["prediction"] for line in out.splitlines()] == [by_hand[text] for text in texts]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["good", None], r"inputs: number 1 \(from 0\) is None; allowed: texts, paths, "),
        (["good", 3.5], r"inputs: number 1 \(from 0\) is a float; allowed: texts, paths, "),
        (["good", ("a", "b")], r"inputs: number 1 \(from 0\) is a tuple, but .*model reads single texts; give a text"),
        (["good", ["bad"]], r"inputs: number 1 \(from 0\) is a list, but .*model reads single texts"),
        (["good", " \n"], r"inputs: number 1 \(from 0\) is blank, of which nothing can be said"),
        ("", r"inputs: number 0 \(from 0\) is blank"),
        (["good", np.zeros((4, 4), np.uint8)], r"\Ainputs: number 1.png: is a file of a kind that is not read here"),
    ],
)
def test_an_input_in_memory_that_is_none_is_named(bag: Path, inputs: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        api.predict(bag, inputs)


def test_data_frames_come_back_with_more_columns(bag: Path) -> None:
    pandas = pytest.importorskip("pandas")
    texts = [text for text, _ in opinions(8, seed=3)]
    frame = pandas.DataFrame({"words": [*texts, None], "prediction": 1}, index=range(10, 19))
    found = api.predict(bag, frame, top_k=2)
    assert list(found.columns) == ["words", "prediction", "prediction_", "probability", "prediction_2", "probability_2"]
    assert list(found.index) == list(range(10, 19))
    assert list(found["prediction_"][:8]) == [p.output for p in api.predict(bag, texts)]
    assert found["prediction_"].isna().tolist() == [False] * 8 + [True]
    assert list(frame.columns) == ["words", "prediction"], "what was given is left as it is"


def test_what_is_no_input_is_refused(bag: Path, tmp_path: Path, multistep: Verb) -> None:
    (tmp_path / "rows.csv").write_text("text\na lovely film\n", encoding="utf-8")
    (tmp_path / "letter.docx").touch()
    (tmp_path / "nothing").mkdir()
    for arguments, message in (
        ((), "name something to predict: a table, a folder, files, texts, or - for standard input"),
        (("row.csv",), "row.csv: no such file or folder; check the path. Did you mean 'rows.csv'"),
        (("letter.docx",), "letter.docx: is a file of a kind that is not read here; allowed: .jsonl, "),
        (("nothing",), "nothing: nothing to read in this folder; allowed: files .txt, or tables (.jsonl, "),
        (("rows.csv", "--json"), "--json tells what was written; name a file with --output"),
        (("a lovely film", "--top-k", "0"), "Invalid value for '--top-k'"),
    ):
        assert message in multistep("predict", str(bag), *arguments, code=2)
    for source, output, message in (
        ("rows.csv", "out.xlsx", "out.xlsx: what kind of file is that\\? allowed: .csv, .tsv, .jsonl, .parquet"),
        ("rows.csv", "rows.csv", "rows.csv: is the input, too; name another file"),
        ("rows.csv", "no/out.csv", "no/out.csv: there is no folder .*no; make it first"),
        ("row.csv", "out.csv", "row.csv: no such file or folder; check the path. Did you mean 'rows.csv'"),
    ):
        with pytest.raises(DataError, match=message):
            api.predict_file(bag, tmp_path / source, tmp_path / output)


def test_files_of_images_are_named_from_the_tables_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small_swin(tmp_path / "model")
    (tmp_path / "data/pictures").mkdir(parents=True)
    choose = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(picture("disc", choose, 16)).save(tmp_path / f"data/pictures/{i}.png")
    (tmp_path / "data/pictures/3.png").write_bytes(b"no image")
    rows = "".join(f"pictures/{i}.png,{i}\n" for i in range(4))
    (tmp_path / "data/list.csv").write_text("image,number\n" + rows, encoding="utf-8")
    done = api.predict_file(model, tmp_path / "data/list.csv", tmp_path / "out.jsonl")
    assert (done.rows, done.without) == (4, 1)
    assert "rows without an answer: 1 of 4 (first: " in caplog.text
    assert "list.csv:5: " in caplog.text
    found = records(tmp_path / "out.jsonl")
    by_hand = api.predict(model, [tmp_path / f"data/pictures/{i}.png" for i in range(3)])
    assert [row["prediction"] for row in found] == [*(p.output for p in by_hand), None]
    with pytest.raises(DataError, match=r"3.png: .*; name an image file$"):
        api.predict(model, [tmp_path / "data/pictures/3.png"])
    pixels = [np.asarray(Image.open(tmp_path / f"data/pictures/{i}.png")) for i in range(3)]
    for arrays in (pixels, np.stack(pixels), [Image.fromarray(each) for each in pixels]):
        assert [(p.input, p.others) for p in api.predict(model, arrays)] == [
            (f"input {i}", p.others) for i, p in enumerate(by_hand)
        ]
    with pytest.raises(DataError, match=r"number 0 \(from 0\) .*"):
        api.predict(model, [pixels[0] / 255])
    first = tmp_path / "data/pictures/0.png"
    assert [p.input for p in api.predict(model, [first, pixels[1]])] == [str(first), "input 1"]
    done = api.predict_file(model, [tmp_path / "data", tmp_path / "data/pictures/0.png"], tmp_path / "folder.csv")
    assert (done.rows, done.without) == (5, 1), "of a folder the images at any depth"
    with (tmp_path / "folder.csv").open(encoding="utf-8", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert names == [*(f"pictures/{i}.png" for i in range(4)), str(tmp_path / "data/pictures/0.png")]


@pytest.mark.parametrize("named", [True, False])
def test_images_that_lie_in_a_table_are_predicted_as_files_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    model, choose = small_swin(tmp_path / "model"), np.random.default_rng(0)
    images = [np.ascontiguousarray(picture("disc", choose, 16)) for _ in range(5)]
    expected: list[Any] = [(p.output, pytest.approx(p.probability, rel=1e-6)) for p in api.predict(model, images)]

    def said(path: Path) -> list[tuple[str, float]]:
        out = path.with_suffix(".out.jsonl")
        api.predict_file(model, path, out)
        return [(row["prediction"], row["probability"]) for row in records(out)]

    rows = [[str(i), *map(str, image.reshape(-1))] for i, image in enumerate(images)]
    names = [["label", *(f"pixel{i}" for i in range(len(rows[0]) - 1))]] if named else []
    lines = [",".join(row) for row in (*names, *rows)]
    (tmp_path / "pixels.csv").write_text("\n".join(lines), encoding="utf-8")
    assert said(tmp_path / "pixels.csv") == expected
    alone = [line.partition(",")[2] for line in lines]
    (tmp_path / "alone.csv").write_text("\n".join(alone), encoding="utf-8")
    assert said(tmp_path / "alone.csv") == expected
    fractions = [",".join(f"{value / 255:.6f}" for value in image.reshape(-1)) for image in images]
    (tmp_path / "fractions.csv").write_text("\n".join([*alone[: len(names)], *fractions]), encoding="utf-8")
    assert said(tmp_path / "fractions.csv") == expected
    broken = alone[-1].split(",")
    broken[5] = ""
    (tmp_path / "broken.csv").write_text("\n".join([*alone, ",".join(broken)]), encoding="utf-8")
    assert said(tmp_path / "broken.csv") == [*expected, (None, None)]
    place = f"{tmp_path / 'broken.csv'}:{len(alone) + 1}"
    assert f"(first: {place}: a pixel is missing, or no number)" in caplog.text
    files = []
    for image in images:
        Image.fromarray(image).save(held := io.BytesIO(), "png")
        files.append({"bytes": held.getvalue(), "path": None})
    cells = [*files, None, {"bytes": b"no image", "path": None}]
    parquet.write_table(pyarrow.table({"image": cells, "label": [0] * len(cells)}), tmp_path / "hub.parquet")
    assert said(tmp_path / "hub.parquet") == [*expected, (None, None), (None, None)]


def test_a_model_that_talks_answers_prompts_and_turns(tmp_path: Path) -> None:
    model = write_tiny_chat(tmp_path / "model")
    turns = [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}, {"from": "human", "value": "three"}]
    answered = [*turns, {"from": "gpt", "value": "the answer"}]
    (tmp_path / "turns.jsonl").write_text(
        "".join(json.dumps({"conversations": row}) + "\n" for row in (turns, answered, [])), encoding="utf-8"
    )
    (tmp_path / "tasks.csv").write_text("instruction,input,output\nAdd,1+1,2\n", encoding="utf-8")

    def expected(*said: tuple[str, str]) -> str:
        tokenizer = tiny_tokenizer()
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in said)
        prompt = tokenizer(text + "<|im_start|>assistant\n", add_special_tokens=False).input_ids
        (answer,) = generate(tiny_llama(), [prompt], ends=(0, 2), most_new=9, context=256)
        return str(tokenizer.decode(answer, skip_special_tokens=True))

    done = api.predict_file(model, tmp_path / "turns.jsonl", tmp_path / "a.jsonl", tokens=9)
    assert (done.rows, done.without) == (3, 1)
    answer = expected(("user", "one"), ("assistant", "two"), ("user", "three"))
    assert [row["answer"] for row in records(tmp_path / "a.jsonl")] == [answer, answer, None]
    api.predict_file(model, tmp_path / "tasks.csv", tmp_path / "b.csv", tokens=9)
    with (tmp_path / "b.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["instruction", "input", "output", "answer"],
            ["Add", "1+1", "2", expected(("user", "Add\n\n1+1"))],
        ]
    assert api.predict(model, ["one"], tokens=9)[0].output == expected(("user", "one"))
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"content": "x"}]}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"bad.jsonl:1: in it: turn 1 of 'messages' has none of the keys role"):
        api.predict_file(model, tmp_path / "bad.jsonl", tmp_path / "c.jsonl")
    write_tiny_chat(tmp_path / "plain", template=None)
    with pytest.raises(PlanError, match="plain: writes text and predicts nothing; use `multistep generate"):
        api.predict_file(tmp_path / "plain", tmp_path / "tasks.csv", None)


# Pieces -----------------------------------------------------------------------------------------------


def rejoined(path: Path, rows: int) -> list[tuple[str, dict[str, object]]]:
    """Each row with where it stands, from pieces."""
    return [
        (piece.table.place(i), {name: piece.table.values(name)[i] for name in piece.table.names})
        for piece in read_pieces(str(path), rows)
        for i in range(len(piece.table))
    ]


def test_pieces_are_the_rows_of_the_whole_table(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [[str(i), f'line one, "{i}"\nline two' if i % 3 == 0 else f"plain {i}"] for i in range(11)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([["id", "a\ntext"], *rows])
    content = "\ufeff" + out.getvalue().replace("plain 4", "plain 4\r\n\r")
    (tmp_path / "a.csv").write_bytes(content.encode())
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content.encode()))
    tabs = "id\ttext\n" + "".join(f'{i}\ta "{i}\n' for i in range(11))
    (tmp_path / "a.tsv").write_text(tabs[:-1], encoding="utf-8")  # no line break at the end
    lines = [json.dumps({"text": f"é{i}"}, ensure_ascii=False) + "\n" * (1 + i % 2) for i in range(11)]
    (tmp_path / "a.jsonl").write_text("".join(lines), encoding="utf-8")
    parquet.write_table(pyarrow.table({"text": [f"é{i}" for i in range(11)]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.parquet"):
        table = read_table(tmp_path / name)
        whole = [(table.place(i), {n: table.values(n)[i] for n in table.names}) for i in range(len(table))]
        assert len(whole) == 11
        for size in (1, 2, 5, 100):
            assert rejoined(tmp_path / name, size) == whole, (name, size)
    (tmp_path / "a.txt").write_text("one\n\nthree", encoding="utf-8")
    assert rejoined(tmp_path / "a.txt", 2) == [
        (f"{tmp_path / 'a.txt'}:{i + 1}", {"text": text}) for i, text in enumerate(["one", "", "three"])
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b'text,n\na,1\n"b\nb",2\nc,3\nd,4,5\n', r"a.csv:6: 3 fields, but the first line names 2"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"}\n\n{"text"}\n', r"a.jsonl:4: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"}\n{"text": "\xff"}\n', r"a.jsonl: byte 38 is not UTF-8 \(0xff\)"),
        ("a.csv", b"text,n\n", r"a.csv: the file is empty, or there is no row below"),
        ("a.txt", b"", r"a.txt: the file is empty"),
        ("a.csv.gz", b"no gzip", r"a.csv.gz: cannot be read \("),
        ("a.parquet", b"no parquet", r"a.parquet: not a parquet file that can be read"),
    ],
)
def test_what_is_wrong_in_a_later_piece_is_named_with_its_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_pieces(str(tmp_path / name), 2))


def test_turns_in_every_form_are_asked_and_those_that_the_template_refuses_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    write_tiny_chat(tmp_path / "model", template=refuses + CHATML)
    turn = {"role": "user", "content": "hey"}
    rows: list[object] = [
        [turn],
        [{"role": "user", "content": [{"type": "text", "text": "hey"}]}],
        {"role": ["user", "assistant"], "content": ["hey", "yo"]},
        f" [ {json.dumps(turn)}]",
        [{"role": "system", "content": "Be brief."}, turn],
        [{"role": "user", "content": "half \ud83d"}],
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    done = api.predict_file(tmp_path / "model", tmp_path / "in.jsonl", tmp_path / "out.jsonl", tokens=8)
    assert (done.rows, done.without) == (6, 2)
    first, *others = [row["answer"] for row in records(tmp_path / "out.jsonl")]
    assert first == api.predict(tmp_path / "model", ["hey"], tokens=8)[0].output
    assert others == [first, first, first, None, None]
    assert [row["messages"] for row in records(tmp_path / "out.jsonl")] == rows, "half a pair, too, is what it was"
    assert "rows without an answer: 2 of 6 (first: " in caplog.messages[-1]
    assert "in.jsonl:5: " in caplog.messages[-1]
    assert "refuses this conversation (no system)" in caplog.messages[-1]


def test_quotation_marks_within_a_field_and_bare_returns_keep_rows_whole(bag: Path, tmp_path: Path) -> None:
    texts = ['5" disk, good', *(f"a film\nof part {i}" for i in range(1200)), "old\rMac"]
    lines = ['id,text\n0,5" disk; good\n', *(f'{i},"{text}"\n' for i, text in enumerate(texts[1:], start=1))]
    texts[0] = texts[0].replace(",", ";")
    (tmp_path / "in.csv").write_bytes("".join(lines).encode())
    for rows in (1, 7, 1000):
        pieces = [piece.table for piece in read_pieces(str(tmp_path / "in.csv"), rows)]
        assert [text for table in pieces for text in table.column("text")] == texts
        assert [table.place(0).rsplit(":", 1)[1] for table in pieces][:2] == ["2", str(2 * rows + 1)]
    api.predict_file(bag, tmp_path / "in.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file, strict=True)] == texts
    assert read_table(tmp_path / "out.csv").column("text") == texts


def test_options_are_shown_without_an_answer_and_turns_in_rows_of_their_own_are_refused(tmp_path: Path) -> None:
    asks = predictor(load_writer(str(write_tiny_chat(tmp_path / "model"))), Asked(tokens=8))
    (tmp_path / "a.jsonl").write_text('{"question": "Which?", "choices": ["x", "y"]}\n', encoding="utf-8")
    table = read_table(tmp_path / "a.jsonl")
    columns = asks.find_columns(table, DataSpec())
    assert asks.join([table.column(name)[0] for name in columns], tmp_path) == "Which?\n\nA. x\nB. y"
    (tmp_path / "b.csv").write_text("conversation,role,content\nc1,user,hey\nc1,assistant,yo\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.csv: holds conversations a turn a row, .* in a column 'messages'"):
        asks.find_columns(read_table(tmp_path / "b.csv"), DataSpec())


def test_without_a_template_the_system_stands_above_the_prompt_as_a_paragraph(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(None)
    (tmp_path / "a.jsonl").write_text('{"system": "Be brief.", "prompt": "2 + 2?", "completion": "4"}\n')
    (talk,), _ = read_conversations(read_table(tmp_path / "a.jsonl"))
    ((written,), _) = write_all([talk], ChatTemplate(tokenizer, [talk]), "assistant")
    assert written.text == "Be brief.\n\n2 + 2?4"
    writer = Writer("plain", tokenizer, tiny_llama(), False, 256, (0,))
    turns = [{"role": turn.role, "content": turn.content} for turn in talk.turns[:2]]
    assert writer.prompt(turns) == list(written.tokens[: -len(tokenizer("4").input_ids) - 1])


def test_rows_are_asked_what_they_were_asked_in_training(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "a\r\nb"}]
    tables: list[dict[str, object]] = [
        {"messages": [*turns, {"role": "assistant", "content": "c"}]},
        {"prompt": "a\r\nb", "completion": "c"},
        {"prompt": "not this", "context": "nor this", "instruction": "do", "input": "it", "output": "c"},
        {"prompt": "not this", "question": "which", "answer": "c"},
        {"system": "be brief", "prompt": "a", "completion": "c"},
        {"system": "be brief", "instruction": "do", "input": "it", "history": [["a", "b"]], "output": "c"},
        {"messages": [{"speaker": "user", "text": "a"}, {"speaker": "bot", "text": "c"}]},
        {"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]},
        {"dialog": ["a", "b", "c", "d"]},
        {"question": "which", "choices": ["x", "y"], "answer": 1},
    ]
    writer = load_writer(str(write_tiny_chat(tmp_path / "model")))
    asks = predictor(writer, Asked(tokens=8))
    for number, row in enumerate(tables):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        table = read_table(tmp_path / f"{number}.jsonl")
        (talk,), _ = read_conversations(table)
        columns = asks.find_columns(table, DataSpec())
        asked = asks.join([table.column(name)[0] for name in columns], tmp_path)
        trained = prompt_tokens(exchanges(talk)[-1][0], ChatTemplate(writer.tokenizer))
        assert writer.prompt(_turns(str(asked))) == trained


@pytest.mark.parametrize(
    "row",
    [
        {"chat_messages": [{"role": "user", "content": "a"}]},
        {"dialogue": ["a", "b", "c"]},
        {"inputs": "a", "targets": "b"},
        {"human": "a", "bot": "b"},
        {"context": "a", "response": "b"},
        {"questions": "a", "passage": "p", "answers": "b"},
        {"system": "be brief", "instruction": "do", "input": "it", "history": [["a", "b"]], "output": "c"},
    ],
)
def test_rows_without_answers_are_asked_the_same_also_by_the_name_of_their_column(
    row: dict[str, object], tmp_path: Path
) -> None:
    writer = load_writer(str(write_tiny_chat(tmp_path / "model")))
    asks = predictor(writer, Asked(tokens=8))
    bare = {
        name: value for name, value in row.items() if name not in ("targets", "bot", "response", "answers", "output")
    }
    asked = []
    for name, content in {"whole": row, "bare": bare}.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(content) + "\n", encoding="utf-8")
        table = read_table(tmp_path / f"{name}.jsonl")
        prompt = "instruction" if "instruction" in row else next(iter(row))
        for data in (DataSpec(), DataSpec(text_column=prompt)):
            columns = asks.find_columns(table, data)
            asked.append(asks.join([table.column(name)[0] for name in columns], tmp_path))
    assert asked[0]
    assert asked == asked[:1] * 4
