"""Folders of recordings -> tables of sounds and what is said in them: transcripts beside sounds, in trees, in lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from multistep.data.captions import captions
from multistep.data.names import splits_among
from multistep.data.saying import by_lists, stem_of_sound
from multistep.data.table import Table, joined, of_columns
from multistep.data.text import TABLES, read_text
from multistep.data.walk import Seen, few, files_below, seen_below
from multistep.errors import DataError

LIBRISPEECH = ".trans.txt"
_OF_THCHS = ".wav.trn"  # three lines: words, syllables with their tones, phones
_TEXTS = (".normalized.txt", _OF_THCHS, ".txt", ".lab", ".trn")  # of one sound, the better first
_TIMIT = re.compile(r"\s*\d+\s+\d+\s+")  # the first and last sample, before what is said between them
_SECOND_MICROPHONE = re.compile(r"(.+)_mic[2-9]")
_COMMAND = "_nohash_"  # in the names of Speech Commands, behind the speaker


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
    table = table or by_lists(folder, seen, heard) or captions(folder, seen, heard)
    if table is None:
        what = f"{len(heard)} sounds, none with a transcript beside it" if heard else "no sounds"
        raise DataError(
            f"{folder}: holds {what}; allowed: a manifest ({', '.join(TABLES)}), x.wav with x.txt beside it or in a "
            f"tree of the same folders, the LibriSpeech layout (*{LIBRISPEECH}), Kaldi's (wav.scp and text), "
            "LJSpeech's (metadata.csv and wavs/), subtitles beside sounds, or a text file whose lines begin with the "
            "names of the sounds"
        )
    return _by_split_folders(folder, table.saying(*notes))


def _by_split_folders(folder: Path, table: Table) -> Table:
    """The table with a column `split`, where all sounds lie below folders of splits: wav/train, wav/dev, as of AISHELL.

    Whoever laid them out so has cut by speaker, which a cut by lot would undo.
    """
    files = [str(file) for file in table.column("file")]
    steps = [Path(file).relative_to(folder).parts[:-1] for file in files if Path(file).is_relative_to(folder)]
    for depth in range(min(map(len, steps), default=0) if len(steps) == len(files) else 0):
        names = [parts[depth] for parts in steps]
        known = splits_among(dict.fromkeys(names))
        if set(names) <= known.keys() and "train" in known.values() and len(set(known.values())) > 1:
            said = f"{folder}: splits are the folders of the sounds: {', '.join(dict.fromkeys(names))}"
            return _with_column(table, "split", names).saying(said)
    return table


def _with_column(table: Table, name: str, held: Sequence[object]) -> Table:
    values = table.values
    is_text = {**table.is_text, name: True}
    return replace(table, is_text=is_text, values=lambda column: held if column == name else values(column))


def commands(folder: Path, sounds: Sequence[str]) -> Table | None:
    """The columns `file`, `text`, `speaker` and `split` of Speech Commands: a folder a word, and lists of two splits.

    arXiv 1804.03209. Of a copy without the lists there is no `split`: it is told by its names, x_nohash_0.wav. None
    where a folder is not so laid out: names of folders are no transcripts otherwise.
    """
    lists = {split: folder / f"{name}_list.txt" for split, name in (("validation", "validation"), ("test", "testing"))}
    listed = all(path.is_file() for path in lists.values())
    if not listed and not any(_COMMAND in path.stem for path, _ in files_below(folder, 1)):
        return None
    split_of = {n.strip(): split for split, path in lists.items() if listed for n in read_text(path).split("\n")}
    seen = seen_below(folder)
    heard = [path for path in seen.files if path.suffix.lower() in sounds and not path.parent.name.startswith("_")]
    if not listed and any(_COMMAND not in path.stem or path.parent.parent != folder for path in heard):
        return None
    names = [path.relative_to(folder).as_posix() for path in heard]
    columns: dict[str, Sequence[object]] = {
        "file": list(map(str, heard)),
        "text": [path.parent.name.replace("_", " ") for path in heard],
        "speaker": [path.stem.partition(_COMMAND)[0] for path in heard],
    }
    if listed:
        columns["split"] = [split_of.get(name, "train") for name in names]
    words = few(dict.fromkeys(map(str, columns["text"])))
    splits = ", splits are those of its lists" if listed else ""
    note = f"{folder}: what is said is the name of a sound's folder ({words}){splits}"
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
        speakers.append(re.split("[-_]", name)[0])
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
        stem = stem_of_sound(sound)
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
        said = _said_in(text) if text.read_bytes().strip() else ""
        if text.name.lower().endswith(_OF_THCHS):
            speaker = sound.stem.partition("_")[0]
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
    of_thchs = [place for place in places if place.lower().endswith(_OF_THCHS)]
    notes += [f"{folder}: of a .trn the first line is what is said ({len(of_thchs):,} files)"] if of_thchs else []
    if None not in speakers:
        columns["speaker"] = speakers
        called = "begin the names of the sounds" if of_thchs else "are the folders of the sounds"
        notes.append(f"{folder}: speakers {called}: {len(set(speakers)):,}")
    return of_columns(str(folder), columns, places, notes=tuple(notes))


def _said_in(path: Path) -> str:
    """A transcript. Of THCHS-30's .trn the first of three lines; one that names another file is that file's."""
    text = read_text(path)
    if path.suffix.lower() != ".trn":
        return text
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) == 1 and lines[0].endswith(path.suffix) and (other := path.parent / lines[0]).is_file():
        return _said_in(other) if other.resolve() != path.resolve() else text
    return lines[0] if path.name.lower().endswith(_OF_THCHS) and len(lines) > 1 else text
