"""Which net and recipe gets furthest in a given time: the experiments behind the image task's defaults.

    MULTISTEP_DATA=... python bench/explore_images.py key=value,value ...     every combination, one line of JSON each

`seconds` are of the processor, of training alone, so that other work on the machine disturbs them little: half of them
at the plateau's rate, half cooling down to zero, as a plain run of `multistep` does. Accuracies are of the validation
split; with test=1 of the test split too.
"""

import itertools
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multistep.backends.torch.learner import TorchLearner
from multistep.core.evidence.metric import METRICS
from multistep.core.values.optimizers import TYPICAL_RATE
from multistep.core.values.plan import DataSpec
from multistep.core.values.recipe import Recipe
from multistep.tasks.images.mirror import mirroring_helps
from multistep.tasks.images.models import NetMaker, Statistics
from multistep.tasks.images.nets import NetConfig
from multistep.tasks.images.splits import ImageSplits, load_splits, look_through
from multistep.tasks.images.task import ImageDomain

WINDOW = 24  # steps


@dataclass(frozen=True)
class Settings:
    data: str = "fashion-mnist"  # in MULTISTEP_DATA, or a path
    seconds: float = 60.0
    kind: str = "resnet-small"
    width: int = 16
    stages: int = 3
    blocks: int = 1
    stride: int = 1
    optimizer: str = "muon"
    rate: float = 0.0  # 0: what is typical of the optimizer
    momentum: float = 0.95
    decay: float = 0.0
    clip: float = 0.0
    batch: int = 128
    warmup: int = 20
    cooldown: float = 0.5
    averaging: float = 0.02
    smoothing: float = 0.0
    dropout: float = 0.0
    augmentation: float = 0.0
    mirror: int = -1  # -1: by the test
    sizes: str = ""  # training sizes, as 14-21-28; the last is what is scored
    split: str = ""  # shares of the trunk's time for all sizes but the last, as 1-2; empty: equal
    grown: float = 0.0  # share of the cooldown, at its beginning, that is still trained at the size before the last
    images: int = 0  # of the training split; 0: all
    test: int = 0
    looks: int = 0  # scores on the way, for the record
    seed: int = 0


def splits_of(name: str, side: int | None) -> ImageSplits:
    folder = Path(os.environ.get("MULTISTEP_DATA", "")) / name
    seen = look_through(DataSpec(source=str(folder if folder.exists() else name)))
    return load_splits(seen, seen.form.sized(side) if side else None)


def run(settings: Settings, known: dict[Any, ImageSplits]) -> dict[str, Any]:
    sizes = [int(size) for size in settings.sizes.split("-")] if settings.sizes else []
    key = (settings.data, sizes[-1] if sizes else None)
    splits = known.setdefault(key, splits_of(*key)) if key not in known else known[key]
    pixels = splits.train.images[:]
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    config = NetConfig(
        settings.kind,
        splits.form.channels,
        len(splits.classes),
        settings.width,
        settings.stages,
        settings.blocks,
        settings.stride,
    )
    maker = NetMaker(config, splits.labels, splits.form, Statistics(tuple(mean), tuple(std)))
    mirror = bool(settings.mirror) if settings.mirror >= 0 else mirroring_helps(splits.train)[0]
    learner = TorchLearner(ImageDomain(splits, maker, mirror=mirror), lambda: False, torch.device("cpu"))
    rate = settings.rate or TYPICAL_RATE[settings.optimizer]  # type: ignore[index]
    recipe = Recipe(
        optimizer=settings.optimizer,  # type: ignore[arg-type]
        learning_rate=rate,
        batch_size=settings.batch,
        momentum=settings.momentum,
        weight_decay=settings.decay,
        gradient_clip=settings.clip,
        averaging=settings.averaging,
        label_smoothing=settings.smoothing,
        dropout=settings.dropout,
        augmentation=settings.augmentation,
        resolution=tuple(sizes),
    )
    learner.initial(recipe, settings.seed)
    trunk = (1 - settings.cooldown) * settings.seconds
    growing = sizes[:-1] if sizes[:-1] else [None]
    shares = [float(s) for s in settings.split.split("-")] if settings.split else [1.0] * len(growing)
    ends = np.cumsum(shares) / sum(shares) * trunk
    spent, steps, looks = 0.0, 0, []

    def advance(rates: list[float], size: int | None) -> float:
        nonlocal spent, steps
        began = time.process_time()
        learner.advance(rates, resolution=size)
        took = time.process_time() - began
        spent += took
        steps += len(rates)
        return took / len(rates)

    def look() -> float:
        return METRICS["accuracy"].score(learner.evaluate("validation", sample=False))

    advance([rate * (i + 1) / settings.warmup for i in range(settings.warmup)], growing[0])
    while spent < trunk:
        size = growing[int(np.searchsorted(ends, spent, side="right").clip(0, len(growing) - 1))]
        advance([rate] * WINDOW, size)
        if settings.looks and steps % (WINDOW * settings.looks) < WINDOW:
            looks.append((steps, round(spent, 1), look()))
    before = look()
    progress, per_step = 0.0, advance([rate], sizes[-1] if sizes else None)
    while progress < 1.0:
        size = growing[-1] if progress < settings.grown else (sizes[-1] if sizes else None)
        remaining = max(1, int((settings.seconds - spent) / per_step))
        count = min(WINDOW, remaining)
        rates = [rate * (1 - progress) * (1 - i / remaining) for i in range(count)]
        per_step = advance(rates, size)
        progress = 1.0 if count >= remaining else progress + (1 - progress) * count / remaining
    scores = learner.evaluate("validation", sample=False)
    result: dict[str, Any] = {k: v for k, v in asdict(settings).items() if v != getattr(Settings(), k)}
    result |= {
        "parameters": sum(p.numel() for p in learner._model.parameters()),
        "steps": steps,
        "epochs": round(steps * settings.batch / len(splits.train), 1),
        "before": round(before, 4),
        "accuracy": round(METRICS["accuracy"].score(scores), 4),
        "loss": round(METRICS["loss"].score(scores), 4),
    }
    if settings.test:
        result["tested"] = round(METRICS["accuracy"].score(learner.evaluate("test", sample=False)), 4)
    if looks:
        result["curve"] = looks
    return result


def main() -> None:
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(Settings)}
    given = dict(pair.split("=", 1) for pair in sys.argv[1:])
    values = [[kinds[name](value) for value in text.split(",")] for name, text in given.items()]
    known: dict[Any, ImageSplits] = {}
    for chosen in itertools.product(*values):
        settings = Settings(**dict(zip(given, chosen, strict=True)))
        print(json.dumps(run(settings, known)), flush=True)


if __name__ == "__main__":
    main()
