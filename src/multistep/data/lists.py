"""Lists of recordings without a header -> tables: Kaldi's folders, lines of fields between pipes, .stm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from multistep.data.table import Table, of_columns
from multistep.data.text import read_text
from multistep.errors import DataError

LOOKED_AT = 20  # lines, where it is asked in which form a list is
_STM_FIELDS = 6  # file, channel, speaker, begin, end, and what is said, perhaps behind a <label>
_IGNORED = "ignore_time_segment_in_scoring"


def is_kaldi(folder: Path) -> bool:
    return (folder / "wav.scp").is_file()


def kaldi(folder: Path) -> Table:
    """The columns `file`, `text`, perhaps `speaker`, `offset` and `duration`, of wav.scp, text, utt2spk and segments.

    kaldi-asr.org/doc/data_prep.html. Raises DataError, with the line, for a sound that a command would make.
    """
    if not (folder / "text").is_file():
        raise DataError(f"{folder}: holds wav.scp but no file 'text' with what is said; put it beside")
    sounds = {}
    for number, name, value in _keyed(folder / "wav.scp"):
        if value.endswith("|") or value.startswith("|"):
            raise DataError(
                f"{folder / 'wav.scp'}:{number}: '{value}' is a command, and none is run here; write what it gives to "
                "a file once, and name the file"
            )
        sounds[name] = value
    texts = list(_keyed(folder / "text"))
    speakers = {name: value for _, name, value in _keyed(folder / "utt2spk")} if (folder / "utt2spk").is_file() else {}
    parts = _segments(folder / "segments")
    columns: dict[str, list[object]] = {name: [] for name in ("file", "text", "speaker", "offset", "duration")}
    places, lost = [], []
    for number, name, text in texts:
        recording, start, seconds = parts.get(name, (name, None, None)) if parts else (name, None, None)
        if recording not in sounds or (parts and name not in parts):
            lost.append(name)
            continue
        row: tuple[object, ...] = (sounds[recording], text, speakers.get(name), start, seconds)
        for held, cell in zip(columns.values(), row, strict=True):
            held.append(cell)
        places.append(f"{folder / 'text'}:{number}")
    if not places:
        raise DataError(f"{folder}: none of the {len(texts)} utterances of 'text' has a sound in wav.scp; mend the ids")
    kept = {name: held for name, held in columns.items() if any(value is not None for value in held)}
    notes = [f"{folder}: utterances left out that wav.scp and segments lack: {len(lost)} ({lost[0]})"] if lost else []
    return _located(folder / "wav.scp", kept, places, notes)


def _segments(path: Path) -> Mapping[str, tuple[str, float, float]]:
    if not path.is_file():
        return {}
    found = {}
    for number, name, value in _keyed(path):
        try:
            recording, start, end = value.split()
            found[name] = (recording, float(start), float(end) - float(start))
        except ValueError:
            raise DataError(
                f"{path}:{number}: '{value}' is not a recording, a beginning and an end in seconds"
            ) from None
    return found


def _keyed(path: Path) -> Iterator[tuple[int, str, str]]:
    """The number of each line that is not blank, its first word, and the rest."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            name, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
            yield number, name, rest.strip()


def piped(path: Path, usual: Sequence[str], encoding: str | None = None) -> Table | None:
    """The columns `file`, `text` and perhaps `speaker` of lines like those of LJSpeech: id|text|text as it is spoken.

    Also path|speaker|text, as VITS and its kin have it: a field without spaces that few values fill is the speaker.
    None for a file that is not so, or whose first field is a column's `usual` name.
    """
    lines = [(i, line) for i, line in enumerate(read_text(path, encoding).split("\n"), start=1) if line.strip()]
    rows = [[field.strip() for field in line.split("|")] for _, line in lines]
    width = len(rows[0])
    if width < 2 or any(len(row) != width for row in rows[:LOOKED_AT]) or rows[0][0].lower() in usual:
        return None
    wrong = next((number for (number, _), row in zip(lines, rows, strict=True) if len(row) != width), None)
    if wrong is not None:
        raise DataError(
            f"{path}:{wrong}: other than {width} fields between pipes, as the first line has; mend the line"
        )
    fields = list(zip(*rows, strict=True))
    speaker = next((i for i in range(1, width) if width > 2 and _tells_speakers(fields, i)), None)
    said = [i for i in range(1, width) if i != speaker]
    # What is spoken stands last, where it stands apart from what is written.
    texts = [next((row[i] for i in reversed(said) if row[i]), "") for row in rows]
    columns: dict[str, Sequence[object]] = {"file": fields[0], "text": texts}
    if speaker is not None:
        columns["speaker"] = fields[speaker]
    which = [f"file in field 1, transcript in field {said[-1] + 1}"]
    which += [f"speaker in field {speaker + 1}"] if speaker is not None else []
    note = f"{path}: no header, fields between pipes: {', '.join(which)} of {width}"
    return _located(path, columns, [f"{path}:{number}" for number, _ in lines], [note])


def _tells_speakers(fields: Sequence[Sequence[str]], number: int) -> bool:
    """Whether a field names speakers: no spaces, few values, and other fields that do not look so."""
    held = fields[number]
    others = [fields[i] for i in range(1, len(fields)) if i != number]
    plain = all(value and " " not in value for value in held)
    return plain and 2 * len(set(held)) <= len(held) and any(any(" " in value for value in other) for other in others)


def stm(path: Path) -> Table:
    """The columns `file`, `text`, `speaker`, `offset` and `duration` of a list as NIST and TED-LIUM write it."""
    columns: dict[str, list[object]] = {name: [] for name in ("file", "text", "speaker", "offset", "duration")}
    places = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split(maxsplit=_STM_FIELDS - 1)
        try:
            name, _, speaker, start, end = fields[:5]
            begin, seconds = float(start), float(end) - float(start)
        except ValueError:
            raise DataError(
                f"{path}:{number}: not file, channel, speaker, begin, end and text; mend the line"
            ) from None
        text = fields[5] if len(fields) == _STM_FIELDS else ""
        text = text.partition(">")[2].strip() if text.startswith("<") else text
        if text and text != _IGNORED:
            for held, value in zip(columns.values(), (name, text, speaker, begin, seconds), strict=True):
                held.append(value)
            places.append(f"{path}:{number}")
    return _located(path, columns, places, [])


def _located(path: Path, columns: Mapping[str, Sequence[object]], places: Sequence[str], notes: Sequence[str]) -> Table:
    """A table whose paths are relative to the list's folder."""
    return of_columns(str(path), columns, places, notes=tuple(notes), folder=path.parent)
