"""Whatever a user calls "my recordings" -> rows of a sound and its transcript: manifests, folders, LibriSpeech."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from multistep.errors import DataError, nearest
from multistep.tasks.speech.audio import SOUNDS, Samples
from multistep.tasks.speech.words import WORDS_ID, spoken_words
from multistep.tasks.splits import ALLOWED, COLUMNS, NAMES, left_out
from multistep.tasks.tables import TABLES, Table, existing_file, kind_of, quoted, read_table, read_text

LIBRISPEECH = ".trans.txt"
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
    split: str | None = None
    speaker: str | None = None
    start: float = 0.0
    seconds: float | None = None
    made: tuple[Samples, int] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Listing:
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # what was guessed or left out, to be said aloud


@dataclass(frozen=True)
class Columns:
    """The columns that the user named; None: to be guessed."""

    path: str | None = None
    text: str | None = None


def read_listing(source: str, columns: Columns) -> Listing:
    """Read one source. Raises DataError, with the place in the file, for what cannot be read.

    A manifest (.csv, .tsv, .jsonl, .parquet): a column of paths, relative to the manifest, and one of transcripts;
    perhaps `speaker`, `split`, `offset` and `duration` (in seconds, as NeMo writes them).
    A folder: the manifest in it; the LibriSpeech layout (*.trans.txt beside its sounds, at any depth); or sounds
    with their transcripts beside them (x.wav and x.txt, at any depth). Folders or manifests in it that are named
    train, validation (val, dev) or test, or begin so (train-clean-100, dev_manifest.jsonl), are its splits.
    "spoken-words": see `words`.
    """
    if source == WORDS_ID:
        return _made_words()
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, columns)
    kind = kind_of(existing_file(path))
    if kind not in TABLES:
        hint = " An object a line, as NeMo writes it, is read if it is called .jsonl." if kind == ".json" else ""
        raise DataError(
            f"{path}: not a manifest of recordings; allowed: {', '.join(TABLES)} with a path and a transcript a row, "
            f"or a folder of sounds with transcripts beside them.{hint}"
        )
    return _read_manifest(path, columns)


def _made_words() -> Listing:
    rows = []
    for number, word in enumerate(spoken_words(), start=1):
        path = Path(WORDS_ID) / word.speaker / f"{word.text}-{number}.wav"
        where = f"{WORDS_ID}:{number}"
        rows.append(Row(path, word.text, where, word.split, word.speaker, made=(word.samples, word.rate)))
    return Listing(tuple(rows))


# Folders ------------------------------------------------------------------------------------------


def _read_folder(folder: Path, columns: Columns) -> Listing:
    if parts := _split_entries(folder):
        found = _joined([(read_listing(str(path), columns), name) for path, name in parts], folder)
        return replace(found, notes=(*found.notes, *left_out(folder, [path for path, _ in parts])))
    manifests = sorted(p for p in folder.iterdir() if p.is_file() and kind_of(p) in TABLES)
    if len(manifests) > 1:
        manifests = [p for p in manifests if p.stem.lower() in ("manifest", "metadata")] or manifests
    if len(manifests) > 1:
        names = quoted(p.name for p in manifests)
        raise DataError(f"{folder}: more than one manifest: {names}; name one of them, or call them train, dev, test")
    if manifests:
        return _read_manifest(manifests[0], columns)
    if listed := sorted(folder.rglob(f"*{LIBRISPEECH}")):
        return _joined([(_read_librispeech(path), None) for path in listed], folder)
    return _read_pairs(folder)


def _split_entries(folder: Path) -> list[tuple[Path, str]]:
    """The folders and manifests that are named for a split; of folders without train a manifest beside them tells."""
    found = []
    for path in sorted(folder.iterdir()):
        known = NAMES.get(_first_part(path.name))
        if known and not path.name.endswith(LIBRISPEECH) and (path.is_dir() or kind_of(path) in TABLES):
            found.append((path, known))
    tables = any(path.is_file() and kind_of(path) in TABLES for path in folder.iterdir())
    aside = tables and all(path.is_dir() and name != "train" for path, name in found)
    return [] if aside else found


def _first_part(name: str) -> str:
    """What a name like train-clean-100 or dev_manifest.jsonl begins with."""
    return re.split(r"[-_.]", name.strip().lower())[0]


def _joined(parts: Sequence[tuple[Listing, str | None]], folder: Path) -> Listing:
    rows = [row if name is None else replace(row, split=name) for listing, name in parts for row in listing.rows]
    notes = [note for listing, _ in parts for note in listing.notes]
    names = [name for _, name in parts if name]
    several = (name for name in dict.fromkeys(names) if names.count(name) > 1)
    notes += [f"{folder}: {names.count(name)} folders or manifests make up {name}" for name in several]
    return Listing(tuple(rows), tuple(dict.fromkeys(notes)))


def _read_librispeech(path: Path) -> Listing:
    """Lines of an utterance's id and its transcript; the sound is beside it. The id begins with the speaker's."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        sound = next((p for s in (".flac", ".wav") if (p := path.with_name(name + s)).is_file()), None)
        speaker = name.partition("-")[0]
        rows.append(Row(sound or path.with_name(f"{name}.flac"), text, f"{path}:{number}", speaker=speaker))
    return Listing(tuple(rows))


def _read_pairs(folder: Path) -> Listing:
    """Sounds with a transcript of the same name beside them."""
    sounds = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUNDS and p.is_file())
    rows, bare = [], []
    for sound in sounds:
        text = next((p for s in (".txt", ".lab") if (p := sound.with_suffix(s)).is_file()), None)
        if text is None:
            bare.append(sound)
        else:
            # An empty one is a row without a transcript, which is counted with the others.
            rows.append(Row(sound, read_text(text) if text.read_bytes().strip() else "", str(text)))
    if not rows:
        what = f"{len(sounds)} sounds, none with a transcript beside it" if sounds else "no sounds"
        raise DataError(
            f"{folder}: holds {what}; allowed: a manifest ({', '.join(TABLES)}), x.wav with x.txt beside it, or the "
            f"LibriSpeech layout (*{LIBRISPEECH})"
        )
    notes = [f"{folder}: sounds left out that have no transcript: {len(bare)} (first: {bare[0]})"] if bare else []
    return Listing(tuple(rows), tuple(notes))


# Manifests ----------------------------------------------------------------------------------------


def _read_manifest(path: Path, wanted: Columns) -> Listing:
    table = read_table(path)
    if not len(table):
        raise DataError(f"{path}: no rows; a manifest needs a path and a transcript a row")
    notes = list(table.notes)
    sounds = _pick(table, wanted.path, _PATHS, "path_column", notes)
    texts = _pick(table, wanted.text, _TEXTS, "text_column", notes)
    speakers, splits, offsets, durations = (
        _known(table, usual) for usual in (_SPEAKERS, COLUMNS, _OFFSETS, _DURATIONS)
    )
    if any(speakers):
        notes.append(f"{path}: speakers are in column '{_usual(table, _SPEAKERS)[0]}'")
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
        rows.append(
            Row(
                path.parent / Path(sound).expanduser(),
                "" if text is None else str(text),
                where,
                split=_split_of(splits[index], where),
                speaker=None if speakers[index] in (None, "") else str(speakers[index]),
                start=start,
                seconds=seconds,
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
    return _pick(table, given, _PATHS, "path_column", [])


def _usual(table: Table, usual: Sequence[str]) -> list[str]:
    """The columns that have one of these names, in any case, the most usual first."""
    by_name = {name.strip().lower(): name for name in reversed(table.names)}
    return [by_name[name] for name in usual if name in by_name]


def _known(table: Table, usual: Sequence[str]) -> Sequence[object]:
    """The column that has one of these names, or nothing in each row."""
    found = _usual(table, usual)
    return table.column(found[0]) if found else [None] * len(table)


def _pick(table: Table, wanted: str | None, usual: Sequence[str], setting: str, notes: list[str]) -> str:
    """The column that is named, else the usual one; of paths, else the only one that looks like paths."""
    if wanted is not None:
        if wanted not in table.names:
            listed = quoted(table.names)
            raise DataError(f"{table.origin}: no column '{wanted}'; columns: {listed}.{nearest(wanted, table.names)}")
        return wanted
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


def _split_of(value: object, where: str) -> str | None:
    if value in (None, ""):
        return None
    name = NAMES.get(_first_part(str(value)))
    if name is None:
        raise DataError(f"{where}: unknown split '{value}'; allowed: {ALLOWED}.{nearest(str(value), NAMES)}")
    return name


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
