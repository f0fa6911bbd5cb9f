"""Data that are objects in Python: read as the same rows in a file, kept with the run, refused by column and row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from corpora import written
from numpy.typing import NDArray

import multistep
from multistep.core.values.events import Entry, PhaseReused, PhaseStarted
from multistep.core.values.history import History
from multistep.data.memory import keep
from multistep.errors import DataError, PlanError, RunDirectoryError
from multistep.interface.given import in_files, with_data

GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "poor", "dull", "weak")


def reviews(count: int = 120) -> list[dict[str, str]]:
    """Texts whose class one word gives away."""
    words = ("the", "film", "was", "a", "plot", "with", "music")
    rows = []
    for i in range(count):
        tell = (GOOD if i % 2 else BAD)[i // 2 % 4]
        rows.append({"text": f"{words[i % 7]} {words[i * 3 % 7]} {tell} {i}", "label": "pos" if i % 2 else "neg"})
    return rows


def as_pairs(rows: list[dict[str, str]]) -> tuple[list[str], list[str]]:
    return [row["text"] for row in rows], [row["label"] for row in rows]


def as_data_set(rows: list[dict[str, str]]) -> Any:
    import datasets

    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    return datasets.Dataset.from_list([{**row, "label": names.str2int(row["label"])} for row in rows], features)


def short(data: Any, out: Path, **keywords: Any) -> multistep.Result:
    return multistep.train(
        task="text-classification", data=data, model="scratch", budget="30 steps", out=out, progress=False, **keywords
    )


def test_objects_are_scored_as_the_same_rows_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = reviews()
    frame = pandas.DataFrame(rows)
    frame.to_csv("rows.csv", index=False)
    forms = {"file": "rows.csv", "frame": frame.astype({"label": "category"}), "set": as_data_set(rows)}
    found = {name: short(data, Path(name)).record for name, data in forms.items()}
    for name in ("frame", "set"):
        assert found[name]["scores"] == found["file"]["scores"]
        assert found[name]["weights_sha256"] == found["file"]["weights_sha256"]
        (held,) = Path(name, "data").iterdir()
        assert f"source: memory:{held.name}\n" in Path(name, "plan.yaml").read_text(encoding="utf-8")


def test_all_forms_of_the_same_rows_are_one_plan() -> None:
    rows = reviews()
    frame = pandas.DataFrame(rows)
    parts = pyarrow.concat_tables([pyarrow.Table.from_pandas(frame[i : i + 7]) for i in range(0, len(rows), 7)])
    texts, labels = as_pairs(rows)
    pairs, arrays = list(zip(texts, labels, strict=True)), {"text": np.array(texts), "label": np.array(labels)}
    same: list[Any] = [rows, frame, parts, parts.combine_chunks(), {"text": texts, "label": labels}, (texts, labels)]
    same += [pairs, arrays, frame.set_index("text")]
    assert len({keep("data", each, "text").name for each in same}) == 1
    other = frame.copy()
    other.loc[3, "text"] = "something else"
    assert len({keep("data", each, "text").name for each in (frame, other, frame[::-1])}) == 3


def test_a_run_on_objects_goes_on_in_another_folder_without_them(tmp_path: Path) -> None:
    whole = short(reviews(), tmp_path / "whole")
    seen: list[Entry] = []

    def stop(entry: Entry, history: History) -> None:
        seen.append(entry)
        if len(seen) == 8:
            raise InterruptedError

    (tmp_path / "other").mkdir()
    with pytest.raises(InterruptedError):
        short(reviews(), tmp_path / "other" / "cut", on_entry=stop)
    shutil.move(tmp_path / "other" / "cut", tmp_path / "moved")
    went_on = multistep.resume(tmp_path / "moved", progress=False)
    assert went_on.record["weights_sha256"] == whole.record["weights_sha256"]
    started = next(entry.event for entry in seen if isinstance(entry.event, PhaseStarted))
    (note,) = (note for note in started.facts.notes if "kept" in note)
    (name,) = (path.name for path in (tmp_path / "moved" / "data").iterdir())
    size = (tmp_path / "moved" / "data" / name).stat().st_size
    assert note == f"data: objects in Python, kept in the run directory as data/{name} ({size / 1e3:,.1f} kB)"
    assert not any(str(tmp_path) in note for note in started.facts.notes)


def test_what_another_run_did_on_the_same_objects_is_taken_over(tmp_path: Path) -> None:
    first = short(reviews(), tmp_path / "first", keep="all")
    events: list[object] = []
    again = short(pandas.DataFrame(reviews()), tmp_path / "second", on_entry=lambda e, h: events.append(e.event))
    assert any(isinstance(event, PhaseReused) for event in events)
    assert again.record["weights_sha256"] == first.record["weights_sha256"]
    with pytest.raises(RunDirectoryError, match="holds the finished run of another plan"):
        short([*reviews(), {"text": "one more", "label": "pos"}], tmp_path / "first")


def test_a_plan_whose_objects_are_not_there_says_where_they_are(tmp_path: Path) -> None:
    short(reviews(), tmp_path / "run")
    with pytest.raises(RunDirectoryError, match=r"objects in Python.*'data' of the run that began with them: resume"):
        multistep.train(tmp_path / "run" / "plan.yaml", out=tmp_path / "other", progress=False)
    assert not (tmp_path / "other").exists()


def pictures(count: int = 60) -> tuple[NDArray[np.uint8], list[int]]:
    """Dark and bright squares."""
    draw = np.random.default_rng(0)
    labels = [i % 2 for i in range(count)]
    noise = draw.integers(0, 60, (count, 12, 12, 3), np.uint8)
    return noise + np.array(labels, np.uint8)[:, None, None, None] * 120, labels


def test_images_in_memory_are_the_same_as_arrays_as_pictures_and_in_a_file(tmp_path: Path) -> None:
    from PIL import Image

    images, labels = pictures()
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    frame = pandas.DataFrame({"picture": [Image.fromarray(each) for each in images], "label": labels})
    results = [
        multistep.train(
            task="image-classification",
            data=data,
            model="scratch",
            budget="6 steps",
            out=tmp_path / name,
            progress=False,
            recipe={"learning_rate": 1e-3},
        )
        for name, data in {"file": tmp_path / "set.npz", "arrays": (images, labels), "frame": frame}.items()
    ]
    assert len({result.record["weights_sha256"] for result in results}) == 1
    if results[1].ships == "network":
        assert [said.output for said in results[1].predict(images[:2])] == [
            said.output for said in results[1].predict([Image.fromarray(each) for each in images[:2]])
        ]


def test_splits_in_memory_are_those_that_are_scored(tmp_path: Path) -> None:
    rows = reviews()
    result = multistep.train(
        task="text-classification",
        train=pandas.DataFrame(rows[:80]),
        validation=rows[80:100],
        test=as_data_set(rows[100:]),
        model="scratch",
        budget="30 steps",
        out=tmp_path / "run",
        progress=False,
    )
    assert result.test is not None
    assert (result.validation.n, result.test.n) == (20, 20)
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "run" / "data").iterdir())
    assert names == ["test", "train", "validation"]
    both = result.evaluate(rows[100:])["scores"]
    assert both["accuracy"]["score"] == pytest.approx(result.score)


def test_splits_come_under_their_usual_names_and_beside_data() -> None:
    rows, held = reviews(), reviews(20)
    by_keyword, _ = in_files(with_data({"task": "fill-mask", "data": rows, "validation": held, "test": 0.1}))
    by_name, _ = in_files(with_data({"task": "fill-mask", "data": {"training": rows, "dev": held}, "test": 0.1}))
    assert by_name["data"]["validation"] == by_keyword["data"]["validation"]
    assert set(by_keyword["data"]) == set(by_name["data"]) == {"train", "validation", "test"}
    files, _ = in_files(with_data({"data": "a.csv", "validation": "b.csv"}))
    assert files["data"] == {"train": "a.csv", "validation": "b.csv"}
    share, _ = in_files(with_data({"data": "a.csv", "validation": 0.2}))
    assert share["data"] == {"source": "a.csv", "validation": 0.2}
    series, _ = in_files({"data": pandas.Series([row["text"] for row in rows])})
    texts, _ = in_files({"data": [row["text"] for row in rows]})
    assert series == texts


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((20, 8, 8), np.uint8), r"give \(images, labels\)"),
        ((np.zeros((20, 8), np.uint8), [0, 1] * 10), r"images have the shape \(20, 8\); allowed: \(N, height, width\)"),
        ((np.zeros((20, 8, 8), np.uint8), [0, 1]), "20 images but 2 labels"),
        ((np.zeros((2, 8, 8), np.uint8), [0, "b"]), "all of one type; these are int and str"),
    ],
)
def test_images_that_are_none_are_told_by_their_shape(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        keep("data", given, "image")


def test_running_text_in_memory_is_documents(tmp_path: Path) -> None:
    texts = written(tmp_path).read_text(encoding="utf-8").split("\n\n")
    result = multistep.train(
        task="text-generation", data=texts, model="scratch", budget="4 steps", out=tmp_path / "run", progress=False
    )
    assert result.metric == "loss"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pandas.DataFrame({"text": ["a", "b"], "x": [1, "b"]}), r"data: column 'x' cannot .* row 2 is 'b' \(str\)"),
        (pandas.DataFrame([["a", 1]], columns=["text", "text"]), "two columns are called 'text'"),
        ({"text": ["a", "b"], "label": [1]}, "'text' 2, 'label' 1 values"),
        ([{"text": "a"}, "b"], "row 2 is a str, but others are dicts"),
        ([], "data: there are no rows in it"),
        (iter(["a"]), "data is a list_iterator; allowed: a pandas or polars DataFrame"),
        (pandas.DataFrame({"text": []}), "there are no rows in it"),
    ],
)
def test_what_no_file_can_hold_is_refused_by_column_and_row(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        short(given, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_messages_name_the_keyword_and_the_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*reviews(), {"text": 5, "label": "pos"}]
    with pytest.raises(DataError, match=r"^data: column 'text' cannot be kept"):
        short(rows, tmp_path / "run")
    with pytest.raises(DataError, match=r"^data: .*no column 'stars'"):
        short(reviews(), tmp_path / "run", label_column="stars")
    assert not (tmp_path / "run").exists()
    with pytest.raises(PlanError, match="train= and data= both name the train data"):
        short(reviews(), tmp_path / "run", train=reviews())


def sounds(count: int = 40) -> list[dict[str, Any]]:
    """High and low tones of a third of a second."""
    draw = np.random.default_rng(0)
    time = np.arange(2700) / 8000
    rows = []
    for i in range(count):
        tone = np.sin(2 * np.pi * (300 + 500 * (i % 2)) * time) * 0.3 + draw.normal(0, 0.01, len(time))
        rows.append(
            {"audio": {"array": tone.astype(np.float32), "sampling_rate": 8000}, "text": "up" if i % 2 else "down"}
        )
    return rows


def test_sounds_in_memory_are_heard_as_in_files(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    import json

    from multistep.core.values.plan import DataSpec
    from multistep.tasks.speech.audio import read_samples
    from multistep.tasks.speech.splits import read_splits

    rows = sounds()
    kept = keep("data", rows, "sound").put(tmp_path)
    splits = read_splits(DataSpec(source=str(kept)))
    heard = [row for name in ("train", "validation", "test") for row in splits.of(name)]
    assert len(heard) == len(rows)
    (tmp_path / "files").mkdir()
    with (tmp_path / "files" / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for i, row in enumerate(rows):
            soundfile.write(tmp_path / "files" / f"{i}.wav", row["audio"]["array"], 8000, "FLOAT")
            manifest.write(json.dumps({"path": f"{i}.wav", "text": row["text"]}) + "\n")
    listed = read_splits(DataSpec(source=str(tmp_path / "files")))
    by_file = {
        read_samples(row.path, 8000).tobytes(): row.text
        for name in ("train", "validation", "test")
        for row in listed.of(name)
    }
    assert {read_samples(row.held or b"", 8000).tobytes(): row.text for row in heard} == by_file
