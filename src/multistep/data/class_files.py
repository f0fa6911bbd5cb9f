"""Text files that hold the texts of one class each, one a line -> a table: pos.txt beside neg.txt."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from multistep.data.dialect import cutting_alike, tells_labels
from multistep.data.names import NAMES
from multistep.data.parallel import LABELS
from multistep.data.table import Table, of_columns
from multistep.data.text import PACKED, TABLES, kind_of, opened_bytes, read_said
from multistep.data.trees import CODE, PROSE
from multistep.data.walk import few, is_about, visible
from multistep.errors import DataError

SPLIT = "split"  # the column of splits that the files' names tell
_KINDS = (".txt", ".text", "")
_WORDS = re.compile(r"[-_. ]+")
_DIGITS, _LETTERS = re.compile(r"\d+"), re.compile(r"[^\W\d_]+")
_OF_NUMBERED = frozenset({"class", "label", "category", "topic", "intent", "star", "stars"})  # class_0.txt, 5_stars.txt
_CLASSES = frozenset(  # names that only classes have
    ["pos", "neg", "positive", "negative", "neutral", "ham", "spam", "good", "bad", "true", "false", "fake", "real"]
)
_NONE = LABELS | {"notes", "note", "todo", "log", "output", "requirements", "draft", "index"}  # names that no class has
_MOST_CLASSES = 150  # more files than that are documents
_FEW_LINES = 2  # of a class: a single line tells no texts apart
_MOST_BLANK = 0.1  # of the lines: running text has more between its paragraphs
_MOST_READ = 65_536  # bytes, where it is asked whether a folder is so laid out
_LOOKED_AT = 200  # lines, of the same
_MARK = "__label__"  # of fastText, whose lines name their classes themselves


@dataclass(frozen=True)
class _File:
    path: Path
    label: str
    split: str | None


def class_files(folder: Path, encoding: str | None = None) -> Table | None:
    """The columns `text`, `label` and, where names tell it, `split`; None where a folder is not so laid out.

    pos.txt and neg.txt, rt-polarity.pos and rt-polarity.neg, train.pos.txt and its kin, or pos/train.txt. A label is
    what names differ in. Raises DataError for what is no text.
    """
    files = _files_of(folder)
    if not files:
        return None
    texts, labels, splits, places, notes = list[str](), list[str](), list[str](), list[str](), list[str]()
    counts: dict[str, int] = {}
    for file in files:
        text, said = read_said(file.path, encoding)
        notes += said
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                texts.append(line.strip())
                labels.append(file.label)
                splits.append(file.split or "")
                places.append(f"{file.path}:{number}")
                counts[file.label] = counts.get(file.label, 0) + 1
    split = any(splits)
    of_folders = files[0].path.parent != folder
    whose = "name of its folder" if of_folders else "name of its file"
    which = (", the split the name of the file" if of_folders else ", which tells the split, too") if split else ""
    told = few(f"{name} ({count:,})" for name, count in counts.items())
    said_of = [f"{folder}: one text a line, the class is the {whose}{which}: {told}"]
    taken = {file.path for file in files}
    aside = [path.name for path in visible(folder) if path.is_file() and path not in taken and not is_about(path)]
    if aside:
        said_of.append(f"{folder}: left out, since they are no texts of a class: {few(aside)}")
    columns: dict[str, Sequence[object]] = {"text": texts, "label": labels, **({SPLIT: splits} if split else {})}
    roles = {name: name for name in ("text", "label")}
    return of_columns(str(folder), columns, places, notes=(*said_of, *notes), roles=roles)


def tables_of_classes(paths: Sequence[Path], *, known: bool) -> dict[Path, str]:
    """The class of each table, by their names: Fake.csv and True.csv; none where these are no such names.

    `known`: only such as nothing but classes are called.
    """
    names = {path: _words_of(path.with_suffix("")) for path in paths}
    labels = _differing(names)
    classes = {label.lower() for label in labels.values()}
    if len(classes) < max(2, len(paths)) or not _are_classes(names, labels):
        return {}
    return {} if known and not classes <= _CLASSES else labels


def holds_class_files(folder: Path) -> bool:
    """Whether the files of a folder are of one class each, by their names and what they begin with."""
    return folder.is_dir() and bool(_files_of(folder))


def _files_of(folder: Path) -> list[_File]:
    entries = visible(folder)
    files = [path for path in entries if path.is_file() and not is_about(path)]
    if any(kind_of(path) in TABLES for path in files):
        return []
    found = _of_names(files) if files else _of_folders([path for path in entries if path.is_dir()])
    known = {file.label.lower() for file in found} <= _CLASSES
    return found if found and all(_is_a_text_a_line(file.path, known) for file in found) else []


def _of_folders(folders: Sequence[Path]) -> list[_File]:
    """A folder for each class, with a file for each split in it: pos/train.txt."""
    found = []
    alone = [held for each in folders if len(held := visible(each)) == 1]
    if len(alone) == len(folders) > 1 and len({held[0].name for held in alone}) == 1:  # sports/articles.txt
        texts = alone[0][0].suffix.lower() in _KINDS and all(held[0].is_file() for held in alone)
        return [_File(held[0], held[0].parent.name, None) for held in alone] if texts else []
    for each in folders:
        held = visible(each)
        splits = [NAMES.get(path.stem.lower()) for path in held]
        if None in splits or "train" not in splits or any(path.suffix.lower() not in _KINDS for path in held):
            return []
        found += [_File(path, each.name, split) for path, split in zip(held, splits, strict=True)]
    return found if len(folders) > 1 else []


def _of_names(paths: Sequence[Path]) -> list[_File]:
    """The files whose names differ in a class, and perhaps a split; none unless each split has several classes."""
    texts = [path for path in paths if kind_of(path) in _KINDS or kind_of(path)[1:].isdigit()]
    names = {path: _words_of(path) for path in texts or _endings_of(paths)}
    told = {path: [NAMES[word.lower()] for word in words if word.lower() in NAMES] for path, words in names.items()}
    rest = {path: [word for word in words if word.lower() not in NAMES] for path, words in names.items()}
    rest = {path: words for path, words in rest.items() if words}  # test.txt beside them has no class
    labels = _differing(rest)
    if len(set(labels.values())) < 2 or not _are_classes(rest, labels):
        return []
    found = [_File(path, label, next(iter(told[path]), None)) for path, label in labels.items()]
    by_split: dict[str | None, list[str]] = {}
    for file in found:
        by_split.setdefault(file.split, []).append(file.label)
    classes = set(by_split.get("train" if len(by_split) > 1 else next(iter(by_split)), ()))
    whole = all(len(set(held)) == len(held) > 1 and set(held) <= classes for held in by_split.values())
    return found if whole and not (None in by_split and len(by_split) > 1) else []


def _words_of(path: Path) -> list[str]:
    name = path.stem if path.suffix.lower() in PACKED else path.name
    return [word for word in _WORDS.split(Path(name).stem if kind_of(path) in (".txt", ".text") else name) if word]


def _endings_of(paths: Sequence[Path]) -> list[Path]:
    """Files that differ in their ending alone, which is none that is known: rt-polarity.pos, rt-polarity.neg."""
    known = (*TABLES, *PROSE, *CODE)
    held = [
        path for path in paths if re.fullmatch(r"\.[a-z]+", path.suffix.lower()) and path.suffix.lower() not in known
    ]
    return [path for path in held if sum(other.stem == path.stem for other in held) > 1]


def _differing(names: dict[Path, list[str]]) -> dict[Path, str]:
    """What is left of each name without the words that all begin or end with."""
    words = list(names.values())
    least = min(map(len, words), default=0)
    first = next((i for i in range(least) if len({held[i].lower() for held in words}) > 1), least)
    last = next((i for i in range(least - first) if len({held[-1 - i].lower() for held in words}) > 1), least - first)
    kept = {path: held[first : len(held) - last] for path, held in names.items()}
    return {path: _as_written(path, words) for path, words in kept.items()}


def _as_written(path: Path, words: Sequence[str]) -> str:
    """The words with what stands between them in a file's name, such as sci_tech."""
    found = re.search(_WORDS.pattern.join(map(re.escape, words)), path.name)
    return found[0] if found and words else " ".join(words)


def _are_classes(names: dict[Path, list[str]], labels: dict[Path, str]) -> bool:
    """Whether the labels can be of classes, rather than numbers of documents: chapter 1 and chapter 2."""
    different = set(labels.values())
    if not all(different) or len(different) > _MOST_CLASSES or {label.lower() for label in different} & _NONE:
        return False
    if different == {"0", "1"} or len({_DIGITS.sub("", label) for label in different}) == len(different):
        return True
    called = {word.lower() for held in names.values() for word in _LETTERS.findall(" ".join(held))}
    return not called.isdisjoint(_OF_NUMBERED)


def _is_a_text_a_line(path: Path, known: bool) -> bool:
    """Whether a file begins with several texts, a line each: no table, no running text with blank lines in it.

    Where the classes are `known` ones, a line may stand between texts.
    """
    try:
        lines = _begun(path).split("\n")
    except DataError:
        return False
    told = [line for line in lines if line.strip()]
    if len(told) < _FEW_LINES or _is_table(told):
        return False
    if known and all(not (line.strip() and after.strip()) for line, after in pairwise(lines)):
        return True
    return len(lines) - len(told) <= max(1, _MOST_BLANK * len(lines))


def may_be_table(path: Path) -> bool:
    """Whether a text file's first lines are rows: cut alike by some character, or marked as of fastText."""
    try:
        return _is_table([line for line in _begun(path).split("\n") if line.strip()])
    except DataError:
        return True  # of which whoever reads it says what it is


def _is_table(lines: Sequence[str]) -> bool:
    if lines and lines[0].startswith((_MARK, "{", "[{")):
        return True
    head = "\n".join(lines[:_LOOKED_AT])
    mark = cutting_alike(head) if len(lines) >= _FEW_LINES else None
    return mark is not None and (mark == "\t" or tells_labels(head, mark))


def _begun(path: Path) -> str:
    """The beginning of a text. Raises DataError for what is none."""
    try:
        with opened_bytes(path) as file:
            begun = file.read(_MOST_READ)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    marked = begun.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in begun and not marked:
        raise DataError(f"{path}: no text")
    return begun.decode("utf-16" if marked else "utf-8", "replace")
