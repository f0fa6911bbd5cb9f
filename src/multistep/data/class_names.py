"""Names of classes that folders and lists call by a number or an id of WordNet, from a file that lies beside."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multistep.data.table import Table
from multistep.data.text import read_text
from multistep.data.walk import few, visible
from multistep.errors import DataError

_ALIKE = ("classes", "class_names", "classnames", "labels", "label_names", "class_labels", "names", "mapping")
_OF_IMAGENET = ("loc_synset_mapping", "synset_words", "synset_mapping", "words", "map_clsloc")
_TEXTS = frozenset(f"{name}.txt" for name in (*_ALIKE, *_OF_IMAGENET))
_TABLES = frozenset(f"{name}.csv" for name in _ALIKE)  # of a number and a name
_YAML = frozenset({"data.yaml", "data.yml", "dataset.yaml", "dataset.yml"})  # of YOLO
_LARGEST = 2**22  # bytes: the words of WordNet are 2.5 MB
_WORDNET = re.compile(r"n\d{8}")
_KEYED = re.compile(r"(n\d{8}|\d+)(?:\s*[:,=]\s*|\s+)(\S.*)")  # a line: n01440764 tench, Tinca tinca; 0 cat; 1: dog
_COUNTED = re.compile(r"\d+\s+(\S.*)")  # of map_clsloc.txt, behind the id
_ABOVE_IDS, _ABOVE = 4, 2  # folders above the classes' in which a file may lie: of ids, which are unique, of numbers


def with_class_names(table: Table, folder: Path) -> Table:
    """The table with the classes in its column `label` by their names, where a file in or above `folder` has them.

    All labels must be whole numbers, or ids of WordNet such as n01440764, and the file must know each.
    """
    if "label" not in table.names:
        return table
    labels = [str(label).strip() for label in table.column("label")]
    wanted = {*labels}
    unique = all(map(_WORDNET.fullmatch, wanted))
    if not wanted or not (unique or all(label.isdigit() for label in wanted)):
        return table
    for place in [folder, *folder.parents][: 1 + (_ABOVE_IDS if unique else _ABOVE)]:
        for path in visible(place) if place.is_dir() else ():
            if (names := _names_in(path, wanted)) is not None:
                shown = few(f"{label} is {names[_key(label)]}" for label in sorted(wanted))
                note = f"{table.origin}: classes are called as {path} says: {shown}"
                return _with_labels(table, [names[_key(label)] for label in labels]).saying(note)
    return table


def is_class_list(path: Path) -> bool:
    """Whether a table only says what numbers of classes mean: labels.csv with the columns ClassId and Name."""
    return path.name.lower() in _TABLES and path.is_file() and bool(_of_table(_begun(path)))


def _with_labels(table: Table, labels: Sequence[str]) -> Table:
    values = table.values
    return replace(table, values=lambda name: labels if name == "label" else values(name))


def _begun(path: Path) -> str:
    try:
        return read_text(path) if path.stat().st_size <= _LARGEST else ""
    except DataError:
        return ""


def _key(label: str) -> str:
    return str(int(label)) if label.isdigit() else label


def _names_in(path: Path, wanted: set[str]) -> Mapping[str, str] | None:
    """The names of all wanted classes in a file, told apart; None where it is no list of these."""
    name = path.name.lower()
    known = name in _TEXTS or name in _TABLES or name in _YAML or name.endswith(".json")
    if not known or not path.is_file() or not (text := _begun(path)):
        return None
    try:
        if name.endswith(".json"):
            found = _of_object(json.loads(text))
        else:
            found = _of_yaml(text) if name in _YAML else _of_table(text) if name in _TABLES else _of_lines(text)
    except ValueError:
        return None
    if isinstance(found, list):
        found = _by_place(found, wanted)
    keys = {_key(label) for label in wanted}
    ids = all(map(_WORDNET.fullmatch, keys))
    found = {key: each for key, each in found.items() if bool(_WORDNET.fullmatch(key)) == ids}
    return _told_apart(found) if keys <= found.keys() else None


def _of_lines(text: str) -> dict[str, str] | list[str]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    keyed = [_KEYED.fullmatch(line) for line in lines]
    if not all(keyed):
        return lines
    found = {}
    for match in keyed:
        assert match is not None, "all lines match"
        counted = _COUNTED.fullmatch(match[2]) if _WORDNET.fullmatch(match[1]) else None
        found[_key(match[1])] = (counted[1] if counted else match[2]).strip().strip("\"'")
    return found


def _of_table(text: str) -> dict[str, str]:
    """A number and a name a row below a header, each once; nothing else."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.split("\n")) if any(map(str.strip, row))][1:]
    if not rows or any(len(row) != 2 or not row[0].isdigit() or Path(row[1]).suffix for row in rows):
        return {}
    numbers, names = zip(*rows, strict=True)
    return dict(zip(map(_key, numbers), names, strict=True)) if len({*numbers}) == len({*names}) == len(rows) else {}


def _of_yaml(text: str) -> dict[str, str] | list[str]:
    """`names` of YOLO's data.yaml: a list, or names by number."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        held = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise DataError(str(error)) from None
    return _of_object(held.get("names")) if isinstance(held, dict) else {}


def _of_object(held: Any) -> dict[str, str] | list[str]:
    """Names by class, classes by name, a list, or ImageNet's {"0": ["n01440764", "tench"]}."""
    if isinstance(held, list):
        return [str(name) for name in held] if all(isinstance(name, str) for name in held) else {}
    if not isinstance(held, dict) or not held:
        return {}
    if all(isinstance(v, list) and len(v) == 2 and all(isinstance(each, str) for each in v) for v in held.values()):
        by_id = {v[0]: v[1] for v in held.values()}
        return {**by_id, **{_key(str(number)): v[1] for number, v in held.items()}}
    if all(isinstance(v, int) and not isinstance(v, bool) for v in held.values()):
        return {str(number): str(name) for name, number in held.items()}
    return {_key(str(k)): v for k, v in held.items()} if all(isinstance(v, str) for v in held.values()) else {}


def _by_place(names: Sequence[str], wanted: set[str]) -> dict[str, str]:
    """Names by their number, where one tells whether they count from 0 or from 1: not all need have images."""
    numbers = {int(label) for label in wanted if label.isdigit()}
    first = 1 if len(names) in numbers else 0
    told = first in numbers or len(names) in numbers
    if not told or len(numbers) < len(wanted) or not numbers <= {*range(first, first + len(names))}:
        return {}
    return {str(i): name for i, name in enumerate(names, start=first)}


def _told_apart(found: Mapping[str, str]) -> dict[str, str]:
    """The first of the words that mean a class, or all where others have the first too; with the id where all do.

    By the whole file, so that each split calls a class alike: two kinds of crane are in ImageNet.
    """
    firsts, wholes = Counter(name.split(",")[0].strip() for name in found.values()), Counter(found.values())
    names = {}
    for key, name in found.items():
        first = name.split(",")[0].strip()
        alone = firsts[first] == 1
        names[key] = first if alone and first else name if wholes[name] == 1 else f"{first} ({key})"
    return names
