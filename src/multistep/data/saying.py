"""Lists whose lines say what is said in which sound, in any folder -> tables: MLS, AISHELL, VoxForge, Festival."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from multistep.data.names import splits_among
from multistep.data.table import Table, joined, of_columns
from multistep.data.text import read_text
from multistep.data.walk import Seen, few, seen_below
from multistep.errors import DataError

LISTS = (".txt", ".tsv", ".lst", ".trn", ".data", ".transcription")  # that may name a sound a line
PROMPTS = "prompts"  # VoxForge's list in the folder `etc` of each submission
_BARE = frozenset({PROMPTS, "text", "transcript", "transcripts", "trans"})  # names of such lists without a suffix
_FEW_LINES, _MOST_LINES = 2, 200  # of a list: fewer are none, more need not be looked at
_FESTIVAL = re.compile(r'\(\s*(\S+)\s+"(.*)"\s*\)')  # as of CMU Arctic
_SPHINX = re.compile(r"(?:<s>)?\s*(.+?)\s*(?:</s>)?\s*\((\S+)\)")  # as of AN4
_NUMBER = re.compile(r"[-+\d.,:;eE\s]+")
_Named = Mapping[str, Sequence[Path]]


def by_lists(folder: Path, seen: Seen, sounds: Sequence[Path]) -> Table | None:
    """Text files below a folder whose lines name a sound and what is said; None where there are none.

    Where the lists are named for splits, so is the column `split`.
    """
    by_name = _names_of(sounds)
    lists = [path for path in seen.files if _may_list(path)] if sounds else []
    found = {path: table for path in lists if (table := _of_lines(path, by_name)) is not None}
    if not found:
        return None
    known = splits_among(path.stem for path in found)
    if len(known) < len({path.stem for path in found}) or "train" not in known.values() or len(known) < 2:
        return joined(str(folder), list(found.values()))
    split = [path.stem for path, table in found.items() for _ in range(len(table))]
    whole = joined(str(folder), list(found.values()))
    columns = {name: whole.column(name) for name in whole.names}
    said = f"{folder}: splits are the names of the lists: {few(known)}"
    places = [whole.place(row) for row in range(len(whole))]
    return of_columns(str(folder), {**columns, "split": split}, places, notes=(*whole.notes, said))


def one_list(path: Path, sounds: Sequence[str]) -> Table | None:
    """A text file whose lines begin with the names of sounds below its folder; None where it is no such list."""
    if not _may_list(path):
        return None
    return _of_lines(path, _names_of([p for p in seen_below(path.parent).files if p.suffix.lower() in sounds]))


def _may_list(path: Path) -> bool:
    return path.suffix.lower() in LISTS or path.name.lower() in _BARE


def stem_of_sound(sound: Path) -> str:
    """A sound's name in small letters without its suffix, also a second one, as in SA1.WAV.wav."""
    stem = sound.stem.lower()
    return stem[:-4] if stem.endswith((".wav", ".sph")) else stem


def _names_of(sounds: Sequence[Path]) -> _Named:
    found: dict[str, list[Path]] = defaultdict(list)
    for sound in sounds:
        for name in dict.fromkeys((sound.name.lower(), stem_of_sound(sound))):
            found[name].append(sound)
    return found


def _of_lines(path: Path, by_name: _Named) -> Table | None:
    """The columns `file`, `text` and perhaps `speaker`; None unless most lines begin with the name of a sound.

    Of three or more fields between tabs the last is what is said, as in the TRANS.txt of MAGICDATA.
    """
    try:
        lines = read_text(path).split("\n") if path.stat().st_size else []
    except DataError:  # whatever else lies there as .txt
        return None
    found, lost = list[tuple[int, Path, list[str]]](), list[int]()
    sample = [line for line in lines if line.strip()][:_MOST_LINES]
    known = sum(bool(_sounds_called(_first(line)[0], by_name)) for line in sample)
    if len(sample) < _FEW_LINES or known <= len(sample) / 2:
        return None
    for number, line in enumerate(lines, start=1):
        name, text = _first(line)
        if (sound := _sound_of(name, by_name, path)) is not None:
            found.append((number, sound, text.split("\t")))
        elif name:
            lost.append(number)
    if all(len(fields) > 1 and _NUMBER.fullmatch(fields[-1]) for _, _, fields in found):
        return None  # times and counts, such as MLS's segments; or names that several sounds have
    said = (
        f"{path}: lines left out, since no sound, or several, have their name: {len(lost)} (first: line {lost[0]})"
        if lost
        else ""
    )
    note = f"{path}: each line is the name of a sound and what is said in it"
    texts = ["\t".join(fields) for _, _, fields in found]
    columns: dict[str, Sequence[object]] = {"file": [str(sound) for _, sound, _ in found], "text": texts}
    width = len(found[0][2])
    if width > 1 and all(len(fields) == width for _, _, fields in found):
        columns["text"] = [fields[-1].strip() for _, _, fields in found]
        note = f"{path}: each line is the name of a sound and, in field {width + 1} of {width + 1}, what is said in it"
        speakers = [fields[0].strip() for _, _, fields in found]
        if all(speakers) and len(set(speakers)) < len(speakers):
            columns["speaker"] = speakers
            note += "; the speaker is in field 2"
    if path.name.lower() == PROMPTS:
        columns["speaker"] = [_submitter(path)] * len(found)
    places = [f"{path}:{number}" for number, _, _ in found]
    return of_columns(str(path), columns, places, notes=(note, *([said] if said else [])))


def _sounds_called(name: str, by_name: _Named) -> Sequence[Path]:
    """The sounds of that name, or of the name at the end of that path."""
    return by_name.get(name.lower()) or by_name.get(re.split(r"[/\\]", name)[-1].lower()) or ()


def _sound_of(name: str, by_name: _Named, path: Path) -> Path | None:
    """The sound that a list means: of several of one name that of its path, or that nearest to the list."""
    found = _sounds_called(name, by_name)
    if len(found) < 2:
        return next(iter(found), None)
    parts = tuple(re.split(r"[/\\]", name.lower()))
    called = [s for s in found if tuple(part.lower() for part in (*s.parts[:-1], s.stem))[-len(parts) :] == parts]
    called += [s for s in found if tuple(part.lower() for part in s.parts)[-len(parts) :] == parts]
    if len(parts) > 1 and len(called) == 1:
        return called[0]
    for folder in path.parents:
        if near := [sound for sound in found if sound.is_relative_to(folder)]:
            return near[0] if len(near) == 1 else None
    return None


def _first(line: str) -> tuple[str, str]:
    """What a line begins with, up to a tab or space, and the rest, behind the :: that some lists have."""
    line = line.strip()
    if (festival := _FESTIVAL.fullmatch(line)) is not None:
        return festival[1], festival[2].replace('\\"', '"')
    if line.endswith(")") and (sphinx := _SPHINX.fullmatch(line)) is not None:
        return sphinx[2], sphinx[1]
    line = re.sub(r"^([^\s:/\\]{2,}):(?=[^\s:/\\])", r"\1\t", line)  # as of JSUT: id:text
    name, _, rest = line.partition("\t" if "\t" in line else " ")
    return name, rest.strip().removeprefix("::").strip()


def _submitter(path: Path) -> str:
    """Who sent a folder to VoxForge, as its name says; of anonymous ones each is taken for another."""
    name = path.parent.parent.name
    return name if name.lower().startswith("anon") else name.partition("-")[0]
