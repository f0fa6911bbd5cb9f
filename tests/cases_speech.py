"""Sounds of a little language made by rule, a pitch a letter, for the contract and the tests of speech recognition."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.tasks.prediction import Prediction

RATE = 8000
PITCHES = {"a": 400.0, "b": 900.0, "c": 1700.0, "d": 2900.0, "你": 600.0, "好": 2200.0}
LETTER_SECONDS = 0.09


def say(text: str, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """A tone for each letter with a short rest behind it, silence for a space, on a little noise."""
    choose = np.random.default_rng(seed)
    time = np.arange(round(LETTER_SECONDS * rate)) / rate
    tuning = choose.uniform(0.94, 1.06)
    parts = []
    for letter in text:
        tone = np.sin(2 * np.pi * PITCHES[letter] * tuning * time) if letter != " " else 0.0 * time
        parts += [tone * np.hanning(len(time)), np.zeros(round(0.03 * rate))]
    sound = np.concatenate([*parts, np.zeros(round(0.05 * rate))])
    return (0.3 * sound + choose.normal(0, 0.003, len(sound))).astype(np.float32)


def words(count: int, seed: int, letters: str = "abcd") -> list[str]:
    """Utterances of one or two words of one to three letters."""
    choose = np.random.default_rng(seed)

    def word() -> str:
        return "".join(choose.choice(list(letters), choose.integers(1, 4)))

    return [" ".join(word() for _ in range(choose.integers(1, 3))) for _ in range(count)]


def write_sound(path: Path, text: str, rate: int = RATE, seed: int = 0) -> Path:
    import soundfile  # where it is not installed, the cases of other tasks can be read all the same

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, say(text, rate, seed), rate)
    return path


def write_manifest(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write(folder: Path) -> DataSpec:
    """A manifest a split, of sounds named by what they say."""
    for seed, (split, count) in enumerate({"train": 64, "validation": 16, "test": 16}.items()):
        rows: list[dict[str, object]] = []
        for i, text in enumerate(words(count, seed)):
            name = f"sounds/{split}-{i:02}-{text.replace(' ', '_')}.wav"
            write_sound(folder / name, text, seed=100 * seed + i)
            rows.append({"path": name, "text": text})
        write_manifest(folder / f"{split}.csv", rows)
    train, validation, test = (str(folder / f"{split}.csv") for split in ("train", "validation", "test"))
    return DataSpec(train=train, validation=validation, test=test)


def inputs(folder: Path) -> list[str]:
    """The test split's sounds, in its order."""
    return [str(path) for path in sorted((folder / "sounds").glob("test-*.wav"))]


def agree(predictions: list[Prediction], table: Evaluation) -> bool:
    """Whether they have the errors that the evaluation counted, and the probability of what was right."""
    import jiwer

    said = [Path(p.input).stem.split("-")[2].replace("_", " ") for p in predictions]
    errors = [round(len(s.split()) * jiwer.wer(s, p.output)) for s, p in zip(said, predictions, strict=True)]
    right = [i for i, p in enumerate(predictions) if p.output == said[i]]
    probabilities = [predictions[i].probability or 0.0 for i in right]
    loss = table.columns["loss"][right]
    return errors == table.columns["errors"].tolist() and bool(np.allclose(probabilities, np.exp(-loss), atol=1e-3))


SETTINGS = {
    "model": {"name": "wavenet", "layers": 3, "width": 32},
    "recipe": {"batch_size": 8, "augmentation": 0.3, "learning_rate": 0.02},
}
