"""What learns fast from little sound: the experiments behind the speech preset's batches and gentle start.

    MULTISTEP_DATA=... python bench/explore_speech.py key=value,value ...     every combination, one line of JSON each

`seconds` are of the processor, of training alone, so that other work on the machine disturbs them little: half of them
at the plateau's rate, half cooling down to zero, as a plain run of `multistep` does. Sets are made of the free spoken
digits in a temporary folder: `one60`, 60 utterances of 4 to 8 words by one speaker; `same60`, of 8 words of which 5 are
always the same; `all200`, 200 utterances by six speakers; `single60` and `single300`, single words by six speakers;
`an4`, the 30 short utterances of AN4. Splits share speakers, not recordings.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from multistep.backends.torch.learner import TorchLearner
from multistep.core.evidence.metric import METRICS
from multistep.engine.planfile import plan_from
from multistep.tasks.speech.task import SpeechDomain, SpeechWorkshop

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = {"train": range(10, 50), "validation": range(5, 10), "test": range(5)}  # recordings of a word by a speaker
RATE = 8000
WINDOW, WINDOWS_A_LOOK = 10, 5  # steps


@dataclass(frozen=True)
class Settings:
    data: str = "one60"
    seconds: float = 40.0
    model: str = "deepspeech"
    batch: int = 0  # 0: the preset's
    rate: float = 0.02
    augmentation: float = 0.5
    gentle: int = -1  # steps over which augmentation grows; -1: the preset's
    cooldown: float = 0.5
    seed: int = 0


def recordings(folder: Path) -> Path:
    with tarfile.open(Path(os.environ.get("MULTISTEP_DATA", "")) / "fsdd" / "fsdd-recordings.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "fsdd" / "recordings"


def make(name: str, source: Path, folder: Path) -> Path:
    """The manifest of a set of strings of words, or of single ones."""
    if name == "an4":
        return Path(os.environ.get("MULTISTEP_DATA", "")) / "an4_tiny" / "manifest.csv"
    choose = random.Random(0)
    speakers = {"one60": ("jackson",), "same60": ("theo",)}.get(name, SPEAKERS)
    count = int("".join(filter(str.isdigit, name)))
    rows = []
    for split, takes in TAKES.items():
        for i in range({"train": count, "validation": max(15, count // 5), "test": 60}[split]):
            words = [choose.randrange(10) for _ in range(1 if name.startswith("single") else choose.randint(4, 8))]
            if name == "same60":
                words = [3, 1, words[0], 4, 1, words[1], 5, words[2]]
            speaker = choose.choice(speakers)
            parts = []
            for word in words:
                file = source / f"{word}_{speaker}_{choose.choice(takes)}.wav"
                parts += [soundfile.read(file)[0], np.zeros(choose.randint(200, 1200))]
            path = folder / f"{name}-{split}-{i}.wav"
            soundfile.write(path, np.concatenate(parts), RATE)
            rows.append([path.name, " ".join(WORDS[word] for word in words), speaker, split])
    manifest = folder / f"{name}.csv"
    with manifest.open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows([["path", "text", "speaker", "split"], *rows])
    return manifest


def run(settings: Settings, manifest: Path) -> dict[str, Any]:
    recipe: dict[str, Any] = {"learning_rate": settings.rate, "augmentation": settings.augmentation}
    if settings.batch:
        recipe["batch_size"] = settings.batch
    given = {"data": str(manifest), "model": settings.model, "budget": "5m", "recipe": recipe, "seed": settings.seed}
    learner, ready = SpeechWorkshop().open(plan_from({"task": "speech-recognition", **given}), 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    domain = learner._domain
    assert isinstance(domain, SpeechDomain)
    if settings.gentle >= 0:
        domain._gentle = settings.gentle * (ready.recipe.batch_size or 1)
    learner.initial(ready.recipe, settings.seed)
    warmup, cooling = ready.recipe.warmup_steps or 1, settings.seconds * settings.cooldown
    curve: list[tuple[int, float, float]] = []
    spent, steps = 0.0, 0
    while spent < settings.seconds:
        left = min(1.0, (settings.seconds - spent) / max(cooling, 1e-9))
        rates = [settings.rate * left * min(1.0, (steps + i + 1) / warmup) for i in range(WINDOW)]
        began = time.process_time()
        learner.advance(rates)
        spent, steps = spent + time.process_time() - began, steps + WINDOW
        if steps // WINDOW % WINDOWS_A_LOOK == 0:
            look = learner.evaluate("validation", sample=True)
            curve.append((steps, round(spent, 1), METRICS["wer"].score(look)))
    scores = {s: round(METRICS["wer"].score(learner.evaluate(s, sample=False)), 4) for s in ("validation", "test")}
    below = {f"below {rate}": next((look[:2] for look in curve if look[2] < rate), None) for rate in (0.9, 0.3)}
    return {"batch": ready.recipe.batch_size, "steps": steps, **below, **scores}


def main() -> None:
    torch.set_num_threads(1)
    known = {name: type(default) for name, default in asdict(Settings()).items()}
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    choices = [[(name, known[name](value)) for value in values.split(",")] for name, values in given.items()]
    with tempfile.TemporaryDirectory() as folder:
        source, made = recordings(Path(folder)), dict[str, Path]()
        for combination in itertools.product(*choices):
            settings = replace(Settings(), **dict(combination))
            if settings.data not in made:
                made[settings.data] = make(settings.data, source, Path(folder))
            print(json.dumps({**asdict(settings), **run(settings, made[settings.data])}), flush=True)


if __name__ == "__main__":
    main()
