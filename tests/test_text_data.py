"""Text from wherever the user keeps it, and the splits that are made of it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from multistep.engine.planfile import plan_from
from multistep.errors import DataError, PlanError
from multistep.tasks.text.files import read_documents
from multistep.tasks.text.manual import python_manual
from multistep.tasks.text.ngram import NGram
from multistep.tasks.text.preset import TextFacts, choose_preset
from multistep.tasks.text.splits import load_splits
from multistep.tasks.writing.workshop import TextWorkshop

POEMS = [f"Poem {i}\nwas written on day {i * i} of a year that had {i + 300} days.\n" for i in range(200)]


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def json_lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_text_file_is_one_running_text(tmp_path: Path) -> None:
    content = "\ufeffa\r\nb\n猫".encode()
    for source in (write(tmp_path / "a.txt", content), write(tmp_path / "b.txt.gz", gzip.compress(content))):
        documents = read_documents(source)
        assert documents.texts == ("a\nb\n猫",)
        assert documents.contiguous
        assert documents.notes == ()


def test_a_folder_is_a_document_a_file(tmp_path: Path) -> None:
    for name, text in {"b.txt": "two", "a.txt": "one", "c.txt": "three", "README.md": "no"}.items():
        write(tmp_path / name, text)
    documents = read_documents(str(tmp_path))
    assert documents.texts == ("one", "two", "three")
    assert not documents.contiguous
    assert "not .txt: 1" in documents.notes[0]


def parquet(path: Path, **columns: list[object]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


def test_tables(tmp_path: Path) -> None:
    expected = ("one, 1", 'two "2"')
    rows = [{"n": 1, "body": expected[0]}, {"n": 2, "body": expected[1]}]
    sources = [
        write(tmp_path / "a.jsonl", json_lines(*rows)),
        write(tmp_path / "a.csv", 'n,body\r\n1,"one, 1"\r\n2,"two ""2"""\r\n'),
        write(tmp_path / "a.tsv", 'n\tbody\n1\tone, 1\n2\ttwo "2"\n'),
    ]
    parquet(tmp_path / "a.parquet", n=[1, 2], body=list(expected))
    for source in [*sources, str(tmp_path / "a.parquet")]:
        documents = read_documents(source)
        assert documents.texts == expected
        assert "column 'body' (of 'n', 'body')" in documents.notes[0]
        assert read_documents(source, text_column="body").notes == ()


def test_empty_documents_are_dropped_and_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", json_lines({"text": "a"}, {"text": " \n"}, {"text": "b"}, {"text": ""}))
    documents = read_documents(source)
    assert documents.texts == ("a", "b")
    assert "empty documents dropped: 2" in documents.notes[-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt: the file is empty"),
        ("a.txt", b"ab\0c", r"a\.txt: byte 2 is NUL"),
        ("a.txt", b"abc\xff", r"a\.txt: byte 3 is not UTF-8 \(0xff\); name the file"),
        ("a.txt", b"\xef\xbb\xbfabc\xff", r"byte 6 is not UTF-8 \(0xff\)"),
        ("a.txt", b"%PDF-1.7 ...", r"a\.txt: not a text file but a PDF document; save its text"),
        ("a.txt.gz", b"abc", r"a\.txt\.gz: cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"a\.jsonl:3: not JSON"),
        ("a.jsonl", b'"a"\n', r"a\.jsonl:1: not an object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', r"a\.jsonl:2: 'text' is int, not a text"),
        ("a.jsonl", b'{"text": "a"}\n{"n": 5}\n', r"a\.jsonl:2: 'text' is missing or null"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "half a surrogate pair"),
        ("a.jsonl", b'{"q": "a", "r": "b"}\n', r"which column is the text\? columns: 'q', 'r'"),
        ("a.csv", b"n\n1\n", r"no column holds text; columns: 'n'; name it with --set data\.text_column=NAME"),
        ("a.csv", b"n,text\n1,a,b\n", r"a\.csv:2: 3 fields, but the first line names 2"),
        ("a.csv", b'n,text\n1,"a\n2,b\n', r"a\.csv:2: the quotation marks of this row do not close"),
        ("a.parquet", b"no", r"a\.parquet: not a parquet file"),
    ],
)
def test_errors_say_where(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    source = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        read_documents(source)


def test_a_row_without_text_and_a_misspelt_column(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", text=["a", None])
    with pytest.raises(DataError, match=r"a\.parquet: row 2: 'text' is missing or null"):
        read_documents(str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match=r"no column 'txet'; columns: 'text'\. Did you mean 'text'"):
        read_documents(str(tmp_path / "a.parquet"), text_column="txet")


def test_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "corpus.txt", "a")
    with pytest.raises(DataError, match=r"no such file or folder.*Did you mean 'corpus\.txt'"):
        read_documents(str(tmp_path / "corpsu.txt"))
    with pytest.raises(DataError, match="There is no folder"):
        read_documents(str(tmp_path / "no/corpus.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no text in this folder or below it"):
        read_documents(str(tmp_path / "empty"))


def test_hugging_face_data_sets(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import datasets

    part = datasets.Dataset.from_dict({"text": POEMS, "label": [0] * len(POEMS)})
    part.save_to_disk(tmp_path / "single")
    both = {"train": part, "dev": part.select(range(2)), "unsupervised": part}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "named")
    capfd.readouterr()
    assert read_documents(str(tmp_path / "single")).texts == tuple(POEMS)
    assert read_documents(str(tmp_path / "named")).texts == tuple(POEMS[:2]), "what is held out"
    splits = load_splits(str(tmp_path / "named"))
    assert splits.validation == tuple(POEMS[:2])
    assert splits.test == ()
    assert "splits left out: unsupervised" in " ".join(splits.notes)
    mapped = load_splits({"train": str(tmp_path / "single"), "valid": str(tmp_path / "named")})
    assert (mapped.train, mapped.validation) == (splits.train, splits.validation), "each takes its own split"
    assert mapped.fingerprint == splits.fingerprint != load_splits(str(tmp_path / "single")).fingerprint


def test_a_hub_id_without_a_network() -> None:
    program = (
        "from multistep.tasks.text.files import read_documents\n"
        "from multistep.errors import DataError\n"
        "try: read_documents('nobody/nothing')\n"
        "except DataError as error: print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "nobody/nothing: no such file or folder, and the Hugging Face hub gave no" in done.stdout
    assert "check the name and the network" in done.stdout


def test_these_modules_need_no_torch_and_import_fast() -> None:
    names = ("files", "splits", "tokenizer", "ngram", "manual", "encoding", "tokens")
    program = "".join(f"import multistep.tasks.text.{name}\n" for name in names) + (
        "import sys; heavy = {'torch', 'transformers', 'tokenizers', 'datasets', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_running_text_is_cut_at_its_tail_and_nothing_is_lost(tmp_path: Path) -> None:
    text = "\n".join(POEMS)
    splits = load_splits(write(tmp_path / "a.txt", text))
    train, validation, test = splits.train[0], splits.validation[0], splits.test[0]
    assert train + validation + test == text
    assert train.endswith("\n\n")
    assert validation.endswith("\n\n")
    assert splits.contiguous
    assert len(train) / len(text) == pytest.approx(0.8, abs=0.01)
    assert len(test) / len(text) == pytest.approx(0.1, abs=0.01)
    assert splits == load_splits(str(tmp_path / "a.txt"))


def test_documents_are_cut_whole_and_equal_ones_stay_together(tmp_path: Path) -> None:
    twice = POEMS + POEMS[::-1]
    splits = load_splits(write(tmp_path / "a.jsonl", json_lines(*({"text": text} for text in twice))))
    parts = [set(splits.train), set(splits.validation), set(splits.test)]
    assert sorted([*splits.train, *splits.validation, *splits.test]) == sorted(twice)
    assert [len(a & b) for a, b in ((parts[0], parts[1]), (parts[0], parts[2]), (parts[1], parts[2]))] == [0] * 3
    assert [len(part) for part in parts] == pytest.approx([160, 20, 20], abs=2)
    shuffled = load_splits(write(tmp_path / "b.jsonl", json_lines(*({"text": text} for text in POEMS))))
    assert set(shuffled.validation) == parts[1], "where a document goes depends on no order"


def test_a_few_long_documents_still_give_three_splits(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.txt", POEMS[i] * (100 if i == 1 else 10))
    splits = load_splits(str(tmp_path))
    assert splits.train == (POEMS[1] * 100,)
    assert len(splits.validation) == len(splits.test) == 1


@pytest.mark.parametrize("named", ["folder", "mapping"])
def test_splits_that_are_given(named: str, tmp_path: Path) -> None:
    running = "\n".join(POEMS)
    paths = {
        "train": write(tmp_path / "train.txt", running),
        "valid": write(tmp_path / "valid.txt", POEMS[7]),
    }
    splits = load_splits(str(tmp_path) if named == "folder" else paths)
    assert splits.train == (running,)
    assert splits.validation == (POEMS[7],)
    assert splits.test == ()
    assert "no test split" in " ".join(splits.notes)
    assert "validation: 1 of 1 paragraphs stand word for word in train (98." in " ".join(splits.notes)
    (tmp_path / "valid.txt").rename(tmp_path / "test.txt")
    splits = load_splits(str(tmp_path))
    assert splits.test == (POEMS[7],)
    assert splits.train[0] + splits.validation[0] == running
    write(tmp_path / "test" / "a.txt", "b")
    with pytest.raises(DataError, match=r"more than one test split: test, test\.txt"):
        load_splits(str(tmp_path))
    (tmp_path / "test.txt").unlink()
    (tmp_path / "train.txt").rename(tmp_path / "dev.txt")
    with pytest.raises(DataError, match="no train split"):
        load_splits(str(tmp_path))


def test_short_lines_recur_but_chinese_ones_count(tmp_path: Path) -> None:
    def shared(line: str) -> bool:
        train = write(tmp_path / "train.txt", "\n".join([*"".join(POEMS).splitlines(), line]))
        dev = write(tmp_path / "dev.txt", line + "\nand something that is nowhere else, of some length\n")
        return "word for word" in " ".join(load_splits({"train": train, "dev": dev}).notes)

    assert not shared("Enter the king.")
    assert shared("Enter the king, with trumpets and drums and a letter.")
    assert not shared("明月几时有")
    assert shared("明月几时有把酒问青天不知天上宫阙")


def test_unknown_and_missing_split_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\n".join(POEMS))
    with pytest.raises(DataError, match=r"unknown split 'validaton'.*Did you mean 'validation'"):
        load_splits({"train": path, "validaton": path})
    with pytest.raises(DataError, match="no train split"):
        load_splits({"test": path})
    with pytest.raises(DataError, match="two splits mean validation"):
        load_splits({"train": path, "val": path, "dev": path})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "too short\n" * 3, "at least 200 are needed"),
        (lambda: json_lines(*[{"text": POEMS[0]}] * 50), "too few different documents"),
    ],
)
def test_too_little_text(make: Callable[[], str], message: str, tmp_path: Path) -> None:
    content = make()
    source = write(tmp_path / ("a.jsonl" if content.startswith("{") else "a.txt"), content)
    with pytest.raises(DataError, match=message):
        load_splits(source)


def test_the_python_manual_has_nothing_in_two_splits() -> None:
    assert sum(map(len, python_manual())) > 200_000
    splits = load_splits("python-manual")
    assert all(sum(map(len, part)) > 10_000 for part in (splits.train, splits.validation, splits.test))
    assert not any("word for word" in note for note in splits.notes)


def test_an_interpreter_without_its_manual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="comes without"):
        python_manual()


def test_a_baseline_that_counts_a_part_says_so() -> None:
    text = "".join(POEMS)
    whole, part = NGram.fit([text]), NGram.fit([text[:1000], text], most_characters=3000)
    assert whole.name == "6-gram"
    assert part.name == "6-gram of the first 3,000 characters"
    assert NGram.fit([text], most_characters=len(text)).name == "6-gram"


def test_settings_that_a_text_model_cannot_obey_are_refused(tmp_path: Path) -> None:
    """They were ignored, while those beside them were refused."""
    data = write(tmp_path / "a.txt", "".join(POEMS))

    def opening(**model: object) -> None:
        TextWorkshop().open(plan_from({"task": "text-generation", "data": data, "model": model}), 0, lambda: False)

    with pytest.raises(PlanError, match=r"model\.tokenizer: '.*has its own, which cannot be changed; leave it out"):
        opening(name=str(tmp_path), tokenizer="bpe")
    with pytest.raises(
        PlanError, match=r"model\.vocabulary is 300, but characters bring their own: the \d+ of the text"
    ):
        opening(tokenizer="characters", vocabulary=300)
    plan = plan_from({"task": "text-generation", "data": data, "model": {"vocabulary": 300}})
    preset = choose_preset(plan.model, TextFacts(len("".join(POEMS)), 40), plan, 5e10)
    assert (preset.tokenizer, preset.vocabulary) == ("bpe", 300), "whoever names a vocabulary wants one learnt"


@pytest.mark.real_data
@pytest.mark.skipif("MULTISTEP_DATA" not in os.environ, reason="needs the real data")
def test_real_data() -> None:
    data = Path(os.environ.get("MULTISTEP_DATA", ""))
    shakespeare = load_splits(str(data / "tinyshakespeare/input.txt"))
    assert sum(len(part[0]) for part in (shakespeare.train, shakespeare.validation, shakespeare.test)) == 1_115_394
    poems = load_splits(str(data / "songci"))
    assert [len(part[0]) for part in (poems.train, poems.validation, poems.test)] == [
        1_760_248,
        99_030,
        92_852,
    ]
    assert poems.notes == ()
    reviews = " ".join(load_splits(str(data / "chnsenticorp")).notes)
    assert "validation: 338 of 1200 documents" in reviews, "as the data's README counts them"
    assert "test: 331 of 1200 documents" in reviews
