"""Files beside sounds that say more than a text: subtitles with their times, JSON -> tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from multistep.data.table import Table, joined, of_columns
from multistep.data.text import read_text
from multistep.data.walk import Seen
from multistep.errors import DataError

SUBTITLES = (".srt", ".vtt")
_KEYS = ("text", "transcript", "transcription", "sentence", "normalized_text")
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_CUE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}.*")
_MARKUP = re.compile(r"<[^>]+>|\{\\[^}]*\}")


def captions(folder: Path, seen: Seen, sounds: Sequence[Path]) -> Table | None:
    """The columns `file` and `text` of sounds with subtitles or JSON of their names beside them; None without such.

    A subtitle is a row of its own, the part of its sound given by `offset` and `duration` in seconds.
    """
    beside = {(path.parent, path.stem.lower(), path.suffix.lower()): path for path in seen.files}
    by_kind: dict[str, list[tuple[Path, Path]]] = {}
    for sound in sounds:
        for kind in (*SUBTITLES, ".json"):
            if (path := beside.get((sound.parent, sound.stem.lower(), kind))) is not None:
                by_kind.setdefault(kind, []).append((sound, path))
    for kind, found in by_kind.items():
        tables = [_of_json(*each) if kind == ".json" else _of_subtitles(*each) for each in found]
        if told := [table for table in tables if table is not None and len(table)]:
            what = "what is said is in the .json beside each sound" if kind == ".json" else "each subtitle is a row"
            bare = len(sounds) - len(told)
            notes = [f"{folder}: sounds left out that have no {kind} with what is said: {bare}"] if bare else []
            return joined(str(folder), told, f"{folder}: {what}", *notes)
    return None


def _of_json(sound: Path, path: Path) -> Table | None:
    try:
        held = json.loads(read_text(path))
    except (ValueError, DataError):
        return None
    names = {str(name).lower(): name for name in held} if isinstance(held, dict) else {}
    key = next((names[name] for name in _KEYS if name in names), None)
    if key is None or not isinstance(held[key], str):
        return None
    columns = {"file": [str(sound)], "text": [held[key]]}
    if "speaker" in names and isinstance(held[names["speaker"]], str):
        columns["speaker"] = [held[names["speaker"]]]
    return of_columns(str(path), columns, [str(path)])


def _of_subtitles(sound: Path, path: Path) -> Table | None:
    offsets, durations, texts, places = list[float](), list[float](), list[str](), list[str]()
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines):
        if (cue := _CUE.fullmatch(line)) is None:
            continue
        start, end = (_seconds(cue.groups()[i : i + 4]) for i in (0, 4))
        said = list[str]()
        for after in lines[number + 1 :]:
            if not after.strip():
                break
            said.append(_MARKUP.sub("", after).strip())
        if end > start and (text := " ".join(filter(None, said))):
            offsets.append(start)
            durations.append(end - start)
            texts.append(text)
            places.append(f"{path}:{number + 1}")
    columns: dict[str, Sequence[object]] = {
        "file": [str(sound)] * len(texts),
        "text": texts,
        "offset": offsets,
        "duration": durations,
    }
    return of_columns(str(path), columns, places) if texts else None


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, part = (part or "0" for part in parts)
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + float(f"0.{part}")
