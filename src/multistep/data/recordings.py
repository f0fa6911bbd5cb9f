"""Folders of recordings -> tables of sounds and what is said in them: LibriSpeech, and transcripts beside sounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multistep.data.table import Table, joined, of_columns
from multistep.data.text import TABLES, read_text
from multistep.errors import DataError

LIBRISPEECH = ".trans.txt"


def recordings(folder: Path, sounds: Sequence[str]) -> Table:
    """The columns `file`, `text` and, where it is known, `speaker`, in one of the layouts that need no manifest.

    *.trans.txt beside its sounds, or x.txt (x.lab) beside x.wav, both at any depth. Raises DataError.
    """
    if listed := sorted(folder.rglob(f"*{LIBRISPEECH}")):
        return joined(str(folder), [_librispeech(path) for path in listed])
    return _beside(folder, sounds)


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


def _beside(folder: Path, suffixes: Sequence[str]) -> Table:
    """Sounds with a transcript of the same name beside them."""
    sounds = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    files, texts, places, bare = [], [], [], []
    for sound in sounds:
        text = next((p for s in (".txt", ".lab") if (p := sound.with_suffix(s)).is_file()), None)
        if text is None:
            bare.append(sound)
        else:
            files.append(str(sound))
            # An empty one is a row without a transcript, which is counted with the others.
            texts.append(read_text(text) if text.read_bytes().strip() else "")
            places.append(str(text))
    if not files:
        what = f"{len(sounds)} sounds, none with a transcript beside it" if sounds else "no sounds"
        raise DataError(
            f"{folder}: holds {what}; allowed: a manifest ({', '.join(TABLES)}), x.wav with x.txt beside it, or the "
            f"LibriSpeech layout (*{LIBRISPEECH})"
        )
    notes = (f"{folder}: sounds left out that have no transcript: {len(bare)} (first: {bare[0]})",) if bare else ()
    return of_columns(str(folder), {"file": files, "text": texts}, places, notes=notes)
