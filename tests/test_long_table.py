"""Tables that memory should not hold: the same splits, labels and tokens as in memory, from a cache that is whole."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from multistep.core.values.plan import DataSpec
from multistep.engine.planfile import plan_from
from multistep.tasks import processes, sampling
from multistep.tasks.language import columns, learnt, long, mapped, network
from multistep.tasks.language.baseline import Baseline
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.long_spans import train_spans
from multistep.tasks.language.mapped import ReadLate, encoded_once
from multistep.tasks.language.models import Encoder, Head
from multistep.tasks.language.spans import load_texts, read_spans
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.language.task import LanguageWorkshop
from multistep.tasks.language.tokenizer import make_tokenizer
from multistep.tasks.language.use import evaluate_model
from multistep.tasks.text.corpus import LongTexts

WORDS = "the a cat dog sat ran on under mat tree and then it was never seen again in this town 明月 café".split()  # noqa: SIM905


def text_of(i: int) -> str:
    draw = np.random.default_rng(i // 2 if i % 11 == 0 else i)  # some stand twice
    return " ".join(draw.choice(WORDS, draw.integers(3, 30))) + (f',\n"{i}"' if i % 3 == 0 else "")


Row = Mapping[str, object]
ROWS: dict[str, list[Row]] = {
    "classes": [{"id": i, "text": text_of(i), "label": ("good", "bad", "so-so")[i % 7 % 3]} for i in range(400)],
    "pairs": [{"premise": text_of(i), "hypothesis": text_of(i + 1), "label": i % 2} for i in range(400)],
    "several": [{"text": text_of(i), "tags": [w for w in ("a", "b", "c") if i % (ord(w) - 94)]} for i in range(400)],
    "numbers": [{"text": text_of(i), "score": i / 8} for i in range(400)],
    "splits": [
        {"text": text_of(i) if i % 50 else "", "label": "xy"[i % 2], "split": ("train", "dev", "test")[i % 9 % 3]}
        for i in range(400)
    ],
    "hot": [{"comment": text_of(i), "toxic": i % 2, "rude": int(i % 3 == 0), "kind": i % 5 // 4} for i in range(400)],
}


def _csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)


def _lines(path: Path, rows: list[Row]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def _parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=70)


FORMS: dict[str, Callable[[Path, list[Row]], None]] = {"a.csv": _csv, "a.jsonl.gz": _lines, "a.parquet": _parquet}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "cache"))


def in_memory(monkeypatch: pytest.MonkeyPatch, source: Path, **more: object) -> LabelledSplits:
    monkeypatch.setattr(long, "MOST_IN_MEMORY", 2**26)
    return load_labelled(DataSpec(source=str(source), **more))  # type: ignore[arg-type]


def from_file(monkeypatch: pytest.MonkeyPatch, source: Path, **more: object) -> LabelledSplits:
    monkeypatch.setattr(long, "MOST_IN_MEMORY", 0)
    found = load_labelled(DataSpec(source=str(source), **more))  # type: ignore[arg-type]
    assert isinstance(found.train.texts, LongTexts)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", ROWS)
def test_splits_and_labels_are_those_of_memory(
    rows: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of columns or lines is read in pieces, and its columns of labels and splits with them."""
    monkeypatch.setattr("multistep.data.long.ROWS", 37)
    FORMS[form](tmp_path / form, ROWS[rows])
    short, stream = in_memory(monkeypatch, tmp_path / form), from_file(monkeypatch, tmp_path / form)
    for name in ("train", "validation", "test"):
        a, b = getattr(short, name), getattr(stream, name)
        assert list(a.texts) == list(b.texts)
        assert (a.seconds is None) == (b.seconds is None) == (rows != "pairs") or len(a) == 0
        assert list(a.seconds or ()) == list(b.seconds or ())
        assert a.labels.dtype == b.labels.dtype
        assert np.array_equal(a.labels, b.labels)
    assert (short.labels, short.notes, short.columns) == (stream.labels, stream.notes, stream.columns)
    assert short.fingerprint == stream.fingerprint


def test_a_cached_start_reads_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _csv(source := tmp_path / "a.csv", ROWS["classes"])
    first = from_file(monkeypatch, source)
    with monkeypatch.context() as patched:
        patched.setattr(columns, "find_columns", None)
        patched.setattr("multistep.tasks.language.splits.given_splits", None)
        again = from_file(patched, source)
    assert list(again.train.texts) == list(first.train.texts)
    assert again.fingerprint == first.fingerprint
    _csv(source, ROWS["classes"][:300])
    assert from_file(monkeypatch, source).fingerprint != first.fingerprint


def test_a_short_split_of_another_kind_that_changed_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _csv(tmp_path / "train.csv", ROWS["classes"])
    for labels in (("good", "bad"), ("bad", "good")):
        rows = [{"text": f"{text_of(i)} held out", "label": labels[i % 2]} for i in range(20)]
        (tmp_path / "dev.json").write_text(json.dumps(rows))
        monkeypatch.setattr(long, "MOST_IN_MEMORY", 0)
        found = load_labelled(DataSpec(train=str(tmp_path / "train.csv"), validation=str(tmp_path / "dev.json")))
        assert isinstance(found.train.texts, LongTexts)
        assert [found.labels.names[int(i)] for i in found.validation.labels[:2]] == list(labels)


def test_what_is_scored_is_bounded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _csv(source := tmp_path / "a.csv", ROWS["classes"])
    monkeypatch.setattr(long, "MOST_CUT", 12)
    found = from_file(monkeypatch, source)
    assert 10 <= len(found.validation) <= 14
    _csv(source := tmp_path / "b.csv", ROWS["splits"])
    monkeypatch.setattr(long, "MOST_GIVEN", 50)
    found = from_file(monkeypatch, source)
    assert (len(found.validation), len(found.test)) == (50, 50)
    assert any(
        note.startswith("validation: 50 of 1") and "`multistep evaluate` scores all" in note for note in found.notes
    )


@pytest.mark.parametrize("rows", ["classes", "pairs"])
@pytest.mark.parametrize("count", [1, 3])
def test_tokens_are_those_of_memory(rows: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes encode what one does: the same ids, words, types and texts that lose their ends."""
    _csv(source := tmp_path / "a.csv", ROWS[rows])
    found = from_file(monkeypatch, source)
    train = found.train
    tokenizer = make_tokenizer(list(train.texts), "wordpiece", 400)
    head = Head(_encoder(tokenizer, 20), None, ())
    monkeypatch.setattr(processes, "BYTES_A_PROCESS", 2000)
    monkeypatch.setattr(processes, "cores", lambda: count)
    once = encoded_once(tokenizer, train, 20, found.fingerprint)
    whole = head.encode(list(train.texts), None if train.seconds is None else list(train.seconds))
    assert whole.cut == once.cut > 0
    for name in ("tokens", "words", "types", "starts"):
        assert np.array_equal(getattr(whole, name), getattr(once, name)), name
    late = ReadLate(head, train)
    some = np.array([5, 3, 200])
    for a, b, c in zip(whole.padded(some, 0), once.padded(some, 0), late.padded(some, 0), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


def _encoder(tokenizer: Tokenizer, context: int) -> Encoder:
    return Encoder(tokenizer, None, context, context, 0, 4)


def test_samples_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learnt from a part of the texts says so, where all would take more than 2% of the time."""
    assert sampling.characters_counted(600.0, 1e6, 10.0, 1000) == 12_000_000
    assert sampling.characters_counted(None, 1e6, 10.0, 1000) == 100_000_000
    assert sampling.characters_counted(0.01, 1e6, 10.0, 1000) == 1000
    _csv(source := tmp_path / "a.csv", ROWS["classes"])
    monkeypatch.setattr(learnt, "LEAST", 3000)
    monkeypatch.setattr(learnt, "COUNTED_A_SECOND", 1.0)
    found = from_file(monkeypatch, source)
    monkeypatch.setattr("multistep.tasks.language.baseline.LEAST_TEXTS", 43)
    assert Baseline.fit(found.train, found.labels, 2000).name.endswith(", 43 texts")
    plan = plan_from({"task": "text-classification", "data": str(source), "model": "bag", "budget": "20 steps"})
    _, ready = LanguageWorkshop().open(plan, 0, lambda: False)
    understood = ready.facts.understood
    assert understood is not None
    (said,) = [note for note in understood.notes if "learnt from" in note]
    assert " of 320 training texts at most, drawn by lot (0.0 of 0.0 million characters)" in said


@pytest.mark.parametrize("model", ["bag", "cnn", "bert"])
def test_training_from_a_file_learns(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, scores, the baseline and what is shown; once more, they are the same."""
    rows: list[Row] = [
        {"text": f"{text_of(i)} {'fine' if i % 2 else 'awful'}", "label": "ny"[i % 2]} for i in range(400)
    ]
    _csv(source := tmp_path / "a.csv", rows)
    monkeypatch.setattr(long, "MOST_IN_MEMORY", 0)
    sizes = {"name": model, "width": 32, **({"layers": 1} if model == "bert" else {})}
    plan = plan_from({"task": "text-classification", "data": str(source), "budget": "40 steps", "model": sizes})
    losses = []
    for _ in range(2):
        learner, ready = LanguageWorkshop().open(plan, 0, lambda: False)
        learner.initial(ready.recipe, 0)
        losses.append(learner.advance([1e-2] * 40).loss)
    assert losses[0] == losses[1]
    scored = learner.evaluate("validation", sample=False).columns
    assert (scored["label"] == scored["prediction"]).mean() > 0.8
    name, baseline = learner.baseline("test")
    assert name.startswith("TF-IDF")
    assert len(baseline.columns["label"]) == 40
    assert learner.exhibits()
    if model == "bag":  # a finished model scores a long table through a file that is gone afterwards
        (folder := tmp_path / "model").mkdir()
        learner.export(folder, "")
        through_file = evaluate_model(str(folder), DataSpec(source=str(source)))
        monkeypatch.setattr(long, "MOST_IN_MEMORY", 2**26)
        in_one = evaluate_model(str(folder), DataSpec(source=str(source)))
        assert len(through_file.columns["label"]) == 400
        assert np.array_equal(through_file.columns["prediction"], in_one.columns["prediction"])
        assert not [*(tmp_path / "cache").glob(".scored-*")]


def test_late_or_once_is_the_same_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How texts are encoded changes nothing, so a run may go on where another budget would encode otherwise."""
    _csv(source := tmp_path / "a.csv", ROWS["classes"])
    found = from_file(monkeypatch, source)
    head = Head(_encoder(make_tokenizer(list(found.train.texts), "wordpiece", 400), 20), None, ())
    once, late = (network.Prepared(head, found, 8, epochs) for epochs in (1.0, 0.1))
    assert isinstance(late.encoded["train"], ReadLate)
    rows, _ = once.order.indices(100, 8, 3)
    assert np.array_equal(rows, late.order.indices(100, 8, 3)[0])
    for a, b in zip(once.encoded["train"].padded(rows, 0), late.encoded["train"].padded(rows, 0), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("form", ["a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("rows", ["classes", "pairs"])
def test_hidden_words_are_those_of_memory(
    rows: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of texts of a table, longer ones in several spans, and of pairs, which are read whole."""
    FORMS[form](tmp_path / form, ROWS[rows])
    data = DataSpec(source=str(tmp_path / form))
    short = load_texts(data)
    monkeypatch.setattr(long, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr(processes, "BYTES_A_PROCESS", 2000)
    monkeypatch.setattr(processes, "cores", lambda: 3)
    monkeypatch.setattr(mapped, "AT_ONCE", 900)
    stream = load_texts(data)
    assert isinstance(stream.train.texts, LongTexts)
    assert (short.fingerprint, short.notes, short.test) == (stream.fingerprint, stream.notes, stream.test)
    tokenizer = make_tokenizer(list(short.train.texts), "bpe", 400)
    whole = read_spans(tokenizer, short.train, 16)
    found = train_spans(tokenizer, stream.train, 16, stream.fingerprint)
    for name in ("tokens", "words", "types", "starts"):
        assert np.array_equal(getattr(whole.encoded, name), getattr(found.encoded, name)), name
    assert np.array_equal(whole.block, found.block)
    assert np.array_equal(whole.text, found.text)


def test_hidden_words_of_long_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that learns a tokenizer and hides words of a long table, and of a long running text, takes its steps."""
    _csv(tmp_path / "a.csv", ROWS["classes"])
    (tmp_path / "a.txt").write_text("\n".join(text_of(i) for i in range(400)), encoding="utf-8")
    monkeypatch.setattr(long, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr("multistep.tasks.text.splits.MOST_IN_MEMORY", 0)
    for name in ("a.csv", "a.txt"):
        sizes = {"name": "bert", "layers": 1, "width": 32, "vocabulary": 300, "context": 32}
        given = {"task": "fill-mask", "data": str(tmp_path / name), "budget": "20 steps", "model": sizes}
        learner, ready = LanguageWorkshop().open(plan_from(given), 0, lambda: False)
        learner.initial(ready.recipe, 0)
        first = learner.advance([1e-2] * 10).loss
        assert learner.advance([1e-2] * 10).loss < first
        assert learner.baseline("validation")[0] == "unigram"
