"""Tables of labelled texts that memory should not hold: read once into a file of the cache, and used from there.

What validation and test have is in memory, and bounded; the texts of train are read from the file when they are asked
for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.data.cache import cache_folder, kept
from multistep.data.form import Form
from multistep.data.long import LINES, local_files, text_size
from multistep.data.names import SPLITS
from multistep.data.opening import opened
from multistep.data.text import COLUMNAR, kind_of
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.language.examples import Examples, LabelledSplits, taken
from multistep.tasks.language.rows import FORM, LONG_FORM, Hold
from multistep.tasks.notes import say
from multistep.tasks.text.corpus import LongTexts, TextFile

MOST_IN_MEMORY = 2**26  # bytes of tables; in Python, their rows take several times as much
MOST_CUT, MOST_GIVEN = 10_000, 50_000  # rows of a held-out split: what is cut, and what the data bring
TEXT, ABOUT = "text", "about.json"
VERSION = 1  # of what is kept; another one is made anew


@dataclass(frozen=True)
class Holding:
    """How rows are read: in which form, where their texts are held, and how many of those that are scored."""

    form: Form
    hold: Hold
    most_cut: int | None = None
    most_given: int | None = None


IN_MEMORY = Holding(FORM, tuple)


def in_file(file: TextFile) -> Holding:
    """Rows whose texts lie in a file."""
    return Holding(LONG_FORM, file, MOST_CUT, MOST_GIVEN)


def long_files(data: DataSpec) -> list[Path]:
    """The tables of data, where they are more than memory should hold; none of others.

    What is no table of lines or columns, such as a folder of texts for each class, is read into memory at any size.
    """
    files = [file for file in _files(data) if kind_of(file) in (*LINES, *COLUMNAR)]
    return files if text_size(files) > MOST_IN_MEMORY else []


def _files(data: DataSpec) -> list[Path]:
    """All files that lie here, of every kind."""
    sources = [source for source in (data.source, data.train, data.validation, data.test) if source]
    return [file for source in sources for file in local_files(opened(source, FORM)[0])]


@contextmanager
def held(data: DataSpec) -> Iterator[Holding]:
    """How the rows of data are read once: in memory, or through a file that goes afterwards where they are too many."""
    if not long_files(data):
        yield IN_MEMORY
        return
    cache_folder().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".scored-", dir=cache_folder()) as folder, TextFile(Path(folder) / TEXT) as out:
        yield Holding(LONG_FORM, out)


def kept_splits(
    data: DataSpec, load: Callable[[Holding], LabelledSplits], kind: str = "labelled"
) -> LabelledSplits | None:
    """The splits of long tables, which `load` reads once; None of others. `kind` tells what is read of them.

    They are read again where path, size or time of change of a file is another.
    """
    if not (files := long_files(data)):
        return None

    def write(folder: Path) -> None:
        gigabytes = text_size(files) / 1e9
        say([f"reads {gigabytes:.1f} GB of tables into {cache_folder()}, once; later starts find them there"])
        with TextFile(folder / TEXT) as out:
            _write(folder, load(in_file(out)))

    # Of all files: a short one of another kind, such as a validation split, is read with them.
    marks = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(data)]
    how = (VERSION, kind, MOST_CUT, MOST_GIVEN, repr(data), marks)
    return _read(kept("tables", hashlib.blake2b(repr(how).encode(), digest_size=16).hexdigest(), write))


def _write(folder: Path, splits: LabelledSplits) -> None:
    characters = [0, 0]
    for name in SPLITS:
        part: Examples = getattr(splits, name)
        np.save(folder / f"{name}.labels.npy", part.labels)
        for number, texts in enumerate((part.texts, part.seconds)):
            if isinstance(texts, LongTexts):
                np.save(folder / f"{name}.{number}.npy", texts.places)
                if name == "train":
                    characters[number] = sum(map(len, texts))
    about = {
        "characters": characters,
        "labels": asdict(splits.labels),
        "notes": splits.notes,
        "fingerprint": splits.fingerprint,
        "weights": splits.weights,
        "columns": dict(splits.columns),
    }
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _read(folder: Path) -> LabelledSplits:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    train, validation, test = (_examples(folder, name, about["characters"]) for name in SPLITS)
    return LabelledSplits(
        train,
        _in_memory(validation),
        _in_memory(test),
        Labels(**(about["labels"] | {"names": tuple(about["labels"]["names"])})),
        tuple(about["notes"]),
        about["fingerprint"],
        about["weights"] and tuple(about["weights"]),
        about["columns"],
    )


def _examples(folder: Path, name: str, characters: Sequence[int]) -> Examples:
    texts: list[Sequence[str] | None] = []
    for number in range(2):
        places = folder / f"{name}.{number}.npy"
        there = places.is_file()
        texts.append(LongTexts(folder / TEXT, np.load(places), characters=characters[number]) if there else None)
    return Examples(texts[0] or (), texts[1], np.load(folder / f"{name}.labels.npy"))


def _in_memory(examples: Examples) -> Examples:
    return taken(examples, np.arange(len(examples)))
