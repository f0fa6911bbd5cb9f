"""Folders of recordings -> tables of sounds and what is said in them: transcripts beside sounds, in trees, in lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from multistep.data.table import Table, joined, of_columns
from multistep.data.text import TABLES, read_text
from multistep.data.walk import Seen, few, seen_below
from multistep.errors import DataError

LIBRISPEECH = ".trans.txt"
_TEXTS = (".normalized.txt", ".txt", ".lab", ".trn")  # of one sound, the better first
_TIMIT = re.compile(r"\s*\d+\s+\d+\s+")  # the first and last sample, before what is said between them
_SECOND_MICROPHONE = re.compile(r"(.+)_mic[2-9]")
_FEW_LINES, _MOST_LINES = 2, 200  # of a list: fewer are none, more need not be looked at


def recordings(folder: Path, sounds: Sequence[str]) -> Table:
    """The columns `file`, `text` and, where it is known, `speaker`, in one of the layouts that need no manifest.

    *.trans.txt beside its sounds; x.txt (x.lab) beside x.wav or, as of VCTK, in a tree of their own; TIMIT; a text file
    of lines that begin with the name of a sound. All at any depth, in any case. Raises DataError.
    """
    seen = seen_below(folder)
    notes = seen.notes(folder)
    if listed := [path for path in seen.files if path.name.lower().endswith(LIBRISPEECH)]:
        return joined(str(folder), [_librispeech(path) for path in listed], *notes)
    heard = [path for path in seen.files if path.suffix.lower() in sounds]
    table = _by_name(folder, seen, heard) if heard else None
    table = table or _by_lists(folder, seen, heard)
    if table is None:
        what = f"{len(heard)} sounds, none with a transcript beside it" if heard else "no sounds"
        raise DataError(
            f"{folder}: holds {what}; allowed: a manifest ({', '.join(TABLES)}), x.wav with x.txt beside it or in a "
            f"tree of the same folders, the LibriSpeech layout (*{LIBRISPEECH}), Kaldi's (wav.scp and text), "
            "LJSpeech's (metadata.csv and wavs/), or a text file whose lines begin with the names of the sounds"
        )
    return table.saying(*notes)


def commands(folder: Path, sounds: Sequence[str]) -> Table | None:
    """The columns `file`, `text`, `speaker` and `split` of Speech Commands: a folder a word, and lists of two splits.

    arXiv 1804.03209. None where a folder is not so laid out: names of folders are no transcripts otherwise.
    """
    lists = {split: folder / f"{name}_list.txt" for split, name in (("validation", "validation"), ("test", "testing"))}
    if not all(path.is_file() for path in lists.values()):
        return None
    split_of = {name.strip(): split for split, path in lists.items() for name in read_text(path).split("\n")}
    seen = seen_below(folder)
    heard = [path for path in seen.files if path.suffix.lower() in sounds and not path.parent.name.startswith("_")]
    names = [path.relative_to(folder).as_posix() for path in heard]
    columns: dict[str, Sequence[object]] = {
        "file": list(map(str, heard)),
        "text": [path.parent.name.replace("_", " ") for path in heard],
        "speaker": [path.stem.partition("_nohash_")[0] for path in heard],
        "split": [split_of.get(name, "train") for name in names],
    }
    words = few(dict.fromkeys(map(str, columns["text"])))
    note = f"{folder}: what is said is the name of a sound's folder ({words}), splits are those of its lists"
    return of_columns(str(folder), columns, list(map(str, heard)), notes=(note, *seen.notes(folder)))


def _librispeech(path: Path) -> Table:
    """Lines of an utterance's id and its transcript; the sound is beside it. The id begins with the speaker's."""
    files, texts, speakers, places = [], [], [], []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        sound = next((p for s in (".flac", ".wav") if (p := path.with_name(name + s)).is_file()), None)
        files.append(str(sound or path.with_name(f"{name}.flac")))
        texts.append(text)
        speakers.append(name.partition("-")[0])
        places.append(f"{path}:{number}")
    return of_columns(str(path), {"file": files, "text": texts, "speaker": speakers}, places)


def _by_name(folder: Path, seen: Seen, sounds: Sequence[Path]) -> Table | None:
    """Sounds with a transcript of the same name, beside them or elsewhere below the folder; None if none has one."""
    beside: dict[tuple[Path, str], Path] = {}
    anywhere: dict[str, list[Path]] = defaultdict(list)
    for ending in reversed(_TEXTS):
        for path in seen.files:
            if path.name.lower().endswith(ending):
                stem = path.name[: -len(ending)].lower()
                beside[path.parent, stem] = path
                anywhere[stem].append(path)
    names = {path.name.lower() for path in sounds}
    timed = {(path.parent, path.stem.lower()) for path in seen.files if path.suffix.lower() in (".phn", ".wrd")}
    files, texts, speakers, places = [], [], list[str | None](), []
    bare, others = [], []
    for sound in sounds:
        stem = _stem(sound)
        if (second := _SECOND_MICROPHONE.fullmatch(stem)) and f"{second[1]}_mic1{sound.suffix}".lower() in names:
            others.append(sound)
            continue
        text, speaker = beside.get((sound.parent, stem)), None
        if text is None and len(found := anywhere[re.sub(r"_mic\d$", "", stem)]) == 1:
            (text,) = found
            speaker = sound.parent.name if text.parent.name == sound.parent.name else None
        if text is None:
            bare.append(sound)
            continue
        # An empty one is a row without a transcript, which is counted with the others.
        said = read_text(text) if text.read_bytes().strip() else ""
        if (sound.parent, stem) in timed:
            said, speaker = _TIMIT.sub("", said, count=1), sound.parent.name
        files.append(str(sound))
        texts.append(said)
        speakers.append(speaker)
        places.append(str(text))
    if not files:
        return None
    notes = [f"{folder}: sounds left out that have no transcript: {len(bare)} (first: {bare[0]})"] if bare else []
    notes += [f"{folder}: sounds of a second microphone left out: {len(others):,}"] if others else []
    columns: dict[str, Sequence[object]] = {"file": files, "text": texts}
    if None not in speakers:
        columns["speaker"] = speakers
        notes.append(f"{folder}: speakers are the folders of the sounds: {len(set(speakers)):,}")
    return of_columns(str(folder), columns, places, notes=tuple(notes))


def _stem(sound: Path) -> str:
    """A sound's name in small letters without its suffix, also a second one, as in SA1.WAV.wav."""
    stem = sound.stem.lower()
    return stem[:-4] if stem.endswith((".wav", ".sph")) else stem


def _by_lists(folder: Path, seen: Seen, sounds: Sequence[Path]) -> Table | None:
    """Text files whose lines begin with the name of a sound: as of Multilingual LibriSpeech and AISHELL."""
    by_name: dict[str, Path] = {}
    for sound in sounds:
        by_name[sound.name.lower()] = by_name[_stem(sound)] = sound
    tables = []
    for path in seen.files if sounds else ():
        if path.suffix.lower() in (".txt", ".tsv", ".lst") and path.stat().st_size:
            try:
                lines = [line for line in read_text(path).split("\n") if line.strip()]
            except DataError:  # whatever else lies there as .txt
                continue
            sample = lines[:_MOST_LINES]
            known = sum(_first(line)[0].lower() in by_name for line in sample)
            if len(lines) >= _FEW_LINES and known > len(sample) / 2:
                tables.append(_of_lines(path, by_name))
    return joined(str(folder), tables) if tables else None


def _of_lines(path: Path, by_name: dict[str, Path]) -> Table:
    files, texts, places, lost = [], [], [], []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        name, text = _first(line)
        if name.lower() in by_name:
            files.append(str(by_name[name.lower()]))
            texts.append(text)
            places.append(f"{path}:{number}")
        elif name:
            lost.append(number)
    said = f"{path}: lines left out, since no sound has their name: {len(lost)} (first: line {lost[0]})" if lost else ""
    note = f"{path}: each line is the name of a sound and what is said in it"
    return of_columns(str(path), {"file": files, "text": texts}, places, notes=(note, *([said] if said else [])))


def _first(line: str) -> tuple[str, str]:
    """What a line begins with, up to a tab or space, and the rest."""
    name, _, rest = line.strip().partition("\t" if "\t" in line else " ")
    return name, rest.strip()
