"""Rows -> utterances in memory: every sound is read, resampled and turned into features once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistep.errors import DataError
from multistep.tasks.sending import sent
from multistep.tasks.speech.alphabet import Alphabet, Case, Spelling, frames_needed, spoken
from multistep.tasks.speech.audio import NO_FILE, Header, Samples, Unusable, read_header, read_samples, resampled
from multistep.tasks.speech.features import LogMel, default_features
from multistep.tasks.speech.files import Row

MOST_SKIPPED = 0.1  # of a split: with more, the list is wrong, not some files
FEW_SKIPPED = 3  # are never too many
MOST_UNKNOWN = 0.5  # of the characters of train; with more, the model writes another language
Ints = NDArray[np.int64]


class Frontend(Protocol):
    """What turns samples into what a model reads, one row a frame (of waveforms: a sample)."""

    @property
    def rate(self) -> int: ...

    def __call__(self, samples: Samples) -> NDArray[Any]:
        """Shape (frames, width)."""


@dataclass(frozen=True)
class Clips:
    """The utterances of a split, frame after frame in one tensor.

    `labels` are of the characters that the alphabet has, `unknown` the number of those that it lacks. `summary` has
    the mean and deviation of each mel band over an utterance, for the baseline.
    """

    frames: Tensor  # (frames of all, width)
    starts: Ints
    lengths: Ints
    texts: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    unknown: Ints
    speakers: tuple[str | None, ...]
    names: tuple[str, ...]  # of the sounds
    places: tuple[str, ...]  # in the list that names them
    hashes: tuple[bytes, ...]  # of what each sounds like
    summary: NDArray[np.float32] = field(repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def gather(self, indices: Ints) -> tuple[Tensor, Tensor]:
        """Some utterances side by side, zeros behind each (shape: B, T, width), and their lengths (on the CPU)."""
        lengths = torch.from_numpy(self.lengths[indices])
        device = self.frames.device
        steps = torch.arange(int(lengths.max()), device=device)
        starts, own = sent(torch.stack((torch.from_numpy(self.starts[indices]), lengths)), device)
        inside = steps < own[:, None]
        places = starts[:, None] + steps
        found = self.frames[torch.where(inside, places, 0)]
        return found * inside[..., None].to(found.dtype), lengths

    def padded_labels(self, indices: Ints) -> tuple[Tensor, Tensor]:
        """Labels (shape: B, most) and how many each has; padding is 0. Both on the CPU."""
        return padded([self.labels[i] for i in indices])

    def characters(self, indices: Iterable[int] | None = None) -> int:
        """The characters of the transcripts, spaces too."""
        return sum(len(self.texts[i]) for i in (range(len(self)) if indices is None else indices))


def padded(labels: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """The same side by side (shape: B, most), zeros behind each, and how many each has."""
    counts = torch.tensor([len(one) for one in labels])
    found = torch.zeros(len(labels), max(1, int(counts.max())), dtype=torch.int64)
    for row, one in zip(found, labels, strict=True):
        row[: len(one)] = torch.tensor(one, dtype=torch.int64)
    return found, counts


@dataclass(frozen=True)
class Corpus:
    """The three splits in memory; `fingerprint` is of all that they sound like and say."""

    splits: dict[str, Clips]
    notes: tuple[str, ...]
    fingerprint: str


class Skips:
    """Rows of a split that cannot be used: how many for which reason, and the first of each."""

    def __init__(self, name: str, rows: int) -> None:
        self._name, self._rows = name, rows
        self._found: dict[str, list[str]] = {}

    def add(self, row: Row, reason: str) -> None:
        self._found.setdefault(reason, []).append(f"{row.where}: {row.path}")

    def notes(self) -> list[str]:
        """What was left out, to be said aloud. Raises DataError where it is too much."""
        total = sum(map(len, self._found.values()))
        if not total:
            return []
        reasons = "; ".join(f"{len(rows)} {reason} (first: {rows[0]})" for reason, rows in self._found.items())
        said = f"{self._name}: {total} of {self._rows} rows cannot be used: {reasons}"
        if total == self._rows or total > max(FEW_SKIPPED, MOST_SKIPPED * self._rows):
            hint = ", or name the folder of the sounds with --set data.root=FOLDER" if NO_FILE in self._found else ""
            raise DataError(f"{said}. That is too many; mend the list, or take these rows out of it{hint}")
        return [said]


@dataclass(frozen=True)
class Survey:
    """The rows of each split that look usable, with what is said in each; and of train the rates and the length."""

    rows: dict[str, tuple[tuple[Row, str], ...]]
    rates: tuple[int, ...]
    seconds: float
    notes: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """What is said in the training split."""
        return [text for _, text in self.rows["train"]]


def survey(splits: Mapping[str, Sequence[Row]], case: Case = "lower") -> Survey:
    """Look at all transcripts and at the headers of all sounds. Raises DataError where too much is unusable."""
    rows: dict[str, tuple[tuple[Row, str], ...]] = {}
    rates: list[int] = []
    seconds, notes = 0.0, []
    for name, listed in splits.items():
        skips, spelling = Skips(name, len(listed)), Spelling()
        kept: list[tuple[Row, str]] = []
        for row in listed:
            text = spoken(row.text, case)
            if not text:
                skips.add(row, "without a transcript")
                continue
            try:
                header = _header(row)
            except Unusable as error:
                skips.add(row, str(error))
                continue
            if name == "train":
                rates.append(header.rate)
                seconds += header.seconds
            spelling.add(row.text, text)
            kept.append((row, text))
        rows[name] = tuple(kept)
        notes += [*skips.notes(), *spelling.notes(case, name)]
    return Survey(rows, tuple(rates), seconds, tuple(notes))


def _header(row: Row) -> Header:
    if row.made is not None:
        return Header(row.made[1], len(row.made[0]) / row.made[1])
    return read_header(row.sound, row.start, row.seconds)


def samples_of(row: Row, rate: int) -> Samples:
    if row.made is not None:
        return resampled(*row.made, rate)
    return read_samples(row.sound, rate, row.start, row.seconds)


def load_corpus(found: Survey, frontend: Frontend, output_length: Callable[[int], int], alphabet: Alphabet) -> Corpus:
    """Read what was surveyed at the frontend's rate. Raises DataError where too much is unusable."""
    rate, notes = frontend.rate, list(found.notes)
    if others := sorted({own for own in found.rates if own != rate}):
        many = sum(own != rate for own in found.rates)
        listed = ", ".join(map(str, others))
        notes.append(f"train: {many} of {len(found.rates)} sounds are resampled to {rate} Hz (from {listed})")
    _require_spelt(found.texts if "train" in found.rows else (), alphabet)
    loaded: dict[str, Clips] = {}
    total = hashlib.blake2b(digest_size=32)
    for name, rows in found.rows.items():
        loaded[name], said = _load(rows, name, frontend, output_length, alphabet)
        notes += [*said, *_unknown(loaded[name], name, alphabet)]
        total.update(f"{name} {len(loaded[name])}\n".encode())
        for sound, text in zip(loaded[name].hashes, loaded[name].texts, strict=True):
            total.update(sound + text.encode() + b"\n")
    if "train" in loaded:
        notes += _twice(loaded)
    return Corpus(loaded, tuple(dict.fromkeys(notes)), total.hexdigest())


def _load(
    usable: Sequence[tuple[Row, str]],
    name: str,
    frontend: Frontend,
    output_length: Callable[[int], int],
    alphabet: Alphabet,
) -> tuple[Clips, list[str]]:
    skips = Skips(name, len(usable))
    kept: list[tuple[Row, str, list[int], int, NDArray[Any]]] = []
    summaries: list[NDArray[np.float32]] = []
    mels = frontend if isinstance(frontend, LogMel) else default_features(frontend.rate)

    def read(pair: tuple[Row, str]) -> tuple[NDArray[Any], NDArray[np.float32]] | Unusable:
        try:
            samples = samples_of(pair[0], frontend.rate)
            if not samples.any():
                return Unusable("silent: all samples are 0")
            frames = frontend(samples)
            return frames, _summary(frames if mels is frontend else mels(samples))
        except Unusable as error:
            return error

    # Decoding and the transform let other threads run; what comes out is in the order of the rows.
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        read_rows = list(threads.map(read, usable))
    for (row, text), found in zip(usable, read_rows, strict=True):
        if isinstance(found, Unusable):
            skips.add(row, str(found))
            continue
        frames, summary = found
        labels, unknown = alphabet.encode(text)
        if not labels and name == "train":
            skips.add(row, "without a character that the model can write")
            continue
        if frames_needed(labels) > output_length(len(frames)):
            skips.add(row, "with a transcript longer than its sound can hold")
            continue
        kept.append((row, text, labels, unknown, frames))
        summaries.append(summary)
    lengths = np.array([len(frames) for *_, frames in kept], np.int64)
    width = kept[0][-1].shape[1] if kept else 1
    together = np.concatenate([frames for *_, frames in kept]) if kept else np.zeros((1, width), np.float32)
    clips = Clips(
        torch.from_numpy(together),
        np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64) if kept else lengths,
        lengths,
        tuple(text for _, text, *_ in kept),
        tuple(tuple(labels) for _, _, labels, _, _ in kept),
        np.array([unknown for *_, unknown, _ in kept], np.int64),
        tuple(row.speaker for row, *_ in kept),
        tuple(str(row.path) for row, *_ in kept),
        tuple(row.where for row, *_ in kept),
        tuple(hashlib.blake2b(frames.tobytes(), digest_size=16).digest() for *_, frames in kept),
        np.array(summaries, np.float32),
    )
    return clips, skips.notes()


def _summary(frames: NDArray[Any]) -> NDArray[np.float32]:
    wide = frames.astype(np.float32)
    return np.concatenate((wide.mean(0), wide.std(0)))


def _require_spelt(texts: Sequence[str], alphabet: Alphabet) -> None:
    """Raises DataError for training transcripts that an alphabet made for others hardly spells."""
    letters = [text.replace(" ", "") for text in texts]
    total, unknown = sum(map(len, letters)), sum(alphabet.encode(text)[1] for text in letters)
    if unknown > MOST_UNKNOWN * total:
        counts = Counter("".join(letters))
        missing = [c for c, _ in counts.most_common() if c not in alphabet.symbols]
        raise DataError(
            f"train: {unknown:,} of {total:,} characters of the transcripts are none that the model can write (such as "
            f"{' '.join(missing[:10])}); choose a model for this language, or one without a vocabulary"
        )


def _unknown(clips: Clips, name: str, alphabet: Alphabet) -> list[str]:
    """A note on transcripts that the alphabet cannot spell."""
    rows = np.flatnonzero(clips.unknown)
    if not len(rows):
        return []
    missing = sorted({c for i in rows for c in clips.texts[i]} - set(alphabet.symbols))
    shown = " ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
    return [
        f"{name}: {len(rows)} of {len(clips)} transcripts have characters that the model cannot write ({shown}), each "
        f"an error (first: {clips.places[rows[0]]}: {clips.texts[rows[0]]})"
    ]


def _twice(loaded: dict[str, Clips]) -> list[str]:
    """A note on sounds of validation and test that are in train too."""
    train, notes = set(loaded["train"].hashes), []
    for name in (name for name in loaded if name != "train"):
        if again := [i for i, sound in enumerate(loaded[name].hashes) if sound in train]:
            first = loaded[name].names[again[0]]
            notes.append(
                f"{name}: {len(again)} of {len(loaded[name])} sounds are in train too (first: {first}); on these it "
                "measures memory"
            )
    return notes
