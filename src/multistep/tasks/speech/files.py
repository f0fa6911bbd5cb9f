"""Whatever a user calls "my recordings" -> rows of a sound and its transcript: manifests, folders, LibriSpeech."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.folders import stem_of
from multistep.data.form import Form, Parts
from multistep.data.recordings import recordings
from multistep.data.sources import read_file
from multistep.data.table import Table, of_columns, quoted
from multistep.data.text import TABLES, kind_of
from multistep.data.walk import visible
from multistep.errors import DataError, nearest
from multistep.tasks.speech.audio import SOUNDS, Samples
from multistep.tasks.speech.words import WORDS_ID, SpokenWord, spoken_words

_PATHS = ("audio_filepath", "path", "file_name", "filename", "file", "audio", "audio_path", "wav", "clip")
_TEXTS = ("text", "transcript", "transcription", "sentence", "normalized_text", "words", "word")
_SPEAKERS = ("speaker", "speaker_id", "client_id", "spk", "spk_id")
_OFFSETS, _DURATIONS = ("offset",), ("duration",)


@dataclass(frozen=True)
class Row:
    """One utterance as it is listed. `where` names the file and line; `start` and `seconds` cut a part out (None: all).

    `made` are samples with their rate of an utterance that was made on the spot and lies in no file.
    """

    path: Path
    text: str
    where: str
    speaker: str | None = None
    start: float = 0.0
    seconds: float | None = None
    made: tuple[Samples, int] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Listing:
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # what was guessed or left out, to be said aloud


def _read_folder(folder: Path, data: DataSpec, form: Form) -> Parts:
    manifests = [p for p in visible(folder) if p.is_file() and kind_of(p) in TABLES]
    if len(manifests) > 1:
        manifests = [p for p in manifests if stem_of(p).lower() in ("manifest", "metadata")] or manifests
    if len(manifests) > 1:
        names = quoted(p.name for p in manifests)
        raise DataError(f"{folder}: more than one manifest: {names}; name one of them, or call them train, dev, test")
    return read_file(manifests[0], data, form) if manifests else {"": recordings(folder, SOUNDS)}


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


FORM = Form(
    "recordings",
    f"a manifest of recordings ({', '.join(TABLES)}) with a path and a transcript a row, or a folder of sounds with "
    "transcripts beside them",
    made={WORDS_ID: _made_words},
    folder=_read_folder,
    describes=True,
    loose=True,
)


def listing_of(table: Table, data: DataSpec) -> Listing:
    """The utterances of a table. Raises DataError, with the place in the file, for what cannot be read.

    A column of paths and one of transcripts; perhaps `speaker`, `offset` and `duration` (in seconds, as NeMo writes
    them).
    """
    if not len(table):
        raise DataError(f"{table.origin}: no rows; a manifest needs a path and a transcript a row")
    notes = list(table.notes)
    sounds = _pick(table, data.path_column, "file", _PATHS, "path_column", notes)
    texts = _pick(table, data.text_column, "text", _TEXTS, "text_column", notes)
    speakers, offsets, durations = (_known(table, usual) for usual in (_SPEAKERS, _OFFSETS, _DURATIONS))
    if any(speakers) and "speaker" not in table.roles:
        notes.append(f"{table.origin}: speakers are in column '{_usual(table, _SPEAKERS)[0]}'")
    made = table.values("samples") if "samples" in table.roles else [None] * len(table)
    paths = [sound.strip() for sound in table.strings(sounds)]
    # Where one row says where in a sound it begins, the others of that sound are parts too.
    cut = {sound for sound, offset in zip(paths, offsets, strict=True) if offset not in (None, "")}
    rows = []
    for index, (sound, text) in enumerate(zip(paths, table.column(texts), strict=True)):
        where = table.place(index)
        if not sound:
            raise DataError(f"{where}: no path in column '{sounds}'; give each row the path of a sound")
        if not isinstance(text, (str, int, float, type(None))):
            raise DataError(f"{where}: '{texts}' is {type(text).__name__}, not a transcript")
        start, seconds = _part(offsets[index], durations[index], where) if sound in cut else (0.0, None)
        path = Path(sound).expanduser()
        rows.append(
            Row(
                path if table.folder is None else table.folder / path,
                "" if text is None else str(text),
                where,
                speaker=None if speakers[index] in (None, "") else str(speakers[index]),
                start=start,
                seconds=seconds,
                made=made[index],  # type: ignore[arg-type]  # what `_of_words` put there
            )
        )
    return Listing(tuple(rows), tuple(notes))


def path_column_of(table: Table, given: str | None) -> str:
    """The column that names sounds, whole ones: the given one, or guessed. Raises DataError."""
    if any(value not in (None, "", 0, 0.0, "0", "0.0") for value in _known(table, _OFFSETS)):
        raise DataError(
            f"{table.origin}: its rows are parts of sounds (column 'offset'), and whole ones are transcribed here; cut "
            "them into files of their own"
        )
    return _pick(table, given, "file", _PATHS, "path_column", [])


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
    notes.append(f"{table.origin}: {what} are in column '{found[0]}'")
    return found[0]


def _is_sound(value: object) -> bool:
    return isinstance(value, str) and Path(value).suffix.lower() in SOUNDS


def _part(offset: object, duration: object, where: str) -> tuple[float, float | None]:
    """The part of its sound that an utterance is: from where, and how long (None: all of it)."""
    try:
        start = 0.0 if offset in (None, "") else float(str(offset))
        if start == 0.0 and duration in (None, ""):
            return 0.0, None
        seconds = float(str(duration))
    except ValueError:
        start = seconds = math.nan
    if not math.isfinite(start + seconds):
        raise DataError(f"{where}: 'offset' needs a 'duration' beside it, both in seconds")
    return start, seconds
