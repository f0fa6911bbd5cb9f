"""How fast images are decoded, by what, and what a folder of them costs before and while it is trained on.

    python bench/decoding.py make FOLDER [--images 5000] [--size 500x375]      # JPEGs of ten classes, with noise
    python bench/decoding.py workers FOLDER [--workers 2] [--side 224]         # one thread, threads, processes
    python bench/decoding.py train FOLDER [--side 224] [--large] [--epochs 2]  # seconds, images a second, memory

`train` opens the folder as a run does, with the preset's net at the given side, and trains it for some epochs without
looking at scores. `--large` decodes while it trains, as sets do that are too large to be decoded beforehand; call it
twice to see a start with what the first call kept. It runs on older versions, too: PYTHONPATH=OTHER/src.
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from multistep.engine.planfile import plan_from
from multistep.tasks.images import decode
from multistep.tasks.images.task import ImageWorkshop

AT_ONCE = 16  # images that a worker is given together
BATCH = 32


def make(folder: Path, images: int, size: str) -> None:
    """Blurred patches in the tint of their class, with the noise of a camera."""
    width, height = map(int, size.split("x"))
    choose = np.random.default_rng(0)
    for number in range(images):
        kind = number % 10
        patches = choose.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
        smooth = np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + choose.integers(-12, 13, (height, width, 1), np.int16)
        noisy[..., kind % 3] += 15 * (kind // 3)
        place = folder / f"class{kind}" / f"{number:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place, quality=85)


def decoded(paths: list[Path], form: decode.Form) -> np.ndarray:
    return np.stack([decode.decode(path, form) for path in paths])


def workers(folder: Path, count: int, side: int) -> None:
    """Images a second, all of them brought together in one array of the process that would train."""
    paths, form = sorted(folder.rglob("*.jpg")), decode.Form(3, side, side)
    parts = [paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE)]
    held = np.zeros((len(paths), side, side, 3), np.uint8)
    decoded(paths[:64], form)
    for path in paths:
        path.read_bytes()  # from the disk once, whoever comes first
    pools: dict[str, Callable[[], Executor]] = {
        "one thread": lambda: ThreadPoolExecutor(1),
        f"{count} threads": lambda: ThreadPoolExecutor(count),
        f"{count} processes, forked": lambda: ProcessPoolExecutor(count, multiprocessing.get_context("fork")),
        f"{count} processes, spawned": lambda: ProcessPoolExecutor(count, multiprocessing.get_context("spawn")),
    }
    for name, pool in pools.items():
        began, busy = time.perf_counter(), processor_seconds()
        with pool() as working:
            at = 0
            for made in working.map(partial(decoded, form=form), parts):
                held[at : at + len(made)] = made
                at += len(made)
        speed, cost = len(paths) / (time.perf_counter() - began), (processor_seconds() - busy) / len(paths)
        print(f"{name:24} {speed:5.0f} images a second, {1000 * cost:.2f} ms of a core for each", flush=True)


def processor_seconds() -> float:
    """Of this process and those of its own that have ended: what others do on the machine does not count."""
    return sum(os.times()[:4])


def train(folder: Path, side: int, large: bool, epochs: int) -> None:
    if large:
        decode.MOST_BYTES = 0
    began, busy = time.perf_counter(), processor_seconds()
    content = {
        "task": "image-classification",
        "data": str(folder),
        "model": {"name": "resnet-small", "width": 16},
        "recipe": {"resolution": [side], "batch_size": BATCH},
        "budget": f"{epochs} epochs",
    }
    learner, ready = ImageWorkshop().open(plan_from(content), 0, lambda: False)
    learner.initial(ready.recipe, 0)
    opened = time.perf_counter()
    learner.advance([1e-3])
    first = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    spent = processor_seconds() - busy
    print(
        f"opened in {opened - began:.1f} s, first step after {first - began:.1f} s ({spent:.1f} s of a core), "
        f"{before:,} MB until then",
        flush=True,
    )
    for epoch in range(1, epochs + 1):
        steps = ready.facts.train_examples // BATCH
        start, busy = time.perf_counter(), processor_seconds()
        learner.advance([1e-3] * steps)
        speed = steps * BATCH / (time.perf_counter() - start)
        cost = (processor_seconds() - busy) / (steps * BATCH)
        print(f"epoch {epoch}: {speed:.0f} images a second, {1000 * cost:.2f} ms of a core for each", flush=True)
    start = time.perf_counter()
    name, table = learner.baseline("validation")
    print(f"{name} fitted and scored on {len(table):,} images in {time.perf_counter() - start:.1f} s")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "workers", "train"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", default="500x375")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder, given.images, given.size)
    elif given.what == "workers":
        workers(given.folder, given.workers, given.side)
    else:
        train(given.folder, given.side, given.large, given.epochs)
