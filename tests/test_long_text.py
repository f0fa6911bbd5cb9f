"""Texts that memory should not hold: the same splits, tokens and scores as in memory, from a cache that is whole."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multistep.core.evidence.metric import Floats
from multistep.core.values.plan import DataSpec
from multistep.data.cache import cache_limit, kept
from multistep.engine.learner import Learner, Split
from multistep.engine.planfile import plan_from
from multistep.errors import DataError, PlanError
from multistep.tasks import processes
from multistep.tasks.text import corpus, cutting, long, ngram, splits, words
from multistep.tasks.text import tokenizer as tokenizers
from multistep.tasks.text.corpus import LongTexts, share_of_a_document
from multistep.tasks.text.splits import TextSplits, load_splits
from multistep.tasks.text.tokenizer import byte_bpe_tokenizer, character_tokenizer
from multistep.tasks.text.tokens import let_go, train_tokens
from multistep.tasks.writing.workshop import TextWorkshop

POEMS = [
    f"Poem {i}, of 明月 and é\nwas written on day {i * i} of a year that had {i + 300} days.\nIt was never read"
    for i in range(300)
]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is a million for users is a few thousand here, so that texts are read in many pieces."""
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(words, "BLOCK_CHARACTERS", 3000)
    monkeypatch.setattr(corpus, "WRITTEN_AT_ONCE", 777)


def in_memory(monkeypatch: pytest.MonkeyPatch, source: Path, **more: object) -> TextSplits:
    monkeypatch.setattr(splits, "MOST_IN_MEMORY", 2**26)
    return load_splits(DataSpec(source=str(source), **more))  # type: ignore[arg-type]


def from_file(monkeypatch: pytest.MonkeyPatch, source: Path, **more: object) -> TextSplits:
    monkeypatch.setattr(splits, "MOST_IN_MEMORY", 0)
    found = load_splits(DataSpec(source=str(source), **more))  # type: ignore[arg-type]
    assert isinstance(found.train, LongTexts)
    return found


def _rows(texts: list[str], name: str = "text") -> bytes:
    return "".join(json.dumps({name: text, "n": 1}) + "\n" for text in texts).encode()


def _zstandard(path: Path, data: bytes) -> None:
    import pyarrow

    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(data)


def _parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": [*POEMS, " "]}), path)


def _saved_set(path: Path) -> None:
    import datasets

    part = datasets.Dataset.from_dict({"text": POEMS})
    datasets.DatasetDict({"train": part, "dev": part.select(range(3))}).save_to_disk(path)


def _table_with_splits(path: Path) -> None:
    lines = [f'"{text}",{"val" if i % 9 == 0 else "train"}' for i, text in enumerate(POEMS)]
    path.write_text("text,split\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _shards(path: Path) -> None:
    path.mkdir()
    for i in range(3):
        _zstandard(path / f"{i}.jsonl.zst", _rows(POEMS[i::3], "content"))


def _texts(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    for i, text in enumerate(POEMS):
        (path / ("deep" if i % 2 else ".") / f"{i}.txt").write_text(text * (40 if i == 7 else 1), encoding="utf-8")


def _named_splits(path: Path) -> None:
    path.mkdir()
    (path / "train.txt").write_text("\n\n".join(POEMS), encoding="utf-8")
    (path / "valid.jsonl").write_bytes(_rows(POEMS[:5]))


RUNNING = "\ufeff" + "\r\n\r\n".join(POEMS)
LAYOUTS: dict[str, Callable[[Path], object]] = {
    "a.txt": lambda path: path.write_bytes(RUNNING.encode()),
    "lines.txt": lambda path: path.write_text("\n".join(POEMS), encoding="utf-8"),
    "wide.txt": lambda path: path.write_bytes(RUNNING.encode("utf-16")),
    "a.txt.gz": lambda path: path.write_bytes(gzip.compress(RUNNING.encode())),
    "a.jsonl": lambda path: path.write_bytes(_rows([*POEMS, *POEMS[:9], "", "\ttoo"])),
    "a.jsonl.zst": lambda path: _zstandard(path, _rows(POEMS)),
    "a.csv": _table_with_splits,
    "a.parquet": _parquet,
    "shards": _shards,
    "texts": _texts,
    "named": _named_splits,
    "saved": _saved_set,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_and_tokens_are_those_of_memory(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / layout
    LAYOUTS[layout](source)
    short, stream = in_memory(monkeypatch, source), from_file(monkeypatch, source)
    assert stream.fingerprint == short.fingerprint
    assert (stream.validation, stream.test, stream.contiguous) == (short.validation, short.test, short.contiguous)
    assert stream.notes == short.notes
    assert "".join(stream.train) == "".join(short.train)
    assert share_of_a_document(stream.train) == share_of_a_document(short.train), "by which a context is chosen"
    several = not short.contiguous
    for learn in (character_tokenizer, lambda texts: byte_bpe_tokenizer(texts, 400, most_characters=9000)):
        tokenizer = learn(short.train)
        assert learn(stream.train).to_str() == tokenizer.to_str()
        there = train_tokens(stream.train, tokenizer, several=several, end=0)
        np.testing.assert_array_equal(there, train_tokens(short.train, tokenizer, several=several, end=0))
        assert there.dtype == np.uint16


def test_a_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.txt"
    source.write_text("\n".join(POEMS), encoding="utf-8")
    opened = []
    for most in (2**26, 0):
        monkeypatch.setattr(splits, "MOST_IN_MEMORY", most)
        plan = plan_from(
            {
                "task": "text-generation",
                "data": str(source),
                "budget": "20 steps",
                "model": {"name": "scratch", "tokenizer": "bpe", "vocabulary": 400, "context": 16},
            }
        )
        opened.append(TextWorkshop().open(plan, 0, lambda: False))
    (memory, ready), (mapped, long_ready) = opened
    assert long_ready == ready
    for learner in (memory, mapped):
        learner.initial(ready.recipe, 0)
    rates = [1e-2] * 3
    assert mapped.advance(rates).loss == memory.advance(rates).loss
    assert mapped.baseline("validation")[0] == memory.baseline("validation")[0] == "6-gram"
    splits_scored: tuple[Split, ...] = ("validation", "test")
    for split in splits_scored:
        for one, other in zip(_tables(mapped, split), _tables(memory, split), strict=True):
            np.testing.assert_array_equal(one, other)


def _tables(learner: Learner, split: Split) -> list[Floats]:
    return [learner.evaluate(split, sample=False).columns["loss"], learner.baseline(split)[1].columns["loss"]]


def test_processes_encode_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source := tmp_path / "a.jsonl").write_bytes(_rows(POEMS))
    texts = from_file(monkeypatch, source).train
    tokenizer = byte_bpe_tokenizer(texts, 400)
    one = train_tokens(texts, tokenizer, several=True, end=0)
    held = one.copy()
    monkeypatch.setattr(processes, "BYTES_A_PROCESS", 5000)
    monkeypatch.setattr(processes, "cores", lambda: 3)
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "other"))
    np.testing.assert_array_equal(train_tokens(texts, tokenizer, several=True, end=0), held)
    (folder,) = (path for path in (tmp_path / "other/tokens").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == {"tokens", "manifest.json"}
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "third"))
    texts.file = tmp_path / "gone"  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"gone: a process that encodes it failed \(FileNotFoundError.*start the run"):
        train_tokens(texts, tokenizer, several=True, end=0)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory of a process")
def test_what_was_read_of_the_tokens_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source := tmp_path / "a.txt").write_text("\n".join(POEMS * 300), encoding="utf-8")
    tokens = train_tokens(
        texts := from_file(monkeypatch, source).train, character_tokenizer(texts), several=False, end=0
    )
    total = tokens.sum()
    before = _resident()
    let_go(tokens)
    assert before - _resident() > 0.9 * tokens.nbytes
    assert tokens.sum() == total, "and it is still there"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_cached_start_reads_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source := tmp_path / "a.jsonl").write_bytes(_rows(POEMS))
    first = from_file(monkeypatch, source)
    with monkeypatch.context() as patched:
        patched.setattr(long, "given_splits", lambda *_: pytest.fail("the source was read"))
        again = from_file(monkeypatch, source)
    assert list(again.train) == list(first.train)
    assert again.notes == first.notes
    source.write_bytes(_rows(POEMS[1:]))
    assert from_file(monkeypatch, source).fingerprint == in_memory(monkeypatch, source).fingerprint != first.fingerprint
    for text in tmp_path.glob("cache/texts/*/text"):
        text.write_bytes(b"damaged")
    assert from_file(monkeypatch, source).validation == in_memory(monkeypatch, source).validation, "made anew"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"abc\n" * 2000 + b"\xff", r"a\.txt: byte 8000 is not UTF-8 \(0xff\); name the file"),
        ("a.txt", b"abc\n" * 2000 + b"\0", r"a\.txt: byte 8000 is NUL"),
        ("a.txt", b" \n" * 2000, r"a\.txt: the file is empty"),
        ("a.jsonl", _rows(POEMS) + b'{"n": 5}\n', r"a\.jsonl:301: 'text' is missing or null"),
        ("a.jsonl", _rows(POEMS) + b'{"text": \n', r"a\.jsonl:301: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', r"document 2 holds half a surrogate pair"),
        ("a.jsonl", _rows(["a"] * 50), "at least 200 are needed"),
    ],
)
def test_errors_say_where(
    name: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        from_file(monkeypatch, tmp_path / name)
    assert not [path for path in tmp_path.glob("cache/texts/*") if path.is_dir()], "and nothing is left of it"


def test_a_cut_near_the_end_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source := tmp_path / "a.txt").write_text("\n".join(POEMS), encoding="utf-8")
    shares = {"validation_share": 0.004, "test_share": 0.004}
    short, stream = in_memory(monkeypatch, source, **shares), from_file(monkeypatch, source, **shares)
    assert stream.fingerprint == short.fingerprint


def test_held_out_splits_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cutting.usual_share(10**9) * 10**9 == pytest.approx(cutting.MOST_HELD_OUT)
    assert [cutting.usual_share(size) for size in (10**5, 10**6, 6 * 10**7)] == [0.1, 0.05, 0.05]
    monkeypatch.setattr(long, "MOST_GIVEN", 1000)
    for name, content, expected in (
        ("documents", _rows(POEMS[:50]), r"validation: \d\d of 50, drawn by lot, are scored"),
        ("text", "\n".join(POEMS[:50]).encode(), r"validation: the first 1,000 of 4,\d+ characters are scored"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.txt").write_text("\n".join(POEMS), encoding="utf-8")
        (tmp_path / name / f"valid.{'jsonl' if name == 'documents' else 'txt'}").write_bytes(content)
        found = from_file(monkeypatch, tmp_path / name)
        assert any(re.match(expected, note) for note in found.notes), found.notes
        assert sum(map(len, found.validation)) == pytest.approx(1000, abs=60)


def _put(path: Path) -> None:
    path.write_bytes(bytes(1000))


WRITER = """
import sys, time
from pathlib import Path
from multistep.data.cache import kept

def write(folder):
    (folder / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "whole").write_text("whole")

print(kept("texts", "key", write), flush=True)
"""


def _writer(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(seconds)], stdout=subprocess.PIPE, text=True)


def test_a_kill_leaves_nothing_half(tmp_path: Path) -> None:
    with _writer(60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "cache/texts/key").exists()
    folder = kept("texts", "key", lambda folder: _put(folder / "whole"))
    assert {path.name for path in folder.iterdir()} == {"whole", "manifest.json"}


def test_two_processes_at_once_write_it_once() -> None:
    with _writer(0.5) as first, _writer(0.5) as second:
        said = sorted(str(process.communicate()[0]).count("writing") for process in (first, second))
    assert said == [0, 1]


def test_what_was_used_longest_ago_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(key: str) -> None:
        kept("texts", key, lambda folder: _put(folder / "data"))
        os.utime(tmp_path / "cache/texts" / key, (clock := time.time() - 1000 + len(used), clock))
        used.append(key)

    used: list[str] = []
    monkeypatch.setenv("MULTISTEP_CACHE_LIMIT", "3.5KB")
    for key in ("a", "b", "c", "a", "d"):
        keep(key)
    assert {path.name for path in (tmp_path / "cache/texts").iterdir() if path.is_dir()} == {"a", "c", "d"}
    monkeypatch.setenv("MULTISTEP_CACHE_LIMIT", "a lot")
    with pytest.raises(PlanError, match=r"MULTISTEP_CACHE_LIMIT is 'a lot'; allowed: a number of bytes"):
        cache_limit()


def test_samples_follow_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of long texts, tokenizer and n-grams take what 2% of the time bear, and say so; of others as many as ever."""
    (source := tmp_path / "a.txt").write_text("\n".join(POEMS * 40), encoding="utf-8")
    monkeypatch.setattr(ngram, "LEAST", 1000)
    monkeypatch.setattr(ngram, "A_SECOND", 2e5)
    monkeypatch.setattr(tokenizers, "LEARNT_FROM", 9000)
    monkeypatch.setattr(tokenizers, "A_SECOND", 1e4)
    found = from_file(monkeypatch, source)
    assert tokenizers.learnt_from(found.train, 100.0) == 20_000
    assert tokenizers.learnt_from(found.train, None) == tokenizers.learnt_from(list(found.train), 100.0) == 9000
    plan = plan_from(
        {
            "task": "text-generation",
            "data": str(source),
            "budget": "60s",
            "model": {"name": "scratch", "tokenizer": "bpe", "vocabulary": 400, "context": 16},
        }
    )
    learner, ready = TextWorkshop().open(plan, 0, lambda: False)
    assert learner.baseline("validation")[0] == "6-gram of the first 240,000 characters"
    assert ready.facts.understood is not None
    said = " ".join(ready.facts.understood.notes)
    assert "the tokenizer was learnt from about 0.012 of the" in said
    assert "the n-gram baseline is counted from the first 0.2 of" in said
