"""Labels as people write them, the same in every split and for whoever scores or asks the model afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_language import opinions

from multistep.core.values.plan import DataSpec
from multistep.errors import DataError
from multistep.tasks import classes
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.labelled.labels import Column, Labels, encode
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.labelled.score import table_of
from multistep.tasks.language.baseline import Baseline
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.language.use import evaluate_model
from multistep.tasks.predicting import predict
from multistep.tasks.prediction import Asked

TEXTS = [f"{text} {i}" for i, (text, _) in enumerate(opinions(200, 0))]


def lines(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def table(path: Path, header: str, rows: Sequence[Sequence[object]]) -> str:
    text = "\n".join([header, *(";".join(map(str, row)) for row in rows)])
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)


def load(source: str, **more: Any) -> LabelledSplits:
    return load_labelled(DataSpec(source=source, **more))


def with_points(number: int) -> str:
    return f"{number:,}".replace(",", ".")


@pytest.mark.parametrize(
    ("known", "given", "own", "found"),
    [
        (("False", "True"), ["true", "TRUE", False, "True"], (), [1, 1, 0, 1]),
        (("false", "true"), ["True", True, "FALSE"], (), [1, 1, 0]),
        (("0", "1"), [1, 0], ("bad", "good"), [1, 0]),
        (("bad", "good"), [1, 0], ("bad", "good"), [1, 0]),
        (("True", "no", "true"), ["True", "true"], (), [0, 2]),
    ],
)
def test_classes_are_known_by_another_case_of_true_and_by_the_number_that_a_set_gives_them(
    known: tuple[str, ...], given: Sequence[object], own: tuple[str, ...], found: list[int]
) -> None:
    column = Column(given, lambda row: f"row {row}", own)
    assert encode(Labels("class", known), column).tolist() == found


@pytest.mark.parametrize(
    ("known", "given", "own"),
    [
        (("True", "no", "true"), "TRUE", ()),  # which of the two?
        (("Bad", "Good"), "good", ()),  # names may differ in their case alone
        (("bad", "good"), 1, ()),  # whose numbers nobody has told
        (("1", "2"), 0, ("bad", "good")),
    ],
)
def test_what_may_be_another_class_stays_unknown(known: tuple[str, ...], given: object, own: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"row 0: the label '\w+' does not occur in training"):
        encode(Labels("class", known), Column([given], lambda row: f"row {row}", own))


def test_numbers_are_read_in_the_notation_of_training_in_every_split(tmp_path: Path) -> None:
    """In a split without a million, 450.000 looked like 450."""
    firsts = {"train": 90_000, "validation": 450_000, "test": 300_000}
    prices = {name: [first + 10_000 * i for i in range(len(TEXTS))] for name, first in firsts.items()}
    prices = {name: [price for price in some if name == "train" or price < 10**6] for name, some in prices.items()}
    parts: dict[str, Any] = {
        name: table(tmp_path / f"{name}.csv", "text;price", list(zip(TEXTS, map(with_points, some), strict=False)))
        for name, some in prices.items()
    }
    found = load_labelled(DataSpec(**parts, label_column="price"))
    for name, some in prices.items():
        assert getattr(found, name).labels.tolist() == some
    assert Labels.recorded(json.loads(json.dumps(found.labels.record))) == found.labels
    # Whoever wrote a file otherwise is read as it stands.
    parts["test"] = table(tmp_path / "plain.csv", "text;price", [(text, 450_000.5) for text in TEXTS])
    assert load_labelled(DataSpec(**parts, label_column="price")).test.labels[0] == 450_000.5


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (  # the name of the column is one of its values
            lambda to: table(to / "a.csv", "text;toxic", [(t, ("toxic", "clean")[i % 2]) for i, t in enumerate(TEXTS)]),
            ("clean", "toxic"),
        ),
        (  # as R and Excel write what is true
            lambda to: table(
                to / "a.csv",
                "text;toxic;rude",
                [(t, str(i % 2 == 0).upper(), str(i % 3 == 0).upper()) for i, t in enumerate(TEXTS)],
            ),
            ("rude", "toxic"),
        ),
        (  # one choice is no list in what Label Studio writes
            lambda to: lines(
                to / "a.json",
                [
                    [
                        {"id": i, "annotation_id": i, "lead_time": 1.0, "text": t, "kind": {"choices": ["a", "b"]}}
                        | ({} if i % 2 else {"kind": "a"})
                        for i, t in enumerate(TEXTS)
                    ]
                ],
            ),
            ("a", "b"),
        ),
    ],
)
def test_labels_are_found_as_they_are_written(
    write: Callable[[Path], str], names: tuple[str, ...], tmp_path: Path
) -> None:
    assert load(write(tmp_path)).labels.names == names


def test_tables_of_one_class_each_may_be_columns(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for name in ("pos", "neg"):
        parquet.write_table(pyarrow.table({"text": [f"{t} {name}" for t in TEXTS]}), tmp_path / f"{name}.parquet")
    assert load(str(tmp_path)).labels.names == ("neg", "pos")


def test_a_class_called_none_stays_one_in_a_spreadsheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="needs openpyxl: pip install 'multistep[excel]'")
    book = openpyxl.Workbook()
    for row in [("text", "label"), *((t, ("None", "Anger", "NA")[i % 3]) for i, t in enumerate(TEXTS)), ("x", None)]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    found = load(str(tmp_path / "a.xlsx"), labels="class")
    assert found.labels.names == ("Anger", "NA", "None")
    assert any("no label: 1 " in note for note in found.notes)


def test_of_a_single_label_the_baseline_says_that_it_is_there_where_it_is(tmp_path: Path) -> None:
    rows = [
        {"text": f"{'awful' if i % 3 else 'fine'} {t}", "labels": ["toxic"] * (i % 3 > 0)} for i, t in enumerate(TEXTS)
    ]
    found = load(lines(tmp_path / "a.jsonl", rows))
    assert found.labels.names == ("toxic",)
    scored = Baseline.fit(found.train, found.labels).score(found.test).columns
    assert np.array_equal(scored["prediction_0"], scored["label_0"])


# Afterwards -----------------------------------------------------------------------------------------


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    """A folder that was fitted on noisy labels, with probabilities that are to be divided by 3."""
    rows = [
        {"text": f"{'good' if i % 2 else 'bad'} {t}", "label": "pn"[(i % 2) ^ (i % 7 == 0)]}
        for i, t in enumerate(TEXTS)
    ]
    found = load(lines(tmp_path / "a.jsonl", rows))
    (tmp_path / "model").mkdir()
    assert not Baseline.fit(found.train, found.labels).write(tmp_path / "model", "text-classification", found.columns)
    about = json.loads((tmp_path / "model/multistep.json").read_text())
    about["calibration"] = {"temperature": 3.0, "threshold": None, "folded": False}
    (tmp_path / "model/multistep.json").write_text(json.dumps(about))
    return tmp_path / "model"


def test_a_baselines_loss_is_of_the_probabilities_that_it_gives(baseline: Path, tmp_path: Path) -> None:
    scored = evaluate_model(str(baseline), DataSpec(source=str(tmp_path / "a.jsonl"))).columns
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()][:8]
    said = predict(str(baseline), [row["text"] for row in rows], Asked(top_k=2))
    wanted = [-np.log(each.others[row["label"]]) for each, row in zip(said, rows, strict=True)]
    assert scored["loss"][:8] == pytest.approx(wanted)


def test_a_text_is_a_text_whatever_lies_here_under_its_name(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work/notes").mkdir(parents=True)
    (tmp_path / "work/notes/a.txt").write_text("hidden")
    monkeypatch.chdir(tmp_path / "work")
    texts = ["so good", ".", "-", "notes", "~", "so bad"]
    assert [each.input for each in predict(str(baseline), texts, Asked())] == texts
    assert [each.input for each in predict(str(baseline), ["notes/", Path("notes")], Asked())] == ["hidden"] * 2


@pytest.mark.parametrize("most", [10, 10_000])
def test_many_rows_are_decided_at_the_threshold_as_few_are(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of a million logits lose them, and with them what is said was at 0.5 again."""
    monkeypatch.setattr(classes, "MOST_LOGITS", most)
    logits, truth = torch.tensor([[-0.5, 0.5], [-2.0, -0.5]] * 10), np.ones((20, 2))
    labels = Labels("classes", ("a", "b"))
    found = Calibrated(cut=0.2).decided(lambda: table_of(logits, truth, labels, Scale()), "model")
    assert found.columns["prediction_0"].tolist() == [1.0, 0.0] * 10
    assert found.columns["prediction_1"].tolist() == [1.0, 1.0] * 10
    assert ("logit_0" in found.columns) is (most > 40)
