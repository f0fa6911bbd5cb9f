"""Whatever a user calls "my recordings" -> rows of a sound and its transcript: manifests, folders, LibriSpeech."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from multistep.core.values.plan import DataSpec
from multistep.data.folders import stem_of
from multistep.data.form import Form, Parts
from multistep.data.lists import is_kaldi, kaldi, piped, stm
from multistep.data.paths import files_of
from multistep.data.recordings import LIBRISPEECH, commands, recordings
from multistep.data.saying import LISTS as SAYING
from multistep.data.saying import PROMPTS, one_list
from multistep.data.sources import by_column, read_file, rows_of_folder
from multistep.data.table import Table, joined, of_columns, quoted
from multistep.data.text import COLUMNAR, TABLES, existing_file, kind_of
from multistep.data.walk import files_below, visible
from multistep.errors import DataError, nearest
from multistep.tasks.speech.audio import SOUNDS, Samples
from multistep.tasks.speech.words import WORDS_ID, SpokenWord, spoken_words

_PATHS = ("audio_filepath", "path", "file_name", "filename", "file", "audio", "audio_path", "wav", "wav_path", "clip")
_TEXTS = ("text", "transcript", "transcription", "sentence", "normalized_text", "words", "word", "wrd")
_SPEAKERS = ("speaker", "speaker_id", "client_id", "spk", "spk_id")
PIPED = (".csv", ".txt", ".lst")  # lists without a header, with fields between pipes
LISTS = (".stm", *SAYING, *PIPED)
_OF_LIBRITTS = (".trans.tsv", ".book.tsv")  # beside sounds with a transcript each
_OFFSETS, _DURATIONS = ("offset",), ("duration",)


@dataclass(frozen=True)
class Row:
    """One utterance as it is listed. `where` names the file and line; `start` and `seconds` cut a part out (None: all).

    `held` are the bytes of a sound that lies in a table, not in a file; `made` the samples, with their rate, of one
    that was made on the spot.
    """

    path: Path
    text: str
    where: str
    speaker: str | None = None
    start: float = 0.0
    seconds: float | None = None
    made: tuple[Samples, int] | None = field(default=None, compare=False, repr=False)
    held: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def sound(self) -> Path | bytes:
        """What is decoded: the file, or its bytes."""
        return self.path if self.held is None else self.held


@dataclass(frozen=True)
class Listing:
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # what was guessed or left out, to be said aloud


def _read_folder(folder: Path, data: DataSpec, form: Form) -> Parts:
    if is_kaldi(folder):
        return {"": kaldi(folder)}
    if (words := commands(folder, SOUNDS)) is not None:
        return by_column(words, data, form)
    files = [path for path in visible(folder) if path.is_file()]
    manifests = [path for path in files if kind_of(path) in TABLES and not path.name.lower().endswith(_OF_LIBRITTS)]
    sounds = {path.stem.lower() for path in files if path.suffix.lower() in SOUNDS}
    manifests = [path for path in manifests if kind_of(path) != ".json" or path.stem.lower() not in sounds]
    manifests = [path for path in manifests if kind_of(path) != ".json"] or manifests
    if len(manifests) > 1 and {kind_of(path) for path in manifests} <= COLUMNAR:
        return rows_of_folder(folder, data, form)  # shards
    if len(manifests) > 1:
        usual = [p for p in manifests if stem_of(p).lower() in ("manifest", "metadata")]
        # Common Voice: all that were approved, where none are named for splits.
        manifests = usual or [p for p in manifests if p.name.lower() == "validated.tsv"] or manifests
    if len(manifests) > 1:
        names = quoted(p.name for p in manifests)
        raise DataError(f"{folder}: more than one manifest: {names}; name one of them, or call them train, dev, test")
    if manifests:
        return read_file(manifests[0], data, form)
    # Lists without a header are tried after what says what it is.
    listing = [path for path in files if kind_of(path) in LISTS and not path.name.lower().endswith(LIBRISPEECH)]
    lists = [table for path in listing if (table := _list_of(path, data))]
    if len(lists) == 1:
        return lists[0]
    if found := [path for path, hidden in files_below(folder) if path.suffix.lower() == ".stm" and not hidden]:
        return {"": replace(joined(str(folder), [stm(path) for path in found]), folder=folder)}
    return by_column(recordings(folder, SOUNDS), data, form)


def _list_of(path: Path, data: DataSpec) -> Parts | None:
    """A file that lists recordings without naming columns."""
    kind = kind_of(path)
    if kind == ".stm":
        return {"": stm(path)}
    if path.name == "wav.scp":
        return {"": kaldi(path.parent)}
    table = piped(path, _PATHS, data.encoding) if kind in PIPED and path.stat().st_size else None
    table = table or one_list(path, SOUNDS)
    return None if table is None else {"": table}


def _made_words() -> Parts:
    by_split: dict[str, list[tuple[int, SpokenWord]]] = defaultdict(list)
    for number, word in enumerate(spoken_words(), start=1):
        by_split[word.split].append((number, word))
    return {split: _of_words(words) for split, words in by_split.items()}


def _of_words(words: Sequence[tuple[int, SpokenWord]]) -> Table:
    columns: dict[str, Sequence[object]] = {
        "file": [f"{WORDS_ID}/{word.speaker}/{word.text}-{number}.wav" for number, word in words],
        "text": [word.text for _, word in words],
        "speaker": [word.speaker for _, word in words],
        "samples": [(word.samples, word.rate) for _, word in words],
    }
    return of_columns(WORDS_ID, columns, [f"{WORDS_ID}:{number}" for number, _ in words])


def _piped_of(path: Path, data: DataSpec) -> Parts | None:
    """A .csv that is none: fields between pipes, and no header."""
    said = data.header or data.delimiter not in (None, "|")  # by the user, that it is none such
    return _list_of(existing_file(path), data) if path.suffix.lower() == ".csv" and not said else None


FORM = Form(
    "recordings",
    f"a manifest of recordings ({', '.join(TABLES)}) with a path and a transcript a row, or a folder of sounds with "
    "transcripts beside them",
    items=(*SOUNDS, *LISTS, ".scp", PROMPTS),
    made={WORDS_ID: _made_words},
    read_file=_list_of,
    own_table=_piped_of,
    folder=_read_folder,
    describes=True,
    loose=True,
    names_items=lambda path: _list_of(path, DataSpec()) is not None,
)


def listing_of(table: Table, data: DataSpec) -> Listing:
    """The utterances of a table. Raises DataError, with the place in the file, for what cannot be read.

    A column of paths and one of transcripts; perhaps `speaker`, `offset` and `duration` (in seconds, as NeMo writes
    them).
    """
    if not len(table):
        raise DataError(f"{table.origin}: no rows; a manifest needs a path and a transcript a row")
    notes = list(table.notes)
    sounds = _sounds_of(table, data, notes)
    texts = _pick(table, data.text_column, "text", _TEXTS, "text_column", notes)
    speakers, offsets, durations = (_known(table, usual) for usual in (_SPEAKERS, _OFFSETS, _DURATIONS))
    if any(speakers) and "speaker" not in table.roles:
        notes.append(f"speakers are in column '{_usual(table, _SPEAKERS)[0]}'")
    made = table.values("samples") if "samples" in table.roles else [None] * len(table)
    found = [_cell(cell, table, index, sounds) for index, cell in enumerate(table.column(sounds))]
    names = {index: cell for index, cell in enumerate(found) if isinstance(cell, str)}
    some = table if len(names) == len(table) else table.take(list(names))
    paths, said = files_of(some, list(names.values()), SOUNDS, data.root) if names else ([], [])
    if "samples" in table.roles:  # of sounds that lie in no file
        paths, said = [Path(name) for name in names.values()], []
    notes += said
    path_of = dict(zip(names, paths, strict=True))
    # Where one row says where in a sound it begins, the others of that sound are parts too.
    cut = {names[i] for i, offset in enumerate(offsets) if offset not in (None, "") and i in names}
    rows = []
    for index, text in enumerate(table.column(texts)):
        where, cell = table.place(index), found[index]
        if not isinstance(text, (str, int, float, type(None))):
            raise DataError(f"{where}: '{texts}' is {type(text).__name__}, not a transcript")
        start, seconds = _part(offsets[index], durations[index], where) if names.get(index) in cut else (0.0, None)
        rows.append(
            Row(
                path_of.get(index) or Path(table.origin) / _name_of(cell, index),
                "" if text is None else str(text),
                where,
                speaker=None if speakers[index] in (None, "") else str(speakers[index]),
                start=start,
                seconds=seconds,
                made=cell if isinstance(cell, tuple) else made[index],  # type: ignore[arg-type]  # what `_of_words` put
                held=cell if isinstance(cell, bytes) else None,
            )
        )
    return Listing(tuple(rows), tuple(notes))


def _sounds_of(table: Table, data: DataSpec, notes: list[str]) -> str:
    """The column of sounds or their paths."""
    known = table.roles.get("audio")
    return (
        known
        if known and not data.path_column
        else _pick(table, data.path_column, "file", _PATHS, "path_column", notes)
    )


def _cell(cell: object, table: Table, row: int, column: str) -> str | bytes | tuple[Samples, int]:
    """The path of a sound, its bytes, or its samples and their rate. Raises DataError that names the row."""
    cell = held_in(cell)
    if isinstance(cell, bytes | tuple):
        return cell
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise DataError(f"{table.place(row)}: no path in column '{column}'; give each row the path of a sound")
    if not isinstance(cell, str):
        raise DataError(f"{table.place(row)}: '{column}' is {type(cell).__name__}, not the path of a sound")
    return cell.strip()


def held_in(cell: object) -> Any:
    """A sound's path, its bytes, or its samples and their rate; what a cell holds as none of these comes as it is."""
    if not isinstance(cell, Mapping):
        return cell
    if cell.get("array") is not None and cell.get("sampling_rate"):
        return np.asarray(cell["array"], np.float32), int(cell["sampling_rate"])
    return cell.get("bytes") or cell.get("path")


def _name_of(cell: object, row: int) -> str:
    """A name for a sound that lies in no file: by its content, since rows are cut into splits by the hash of it."""
    return hashlib.blake2b(cell, digest_size=8).hexdigest() if isinstance(cell, bytes) else f"row {row + 1}"


def tells_transcripts(table: Table, data: DataSpec) -> bool:
    """Whether a table says what is said in any of its sounds: the test split of a competition does not."""
    known = data.text_column or table.roles.get("text") or next(iter(_usual(table, _TEXTS)), None)
    return known in table.names and any(str(text or "").strip() for text in table.column(str(known)))


def path_column_of(table: Table, given: str | None) -> str:
    """The column that names sounds: the given one, or guessed. Raises DataError."""
    return _pick(table, given, "file", _PATHS, "path_column", [])


def part_columns_of(table: Table) -> tuple[str, ...]:
    """The columns that tell where in its sound a row begins and how long it is; none where no row tells it. Raises
    DataError where rows begin later than their sounds, and nothing says how long they are.
    """
    offsets, durations = (_usual(table, usual) for usual in (_OFFSETS, _DURATIONS))
    told = {*table.column(offsets[0])} if offsets else set()
    if told <= {None, ""}:
        return ()
    if durations:
        return offsets[0], durations[0]
    if told <= {None, "", 0, "0", "0.0"}:
        return ()
    raise DataError(f"{table.origin}: '{offsets[0]}' needs a 'duration' beside it, both in seconds")


def _usual(table: Table, usual: Sequence[str]) -> list[str]:
    """The columns that have one of these names, in any case, the most usual first."""
    by_name = {name.strip().lower(): name for name in reversed(table.names)}
    return [by_name[name] for name in usual if name in by_name]


def _known(table: Table, usual: Sequence[str]) -> Sequence[object]:
    """The column that has one of these names, or nothing in each row."""
    found = _usual(table, usual)
    return table.column(found[0]) if found else [None] * len(table)


def _pick(table: Table, wanted: str | None, role: str, usual: Sequence[str], setting: str, notes: list[str]) -> str:
    """The column that is named, else the one known or usual; of paths, else the only one that looks like paths."""
    if wanted is not None:
        if wanted not in table.names:
            listed = quoted(table.names)
            raise DataError(f"{table.origin}: no column '{wanted}'; columns: {listed}.{nearest(wanted, table.names)}")
        return wanted
    if role in table.roles:
        return table.roles[role]
    found = _usual(table, usual)
    if not found and setting == "path_column":
        found = [name for name in table.names if all(_is_sound(value) for value in table.column(name))]
    what = "paths" if setting == "path_column" else "transcripts"
    if not found:
        raise DataError(
            f"{table.origin}: which column holds the {what}? Say data.{setting}; columns: {quoted(table.names)}"
        )
    notes.append(f"{what} are in column '{found[0]}'")
    return found[0]


def _is_sound(value: object) -> bool:
    if isinstance(value, bytes | Mapping):
        return True
    return isinstance(value, str) and Path(value).suffix.lower() in SOUNDS


def part_of(offset: object, duration: object) -> tuple[float, float | None]:
    """The part of its sound that an utterance is: from where, and how long (None: all of it). Raises DataError."""
    try:
        start = 0.0 if offset in (None, "") else float(str(offset))
        if start == 0.0 and duration in (None, ""):
            return 0.0, None
        seconds = float(str(duration))
    except ValueError:
        start = seconds = math.nan
    if not math.isfinite(start + seconds):
        raise DataError("'offset' needs a 'duration' beside it, both in seconds")
    return start, seconds


def _part(offset: object, duration: object, where: str) -> tuple[float, float | None]:
    try:
        return part_of(offset, duration)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
